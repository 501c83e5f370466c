"""Load, store and atomic instructions: operands, reserved fields, and the accesses they make.

Mirrors check_load_mem, check_store_reg and check_atomic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pktbpf.verifier import memory, scalar
from pktbpf.verifier.alu import readable, writable
from pktbpf.verifier.errors import denied, invalid
from pktbpf.verifier.memory import SOCK_KINDS
from pktbpf.verifier.state import BASE, BTF, CTX, MEM, RDONLY, SCALAR, UNTRUSTED, kind_text

if TYPE_CHECKING:
    from pktbpf.verifier.code import Op
    from pktbpf.verifier.walk import Walk

_ONE_KIND = (CTX, BTF, *SOCK_KINDS)
_EXCHANGES = (0x00, 0x01, 0x50, 0x51, 0x40, 0x41, 0xA0, 0xA1, 0xE1, 0xF1)
_CMPXCHG, _LOAD_ACQUIRE, _STORE_RELEASE = 0xF1, 0x100, 0x110


def _same_kind(walk: Walk, kind: int, load: bool = False) -> None:
    """One instruction cannot be compiled for two kinds of pointer that need different code."""
    known = walk.pointer_kinds[walk.index]
    if known == kind:
        return
    if not known:
        walk.pointer_kinds[walk.index] = kind
        return
    if kind & BASE not in _ONE_KIND and known & BASE not in _ONE_KIND:
        return
    if load and kind & BASE in (MEM, BTF) and known & BASE in (MEM, BTF):
        # The less trusted of both ways decides what the load is compiled to.
        base = MEM if MEM in (kind & BASE, known & BASE) else BTF
        walk.pointer_kinds[walk.index] = base | (kind | known) & (UNTRUSTED | RDONLY)
        return
    invalid("same insn cannot be used with different pointers")


def load(walk: Walk, op: Op) -> None:
    """dst = *(size *)(src + off)"""
    _load(walk, op, strict=False, signed=op.name == "LDSX", trust=True)
    walk.index += 1


def _load(walk: Walk, op: Op, *, strict: bool, signed: bool, trust: bool) -> None:
    kind = readable(walk, op.src).kind
    writable(op.dst)
    memory.access(walk, op.src, op.off, op.size, write=False, value=op.dst, strict=strict, signed=signed)
    _same_kind(walk, kind, trust)
    loaded = walk.regs[op.dst]
    if not scalar.consistent(loaded.v):
        walk.regs[op.dst] = loaded.with_value(scalar.unbounded(loaded.v[0], loaded.v[1]))


def store(walk: Walk, op: Op) -> None:
    """*(size *)(dst + off) = src"""
    if op.imm:
        invalid("BPF_STX uses reserved fields")
    _store(walk, op, strict=False)
    walk.index += 1


def _store(walk: Walk, op: Op, *, strict: bool) -> None:
    readable(walk, op.src)
    kind = readable(walk, op.dst).kind
    memory.access(walk, op.dst, op.off, op.size, write=True, value=op.src, strict=strict)
    _same_kind(walk, kind)


def store_immediate(walk: Walk, op: Op) -> None:
    """*(size *)(dst + off) = imm"""
    if op.src:
        invalid("BPF_ST uses reserved fields")
    kind = readable(walk, op.dst).kind
    if kind == CTX and not walk.profile.context_immediates:
        denied(f"BPF_ST stores into R{op.dst} ctx is not allowed")
    memory.access(walk, op.dst, op.off, op.size, write=True, value=-1, constant=op.imm)
    _same_kind(walk, kind)
    walk.index += 1


def atomic(walk: Walk, op: Op) -> None:
    """Atomic read-modify-write, load-acquire and store-release; which one is in the immediate."""
    what = op.imm
    if what in _EXCHANGES or not walk.profile.atomics:
        _exchange(walk, op)
    elif what == _LOAD_ACQUIRE and walk.profile.ordered_atomics:
        _load(walk, op, strict=True, signed=False, trust=False)
        _atomic_pointer(walk, walk.pointer_kinds[walk.index], f"loads from R{op.src}")
    elif what == _STORE_RELEASE and walk.profile.ordered_atomics:
        _store(walk, op, strict=True)
        _atomic_pointer(walk, walk.regs[op.dst].kind, f"stores into R{op.dst}")
    else:
        invalid(f"BPF_ATOMIC uses invalid atomic opcode {what & 0xFFFFFFFF:02x}")
    walk.index += 1


def _atomic_pointer(walk: Walk, kind: int, what: str, name: str = "BPF_ATOMIC") -> None:
    if kind == CTX or kind in SOCK_KINDS:
        denied(f"{name} {what} {kind_text(kind)} is not allowed")


def _exchange(walk: Walk, op: Op) -> None:
    if op.size not in (4, 8):
        invalid("invalid atomic operand size" if walk.profile.atomics else "BPF_XADD uses reserved fields")
    source = readable(walk, op.src)
    pointer = readable(walk, op.dst)
    if op.imm == _CMPXCHG and readable(walk, 0).kind != SCALAR and not walk.leaks_pointers:
        denied("R0 leaks addr into mem")
    if source.kind != SCALAR and not walk.leaks_pointers:
        denied(f"R{op.src} leaks addr into mem")
    _atomic_pointer(walk, pointer.kind, f"stores into R{op.dst}", "BPF_ATOMIC" if walk.profile.atomics else "BPF_XADD")
    target = -1
    if op.imm & 1:
        target = 0 if op.imm == _CMPXCHG else op.src
        writable(target)
        walk.regs[target] = walk.unknown
    memory.access(walk, op.dst, op.off, op.size, write=False, value=-1, strict=True)
    if target >= 0:
        memory.access(walk, op.dst, op.off, op.size, write=False, value=target, strict=True)
    memory.access(walk, op.dst, op.off, op.size, write=True, value=-1, strict=True)
