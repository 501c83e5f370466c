"""Arithmetic instructions: reserved fields, readable operands, and what the result register then holds.

Rules for moves, sign extensions, byte swaps, negation and two-operand operations, 64 and 32 bits. Mirrors check_alu_op
and adjust_reg_min_max_vals.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pktbpf.verifier import pointers, scalar, tnum
from pktbpf.verifier.errors import denied, invalid
from pktbpf.verifier.precision import mark_register
from pktbpf.verifier.state import ADD_CONST, ADD_CONST32, ADD_CONST64, NOT_INIT, SCALAR, Reg

if TYPE_CHECKING:
    from pktbpf.verifier.code import Op
    from pktbpf.verifier.scalar import Scalar
    from pktbpf.verifier.walk import Walk

_BITWISE = {"AND": tnum.bit_and, "OR": tnum.bit_or, "XOR": tnum.bit_xor}


def readable(walk: Walk, number: int) -> Reg:
    """The register, which must exist and be initialised."""
    if number > 10:
        invalid(f"R{number} is invalid")
    reg = walk.regs[number]
    if reg.kind == NOT_INIT:
        denied(f"R{number} !read_ok")
    return reg


def writable(number: int) -> None:
    """The register must exist and not be the frame pointer."""
    if number > 9:
        if number == 10:
            denied("frame pointer is read only")
        invalid(f"R{number} is invalid")


def move_immediate(walk: Walk, op: Op) -> None:
    """dst = imm"""
    if op.dst > 9 or op.src or op.off:
        if op.src or op.off:
            invalid("BPF_MOV uses reserved fields")
        writable(op.dst)
    assert op.constant is not None
    walk.regs[op.dst] = op.constant
    walk.index += 1


def move_register(walk: Walk, op: Op) -> None:
    """dst = src, dst = (s8, s16, s32)src, and their 32-bit forms"""
    off = op.off
    if op.imm or (off and off not in ((8, 16, 32) if op.bits == 64 else (8, 16))):
        _reserved_move(walk, op)
    if off and not walk.profile.signed_instructions:
        invalid("BPF_MOV uses reserved fields")
    readable(walk, op.src)
    writable(op.dst)
    if op.bits == 64 and not off:
        reg = walk.regs[op.dst] = walk.link(op.src)
        if walk.state.speculative and reg.kind != SCALAR:
            _check_pointer_range(walk, op.dst)
    elif op.bits == 64:
        _move_extended(walk, op)
    else:
        _move_half(walk, op)
    walk.index += 1


def _reserved_move(walk: Walk, op: Op) -> None:
    if op.bits == 64 and op.off == 1 and walk.profile.address_spaces:
        if op.imm not in (1, 1 << 16):
            invalid("addr_space_cast insn can only convert between address space 1 and 0")
        invalid("addr_space_cast insn can only be used in a program that has an associated arena")
    invalid("BPF_MOV uses reserved fields")


def _move_extended(walk: Walk, op: Op) -> None:
    reg = walk.regs[op.src]
    if reg.kind != SCALAR:
        if not walk.leaks_pointers:
            denied(f"R{op.src} sign-extension part of pointer")
        walk.regs[op.dst] = walk.unknown
        return
    if reg.v[5] < 1 << (op.off - 1):
        reg = walk.link(op.src)
    else:
        reg = reg.with_id(0)
    walk.regs[op.dst] = reg.with_value(walk.domain.checked(scalar.sign_extend(reg.v, op.off >> 3)))


def _move_half(walk: Walk, op: Op) -> None:
    reg = walk.regs[op.src]
    if reg.kind != SCALAR:
        if not walk.leaks_pointers:
            denied(f"R{op.src} partial copy of pointer")
        v = walk.domain.sync(scalar.zero_extend(scalar.UNKNOWN))
        walk.regs[op.dst] = walk.unknown.with_value(v)
        return
    fits = reg.v[5] < 1 << (op.off - 1) if op.off else reg.v[5] >> 32 == 0
    if fits and walk.profile.half_copies:
        reg = walk.link(op.src)
    else:
        reg = reg.with_id(0)
    v = reg.v
    if op.off:
        v = scalar.sign_extend32(v, op.off >> 3)
    elif not v[1] and not v[0] >> 32:
        walk.regs[op.dst] = reg
        return
    walk.regs[op.dst] = reg.with_value(walk.domain.checked(walk.domain.sync(scalar.zero_extend(v))))


def swap(walk: Walk, op: Op) -> None:
    """Byte order of the low 16, 32 or 64 bits; what is known of single bits moves with them."""
    if op.src or op.off or op.imm not in (16, 32, 64) or (op.bits == 64 and op.reg):
        invalid("BPF_END uses reserved fields")
    reg = readable(walk, op.dst)
    if reg.kind != SCALAR and not walk.leaks_pointers:
        denied(f"R{op.dst} pointer arithmetic prohibited")
    writable(op.dst)
    if reg.kind != SCALAR or not walk.profile.tracks_swaps:
        walk.regs[op.dst] = walk.unknown
    else:
        if op.bits == 64 or op.reg:
            walk.regs[op.dst] = reg.with_id(0).with_value(_swapped(reg.v, op.imm))
        elif op.imm != 64:
            walk.regs[op.dst] = reg.with_id(0).with_value(walk.domain.truncate(reg.v, op.imm >> 3))
    walk.index += 1


def _swapped(v: Scalar, bits: int) -> Scalar:
    """Cut to `bits`, with the bytes reversed; ranges follow from the bits alone."""
    low = (1 << bits) - 1
    value, mask = (int.from_bytes((part & low).to_bytes(bits >> 3, "little"), "big") for part in v[:2])
    return scalar.checked(scalar.sync(scalar.unbounded(value, mask)))


def negate(walk: Walk, op: Op) -> None:
    """dst = -dst"""
    if op.reg or op.src or op.off or op.imm:
        invalid("BPF_NEG uses reserved fields")
    reg = readable(walk, op.dst)
    if reg.kind != SCALAR and not walk.leaks_pointers:
        denied(f"R{op.dst} pointer arithmetic prohibited")
    writable(op.dst)
    if reg.kind != SCALAR:
        walk.regs[op.dst] = walk.unknown
        walk.index += 1
        return
    v = walk.domain.apply("NEG", op.bits, reg.v, scalar.ZERO)
    if v is None:
        walk.regs[op.dst] = walk.unknown
    else:
        walk.regs[op.dst] = Reg(reg.kind, 0, walk.domain.checked(v), 0, 0, reg.frame, None, 0, reg.precise)
    walk.index += 1


def binary(walk: Walk, op: Op) -> None:
    """dst = dst operation src or imm"""
    if (op.imm if op.reg else op.src) or op.off:
        signed = op.off == 1 and op.divides and walk.profile.signed_instructions
        if (op.imm if op.reg else op.src) or not signed:
            invalid("BPF_ALU uses reserved fields")
    if op.reg:
        readable(walk, op.src)
    dst = readable(walk, op.dst)
    if not op.reg:
        if op.divides and op.imm == 0:
            invalid("div by zero")
        if op.shifts and not 0 <= op.imm < op.bits:
            invalid(f"invalid shift {op.imm}")
    writable(op.dst)
    if op.reg:
        src = walk.regs[op.src]
    else:
        assert op.constant is not None
        src = op.constant
    if dst.kind == SCALAR and src.kind == SCALAR:
        if op.reg and dst.precise:
            mark_register(walk, op.src)
        if op.masks and not src.v[1] and walk.profile.forks_masks:
            dst = _fork(walk, op, dst)
        _scalars(walk, op, dst, src)
    elif src.kind == SCALAR:
        if op.reg:
            mark_register(walk, op.src)
        pointers.adjust(walk, op, dst, src)
    elif dst.kind == SCALAR:
        mark_register(walk, op.dst)
        pointers.adjust(walk, op, src, dst)
    elif op.name == "SUB" and walk.leaks_pointers:
        walk.regs[op.dst] = walk.unknown
    else:
        denied(f"R{op.dst} pointer {pointers.symbol(op.name)} pointer prohibited")
    if walk.regs[op.dst].kind != SCALAR:
        _check_pointer_range(walk, op.dst)
    walk.index += 1


def _check_pointer_range(walk: Walk, number: int) -> None:
    reg = walk.regs[number]
    if not scalar.consistent(reg.v):
        if walk.log is not None:
            walk.log.contradiction("alu", reg.v)
        walk.regs[number] = reg.with_value(scalar.unbounded(reg.v[0], reg.v[1]))


def _fork(walk: Walk, op: Op, dst: Reg) -> Reg:
    """A value that is 0 or -1, as a signed shift leaves it, becomes two paths: a mask keeps what it is."""
    v = dst.v
    if v[2] == -1 and v[3] == 0:
        zero, ones = Reg(SCALAR, precise=dst.precise), Reg(SCALAR, v=scalar.exact(-1), precise=dst.precise)
    elif v[6] == -1 and v[7] == 0:
        zero, ones = (dst.with_value((*tnum.with_low32(v[:2], (low, 0)), *v[2:6], signed, signed, low, low))
                      for low, signed in ((0, 0), (tnum.M32, -1)))  # fmt: skip
    else:
        return dst
    other = walk.branch(walk.index, walk.index)
    if other is None:
        walk.too_complex(errno.EFAULT)
    other.frames[-1].regs[op.dst] = zero
    walk.regs[op.dst] = ones
    return ones


def _scalars(walk: Walk, op: Op, dst: Reg, src: Reg) -> None:
    v = walk.domain.apply(op.name, op.bits, dst.v, src.v)
    if v is None:
        walk.regs[op.dst] = walk.unknown
        return
    if op.sums and not walk.bypass_v1:
        pointers.remember_scalar(walk, op)
    off = id = 0
    if dst.id and op.sums and walk.capable and walk.profile.linked_sums:
        off, id = _linked(walk, op, dst, src)
    if dst.obj is not None and _forgets(op, dst.v, src.v):
        dst = Reg(SCALAR, precise=dst.precise)
    walk.regs[op.dst] = Reg(SCALAR, off, walk.domain.checked(v), id, dst.ref, dst.frame, dst.obj, dst.uid, dst.precise)


def _forgets(op: Op, a: Scalar, b: Scalar) -> bool:
    """Whether a null that was a pointer loses what it pointed to, which exact comparisons see: where AND, OR or XOR
    with a number leaves a number, in all 64 bits even of a 32-bit operation."""
    bits = _BITWISE.get(op.name)
    return bits is not None and not b[1] and not bits(a[:2], b[:2])[1]


def _linked(walk: Walk, op: Op, dst: Reg, src: Reg) -> tuple[int, int]:
    """(constant, id) of a register that was a copy of another and is now a constant apart from it; only once."""
    if not walk.profile.linked_halves and (op.bits == 32 or op.name == "SUB" or src.v[0] > scalar.S32_MAX):
        return 0, 0
    low = tnum.M32 if op.bits == 32 else tnum.M64
    if src.v[1] & low or (op.reg and op.src == op.dst):
        return 0, 0
    if op.bits == 32:
        amount, mark, known = scalar.signed32(src.v[0]), ADD_CONST32, dst.v[5] <= tnum.M32
    else:
        amount, mark = scalar.signed64(src.v[0]), ADD_CONST64
        known = scalar.S32_MIN <= amount <= scalar.S32_MAX
    if op.name == "SUB":
        known = known and amount != scalar.S32_MIN
        amount = -amount
    if not known or dst.id & ADD_CONST:
        return 0, 0
    return amount, dst.id | mark
