"""After the walk: the stack that a chain of calls needs, and what was left to be refused at the very end.

Mirrors remove_fastcall_spills_fills, check_max_stack_depth and the last fix-ups.
"""

from __future__ import annotations

import errno
from itertools import accumulate
from typing import TYPE_CHECKING

from pktbpf.verifier.errors import denied, invalid, refuse
from pktbpf.verifier.layout import MAY_GOTO, is_call, is_function_address
from pktbpf.verifier.state import MAX_FRAMES, STACK_LIMIT

if TYPE_CHECKING:
    from pktbpf.verifier.walk import Walk

_TAIL_CALL_LIMIT = 256
_LOOP_STACK, _MAY_GOTO_STACK = 24, 16


def check_depth(walk: Walk) -> None:
    """Fails with EACCES where a chain of calls needs more than 512 bytes of stack."""
    _shrink(walk)
    for number in range(len(walk.layout.functions) - 1, -1, -1):
        if number == 0 or walk.layout.functions[number].async_callback:
            _check_from(walk, number)
    reached = sorted(index for index in walk.unresolved_calls if walk.seen[index])
    if reached:
        invalid("invalid kernel function call not eliminated in verifier pass", insn=reached[0])
    _fix_up(walk)


def _shrink(walk: Walk) -> None:
    """Spills around inlined helpers are removed, and with them their stack."""
    layout = walk.layout
    for function in layout.functions:
        spills = [index for index in layout.fastcall_spills if function.start <= index < function.end]
        if spills and not function.keeps_fastcall_stack:
            function.stack = -function.fastcall_offset


def _fix_up(walk: Walk) -> None:
    """What the kernel's own code in place of some instructions keeps on the stack, and functions that nothing reached;
    the log shows both."""
    for function in walk.layout.functions:
        span = range(function.start, function.end)
        function.removed = walk.capable and not any(walk.seen[index] for index in span)
        loops = any(index in walk.inline_loops and walk.inline_loops[index][0] for index in span)
        rounds = any(walk.insns[index].code == MAY_GOTO and walk.seen[index] for index in span)
        for present, size in ((loops, _LOOP_STACK), (rounds, _MAY_GOTO_STACK)):
            if present:
                function.stack = (function.stack + 7) // 8 * 8 + size


def _rounded(walk: Walk, number: int) -> int:
    depth = walk.layout.functions[number].stack
    step = 16 if walk.profile.small_frames else 32
    return (max(depth, 1 if step == 32 else 0) + step - 1) // step * step


def _check_from(walk: Walk, root: int) -> None:
    layout, insns = walk.layout, walk.insns
    # One entry per function on the chain: its number and where to go on.
    chain: list[list[int]] = []
    depth = 0

    def enter(number: int) -> None:
        nonlocal depth
        if number and layout.functions[number].tail_call and depth >= _TAIL_CALL_LIMIT:
            denied(
                f"tail_calls are not allowed when call stack of previous frames is {depth} bytes. Too large",
                insn=layout.functions[number].start,
            )
        depth += _rounded(walk, number)
        if depth > STACK_LIMIT:
            denied(
                f"combined stack size of {len(chain) + 1} calls is {depth}. Too large",
                insn=layout.functions[number].start,
            )
        chain.append([number, layout.functions[number].start])

    enter(root)
    while chain:
        number, index = chain[-1]
        end = layout.functions[number].end
        while index < end and not (is_call(insns[index], 1) or is_function_address(insns[index])):
            index += 1
        if index >= end:
            chain.pop()
            depth -= _rounded(walk, number)
            continue
        chain[-1][1] = index + 1
        callee = layout.function_starting(index + insns[index].imm + 1)
        assert callee is not None
        if layout.functions[callee].async_callback and not is_call(insns[index], 1):
            continue
        if len(chain) >= MAX_FRAMES:
            refuse(errno.E2BIG, f"the call stack of {len(chain)} frames is too deep !", insn=index)
        enter(callee)


def check_function_addresses(walk: Walk) -> None:
    """With CAP_BPF the kernel removes code that no path reaches, and then misses a function whose address is used but
    which was never called. It calls that a fault of its own (EFAULT) and refuses the program."""
    if not walk.capable:
        return
    kept = _kept(walk)
    place = [0, *accumulate(kept)]
    starts = {place[f.start] for f in walk.layout.functions if any(kept[f.start : f.end])}
    if len(starts) < 2:
        return
    for index, insn in enumerate(walk.insns):
        if not kept[index] or not is_function_address(insn):
            continue
        target = gap = index + insn.imm + 1
        while gap and not kept[target] and not kept[gap - 1]:
            gap -= 1
        # The distance to code that is gone is left as it was.
        where = place[gap] + target - gap
        if where not in starts:
            refuse(errno.EFAULT, f"verifier bug: No program to jit at insn {where} (subprog < 0)")


def _kept(walk: Walk) -> list[int]:
    """1 for slots that some path reaches."""
    insns, seen = walk.insns, walk.seen
    return [int(seen[i] or (i > 0 and insn.code == 0 and seen[i - 1])) for i, insn in enumerate(insns)]
