"""Conditional jumps: decided ones follow one way, open ones fork the path and narrow what each side knows.

Registers that hold the same value are narrowed together; a comparison of a nullable pointer with zero settles it in all
its copies. Without CAP_PERFMON the way not taken is explored as a speculative one. Mirrors check_cond_jmp_op.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pktbpf.verifier import arithmetic, compare, scalar
from pktbpf.verifier.alu import readable
from pktbpf.verifier.errors import denied, invalid
from pktbpf.verifier.precision import mark_register
from pktbpf.verifier.references import null_tested
from pktbpf.verifier.state import (
    ADD_CONST,
    ADD_CONST32,
    ALLOC,
    BASE,
    BTF,
    DST_STACK,
    MAP_KEY,
    MAP_PTR,
    MAP_VALUE,
    MAX_FRAMES,
    MEM,
    OR_NULL,
    SCALAR,
    SOCK_COMMON,
    SOCKET,
    SRC_STACK,
    STACK,
    TCP_SOCK,
    TRUSTED,
    UNTRUSTED,
    XDP_SOCK,
    Reg,
    State,
    spilled,
)

if TYPE_CHECKING:
    from pktbpf.verifier.code import Op
    from pktbpf.verifier.walk import Walk
    from pktbpf.verifier.watch import Watcher

MAX_LINKED = 6
Linked = tuple[int, int, bool]
_TRUSTED = TRUSTED | ALLOC
_NEVER_NULL = (SOCKET, TCP_SOCK, MAP_VALUE, MAP_KEY, SOCK_COMMON, MAP_PTR)


def jump(walk: Walk, op: Op) -> None:
    """goto"""
    walk.jumps += 1
    insn = op.insn
    if op.src or op.dst or (insn.code == 0x05 and op.imm) or (insn.code == 0x06 and op.off):
        invalid("BPF_JA uses reserved fields")
    walk.index += (op.off if insn.code == 0x05 else op.imm) + 1


def may_goto(walk: Walk, op: Op) -> None:
    """may_goto: the kernel counts the rounds itself, so the way on may be taken or not."""
    walk.jumps += 1
    if op.src or op.dst or op.imm or not (op.off or walk.profile.empty_may_goto):
        where = "" if walk.profile.empty_may_goto else f"off {op.off} "
        invalid(f"invalid may_goto {where}imm {op.imm}")
    state = walk.state
    assert state.parent is not None
    before = walk.previous_entry(state.parent, walk.index)
    queued = walk.branch(walk.index + 1, walk.index)
    if queued is None:
        walk.too_complex(errno.ENOMEM)
    queued.may_goto += 1
    if before is not None:
        walk.widen(before, queued)
    walk.index += op.off + 1


def _never_null(walk: Walk, reg: Reg) -> bool:
    kind = reg.kind
    if kind & OR_NULL:
        return False
    base = kind & BASE
    if base == BTF:
        return bool(reg.ref) or (bool(kind & _TRUSTED) and not kind & ~BASE & ~_TRUSTED)
    if base == MAP_PTR and not walk.profile.never_null_maps:
        return False
    return base in _NEVER_NULL or (base == MEM and not kind & UNTRUSTED and walk.profile.never_null_memory)


def _decide(walk: Walk, op: Op, dst: Reg, src: Reg) -> bool | None:
    """Whether the jump is taken, where that can be said."""
    if dst.kind == SCALAR and src.kind == SCALAR:
        return walk.domain.decide(op.name, op.bits, dst.v, src.v)
    name = op.name
    full = 0xFFFFFFFF if op.bits == 32 else 0xFFFFFFFFFFFFFFFF
    if not (src.kind == SCALAR and not src.v[1] & full):
        name = compare.FLIPPED[name]
        dst, src = src, dst
    if not (src.kind == SCALAR and not src.v[1] & full) or not _never_null(walk, dst) or src.v[0] & full:
        return None
    return {"EQ": False, "NE": True}.get(name)


def conditional(walk: Walk, op: Op) -> None:
    """if dst operation src (or imm) goto"""
    walk.jumps += 1
    if walk.profile.target_first:
        readable(walk, op.dst)
    flags = 0
    if op.reg:
        if op.imm:
            invalid("BPF_JMP/JMP32 uses reserved fields")
        src = readable(walk, op.src)
        if src.kind != SCALAR and not walk.leaks_pointers:
            denied(f"R{op.src} pointer comparison prohibited")
        if src.kind == STACK:
            flags = SRC_STACK
    else:
        if op.src:
            invalid("BPF_JMP/JMP32 uses reserved fields")
        assert op.constant is not None
        src = op.constant
    dst = readable(walk, op.dst)
    if dst.kind == STACK:
        flags |= DST_STACK
    if flags:
        walk.record(flags=flags)
    index, taken = walk.index, _decide(walk, op, dst, src)
    if taken is not None:
        _follow(walk, op, dst, src, taken)
    else:
        _fork(walk, op, dst, src)
    if walk.log is not None:
        walk.log.branched(walk, index)


def _follow(walk: Walk, op: Op, dst: Reg, src: Reg, taken: bool) -> None:
    if dst.kind == SCALAR:
        mark_register(walk, op.dst)
    if op.reg and src.kind == SCALAR:
        mark_register(walk, op.src)
    if not walk.bypass_v1:
        other = walk.index + 1 if taken else walk.index + op.off + 1
        branch = walk.branch(other, walk.index, speculative=True)
        if branch is None:
            walk.too_complex(errno.EFAULT)
        regs = branch.frames[-1].regs
        regs[op.dst] = walk.unknown
        if op.reg:
            regs[op.src] = walk.unknown
    walk.index += op.off + 1 if taken else 1


def _collect(walk: Walk, id: int, found: list[Linked]) -> None:
    """Registers still in use and spilled slots that share `id`; beyond six the link is cut."""
    state, live = walk.state, walk.layout.live
    most = MAX_LINKED if walk.profile.six_links else MAX_FRAMES * 75
    all_live = not walk.profile.live_links
    at = walk.index
    for number in range(len(state.frames) - 1, -1, -1):
        frame = state.frames[number]
        regs, used = frame.regs, -1 if all_live else live[at]
        at = frame.callsite
        for index in range(10):
            reg = regs[index]
            if reg.kind == SCALAR and reg.id & ~ADD_CONST == id and used >> index & 1:
                if len(found) < most:
                    found.append((number, index, True))
                else:
                    regs[index] = reg.with_id(0)
        for index, slot in enumerate(frame.stack):
            spill = slot[1]
            if spill is None or not spilled(slot) or spill.kind != SCALAR or spill.id & ~ADD_CONST != id:
                continue
            if len(found) < most:
                found.append((number, index, False))
            else:
                frame.stack[index] = (slot[0], spill.with_id(0))


def _spread(walk: Walk, state: State, known: Reg, at: int, linked: list[Linked]) -> None:
    """Give the range of `known` (register `at` of the innermost frame) to everything linked with it."""
    innermost = len(state.frames) - 1
    for number, index, is_reg in linked:
        frame = state.frames[number]
        reg = frame.regs[index] if is_reg else frame.stack[index][1]
        if reg is None or reg.kind != SCALAR or (is_reg and number == innermost and index == at):
            continue
        if reg.id & ~ADD_CONST != known.id & ~ADD_CONST or (reg.id ^ known.id) & ADD_CONST == ADD_CONST:
            continue
        if not (reg.id | known.id) & ADD_CONST or reg.off == known.off:
            new = known
        else:
            half = bool((reg.id | known.id) & ADD_CONST32)
            v = arithmetic.add_constant(known.v, reg.off - known.off, half, walk.profile.linked_halves)
            new = known.with_id(reg.id, reg.off).with_value(v)
        if is_reg:
            frame.regs[index] = new
        else:
            frame.stack[index] = (frame.stack[index][0], new)


def _fork(walk: Walk, op: Op, dst: Reg, src: Reg) -> None:
    state = walk.state
    linked: list[Linked] = []
    if op.reg and src.kind == SCALAR and src.id:
        _collect(walk, src.id & ~ADD_CONST, linked)
    if dst.kind == SCALAR and dst.id:
        _collect(walk, dst.id & ~ADD_CONST, linked)
    if len(linked) > 1:
        walk.record(linked=tuple(linked))
    other = walk.branch(walk.index + op.off + 1, walk.index)
    if other is None:
        walk.too_complex(errno.EFAULT)
    regs, other_regs = walk.regs, other.frames[-1].regs
    dst = regs[op.dst]
    if op.reg:
        src = regs[op.src]
    if dst.kind == SCALAR and src.kind == SCALAR:
        _narrow(walk, op, other, dst, src, linked)
    elif op.bits == 64 and op.reg and dst.kind != SCALAR and src.kind != SCALAR and walk.profile.lifts_null:
        _lift_null(op, regs, other_regs, dst, src)
    dst = regs[op.dst]
    if op.bits == 64 and not op.reg and op.imm == 0 and op.name in ("EQ", "NE") and dst.kind & OR_NULL:
        null_tested(state, op.dst, op.name == "NE", walk.always_precise)
        null_tested(other, op.dst, op.name == "EQ", walk.always_precise)
    elif dst.kind != SCALAR and not walk.leaks_pointers:
        denied(f"R{op.dst} pointer comparison prohibited")
    walk.index += 1


def _narrow(walk: Walk, op: Op, other: State, dst: Reg, src: Reg, linked: list[Linked]) -> None:
    state = walk.state
    regs, other_regs = state.frames[-1].regs, other.frames[-1].regs
    if walk.log is not None:
        _tell_contradictions(walk, walk.log, op, dst, src)
    if op.reg and op.dst == op.src:
        # Both operands are one place, so that each change is seen by the next.
        taken, other_value = walk.domain.learn_same(op.name, op.bits, dst.v)
        regs[op.dst] = dst.with_value(other_value)
        other_regs[op.dst] = dst.with_value(taken)
    else:
        taken_dst, taken_src, other_dst, other_src = walk.domain.learn(op.name, op.bits, dst.v, src.v)
        if other_dst != dst.v:
            regs[op.dst] = dst.with_value(other_dst)
        if taken_dst != dst.v:
            other_regs[op.dst] = dst.with_value(taken_dst)
        if op.reg:
            if other_src != src.v:
                regs[op.src] = src.with_value(other_src)
            if taken_src != src.v:
                other_regs[op.src] = src.with_value(taken_src)
    if not linked:
        return
    if op.reg and regs[op.src].id:
        _spread(walk, state, regs[op.src], op.src, linked)
        _spread(walk, other, other_regs[op.src], op.src, linked)
    if regs[op.dst].id:
        _spread(walk, state, regs[op.dst], op.dst, linked)
        _spread(walk, other, other_regs[op.dst], op.dst, linked)


def _tell_contradictions(walk: Walk, log: Watcher, op: Op, dst: Reg, src: Reg) -> None:
    """What the kernel says of ranges that an impossible branch leaves, before it forgets them."""
    if not walk.profile.ranges:
        return
    settle = scalar.sync
    if op.reg and op.dst == op.src:
        # One place under two names: the second time it is looked at as the first time left it.
        found = []
        for side, v in zip(("true", "false"), compare.unchecked_same(op.name, op.bits, dst.v, settle), strict=True):
            found += [(f"{side}_reg1", v), (f"{side}_reg2", scalar.checked(v))]
    else:
        names = ("true_reg1", "true_reg2", "false_reg1", "false_reg2")
        found = list(zip(names, compare.unchecked(op.name, op.bits, dst.v, src.v, settle), strict=True))
    for where, v in found:
        if not scalar.consistent(v):
            log.contradiction(where, v)


def _lift_null(op: Op, regs: list[Reg], other_regs: list[Reg], dst: Reg, src: Reg) -> None:
    """A nullable pointer equal to one that cannot be null is not null either."""
    if bool(src.kind & OR_NULL) == bool(dst.kind & OR_NULL) or BTF in (src.kind & BASE, dst.kind & BASE):
        return
    equal = {"EQ": other_regs, "NE": regs}.get(op.name)
    if equal is None:
        return
    number = op.src if src.kind & OR_NULL else op.dst
    equal[number] = not_null(equal[number])


def not_null(reg: Reg) -> Reg:
    """The pointer once it is known not to be null: a map in a map becomes that map, a socket map's entry a socket."""
    kind = reg.kind
    if kind & BASE == MAP_VALUE:
        info = reg.obj
        if info.inner is not None:
            uid = reg.id if info.inner.field("timer") else 0
            return Reg(MAP_PTR, reg.off, reg.v, reg.id, reg.ref, reg.frame, info.inner, uid, reg.precise)
        if info.kind == "XSKMAP":
            return Reg(XDP_SOCK, reg.off, reg.v, reg.id, reg.ref, reg.frame, None, 0, reg.precise)
        if info.kind in ("SOCKMAP", "SOCKHASH"):
            return Reg(SOCKET, reg.off, reg.v, reg.id, reg.ref, reg.frame, None, 0, reg.precise)
        return reg.with_kind(MAP_VALUE)
    return reg.with_kind(kind & ~OR_NULL)

