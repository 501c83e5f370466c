"""Calls between functions of the program, returns, packet loads and the end of a path.

A static function is walked again for every call, in a frame of its own; a global one is checked once by its types and
trusted at its calls. Mirrors check_func_call, prepare_func_exit, check_ld_abs and check_return_code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pktbpf.verifier import memory, references
from pktbpf.verifier.alu import readable, writable
from pktbpf.verifier.calls import check_reserved
from pktbpf.verifier.errors import denied, invalid, refuse
from pktbpf.verifier.precision import mark_register
from pktbpf.verifier.scalar import S64_MAX, S64_MIN, exact
from pktbpf.verifier.state import CTX, FUNC, MAP_PTR, MAP_VALUE, SCALAR, STACK, Reg, kind_text

if TYPE_CHECKING:
    from pktbpf.verifier.code import Op
    from pktbpf.verifier.walk import Walk


def local_call(walk: Walk, op: Op) -> None:
    """call pc+N"""
    walk.jumps += 1
    check_reserved(walk, op)
    number = walk.layout.function_starting(walk.index + op.imm + 1)
    assert number is not None
    problem = walk.types.check_call(walk, number)
    if walk.types.is_global(number):
        _global_call(walk, number, problem)
        return
    state = walk.state
    caller = state.frames[-1]
    callee = walk.enter(state, number, walk.index)
    callee.regs[1:6] = caller.regs[1:6]
    unset = walk.unset
    caller.regs[0:6] = [unset] * 6
    walk.regs = callee.regs
    walk.index = walk.layout.functions[number].start
    walk.live.current = None
    if walk.log is not None:
        walk.log.entered(walk)


def _global_call(walk: Walk, number: int, problem: tuple[int, tuple[str, ...]] | None) -> None:
    if walk.state.locks:
        invalid("global function calls are not allowed while holding a lock,", "use static function instead")
    name = walk.types.name(number)
    if problem is not None:
        refuse(problem[0], *problem[1], f"Caller passes invalid args into func#{number} ('{name}')")
    walk.note(f"Func#{number} ('{name}') is global and assumed valid.")
    walk.types.called.add(number)
    walk.regs[0:6] = [walk.unset] * 6
    walk.regs[0] = walk.unknown
    walk.index += 1


def leave(walk: Walk, op: Op) -> bool:
    """exit: back to the caller, or the end of the path"""
    walk.jumps += 1
    if op.reg or op.imm or op.src or op.dst or op.insn.code != 0x95:
        invalid("BPF_EXIT uses reserved fields")
    return finish(walk)


def finish(walk: Walk) -> bool:
    """What an exit demands; True when the path ends with it."""
    state = walk.state
    outermost = len(state.frames) == 1
    references.check_nothing_held(walk, "BPF_EXIT instruction in main prog", locks=outermost)
    if not outermost:
        give_back(walk)
        walk.print_state = True
        return False
    _result(walk)
    return True


def give_back(walk: Walk) -> None:
    """Return from a function of the program to its caller."""
    state = walk.state
    walk.live.refresh(state)
    callee, caller = state.frames[-1], state.frames[-2]
    result = callee.regs[0]
    if result.kind == STACK:
        invalid("cannot return stack pointer to the caller")
    if callee.callback:
        if result.kind != SCALAR:
            denied("R0 not a scalar value")
        mark_register(walk, 0)
        check_result_range(walk, "At callback return", result, callee.returns)
    else:
        caller.regs[0] = result
    again = callee.callback and walk.profile.callback_rounds
    index = callee.callsite if again else callee.callsite + 1
    if walk.log is not None:
        walk.log.returning(walk, index)
    state.frames.pop()
    walk.regs = caller.regs
    walk.index = index
    if again:
        before = walk.previous_entry(state, index)
        if before is not None:
            walk.widen(before, state)


def check_result_range(walk: Walk, where: str, reg: Reg, allowed: tuple[int, int]) -> None:
    """A callback's result lies in a small range. Fails with EINVAL."""
    low, high = reg.v[2], reg.v[3]
    if allowed[0] <= low and high <= allowed[1]:
        return
    words = f"{where} the register R0 has"
    if low > S64_MIN:
        words += f" smin={low}"
    if high < S64_MAX:
        words += f" smax={high}"
    if low == S64_MIN and high == S64_MAX:
        words += " unknown scalar value"
    invalid(f"{words} should have been in [{allowed[0]}, {allowed[1]}]")


def _result(walk: Walk) -> None:
    reg = readable(walk, 0)
    frame = walk.state.frames[0]
    if reg.kind != SCALAR and not walk.leaks_pointers:
        denied("R0 leaks addr as return value")
    if frame.async_callback:
        if reg.kind != SCALAR:
            invalid(f"At async callback return the register R0 is not a known value ({kind_text(reg.kind)})")
        mark_register(walk, 0)
        check_result_range(walk, "At async callback return", reg, frame.returns)
    elif frame.subprog and reg.kind != SCALAR:
        invalid(f"At subprogram exit the register R0 is not a scalar value ({kind_text(reg.kind)})")


def packet_load(walk: Walk, op: Op) -> None:
    """r0 = *(size *)skb[...]"""
    insn = op.insn
    absolute = insn.code & 0xE0 == 0x20
    if op.dst or op.off or insn.code & 0x18 == 0x18 or (absolute and op.src):
        invalid("BPF_LD_[ABS|IND] uses reserved fields")
    reg = readable(walk, 6)
    references.check_nothing_held(walk, "BPF_LD_[ABS|IND]")
    if reg.kind != CTX:
        invalid("at the time of BPF_LD_ABS|IND R6 != pointer to skb")
    if not absolute:
        readable(walk, op.src)
    memory.check_plain_pointer(walk, reg, 6)
    walk.regs[0:6] = [walk.unset] * 6
    walk.regs[0] = walk.unknown
    if walk.profile.failing_packet_loads:
        walk.may_return(walk.zero)
    else:
        walk.index += 1


def wide_immediate(walk: Walk, op: Op) -> None:
    """r = 64-bit constant, map, value of a map, function, or variable of the kernel"""
    if op.off:
        invalid("BPF_LD_IMM64 uses reserved fields")
    writable(op.dst)
    precise = walk.always_precise
    if op.src == 0:
        value = (walk.insns[walk.index + 1].imm << 32) | (op.imm & 0xFFFFFFFF)
        new = Reg(SCALAR, v=exact(value), precise=precise)
    elif op.src == 4:
        new = Reg(FUNC, obj=walk.types.callback(walk, walk.index + op.imm + 1), precise=precise)
    elif op.src == 3:
        new = walk.variables.at[walk.index].with_precise(precise)
    else:
        info, offset = walk.maps.at[walk.index]
        kind = MAP_VALUE if op.src in (2, 6) else MAP_PTR
        new = Reg(kind, offset, obj=info, precise=precise)
    walk.regs[op.dst] = new
    walk.index += 2
