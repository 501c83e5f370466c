"""Functions of the program that a helper calls: the body is walked as one more path, with the arguments it will get.

The helper may call it any number of times, so each visit returns to the call and is compared with the visits before.
Mirrors push_callback_call and the set_*_callback_state functions.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pktbpf.abi import map_kinds
from pktbpf.verifier.errors import ENOTSUPP, refuse
from pktbpf.verifier.precision import mark_register
from pktbpf.verifier.state import BTF, DYNPTR, MAP_KEY, MAP_PTR, MAP_VALUE, MAX_FRAMES, SCALAR, Frame, Reg, State

if TYPE_CHECKING:
    from pktbpf.verifier.arguments import Call
    from pktbpf.verifier.maps import MapInfo
    from pktbpf.verifier.walk import Walk


def queue(walk: Walk, call: Call) -> None:
    """Queue the callback of this call as a path of its own, if it may run at all."""
    name = call.helper.name
    frame = walk.state.frames[-1]
    if not walk.profile.callback_rounds and name != "timer_set_callback":
        _prepare_once(walk, call, frame)
        return
    if name == "loop":
        walk.loop_inline(call.function)
        mark_register(walk, 1)
        if frame.callback_depth >= walk.regs[1].v[5]:
            frame.callback_depth = 0
            if walk.log is not None:
                walk.log.loop_limit(walk)
            return
    walk.types.check_call(walk, call.function)
    function = walk.layout.functions[call.function]
    function.callback = True
    if name == "timer_set_callback":
        function.async_callback = True
        _queue_async(walk, call, function.start, frame)
        return
    state = walk.branch(function.start, walk.index)
    if state is None:
        walk.too_complex(errno.ENOMEM)
    callee = walk.enter(state, call.function, walk.index)
    _arguments(walk, name, frame, callee)
    state.callback_unroll += 1
    state.frames[-2].callback_depth += 1
    frame.callback_depth = 0


def _prepare_once(walk: Walk, call: Call, frame: Frame) -> None:
    """Before 6.7: the callback is walked once, as if the helper had called it exactly so often."""
    if call.helper.name == "loop":
        walk.loop_inline(call.function)
    walk.types.check_call(walk, call.function)
    walk.layout.functions[call.function].callback = True
    depth = len(walk.state.frames)
    if depth >= MAX_FRAMES:
        refuse(errno.E2BIG, f"the call stack of {depth + 1} frames is too deep")
    call.callee = Frame(walk.index, depth, call.function, walk.unset)
    _arguments(walk, call.helper.name, frame, call.callee)


def enter(walk: Walk, callee: Frame) -> None:
    """Go on in a callback that is walked once, the call being checked."""
    walk.state.frames.append(callee)
    walk.regs = callee.regs
    walk.index = walk.layout.functions[callee.subprog].start
    walk.live.current = None


def _queue_async(walk: Walk, call: Call, start: int, caller: Frame) -> None:
    callee = Frame(-1, 0, call.function, walk.unset)
    if walk.log is not None:
        walk.log.framed()
    state = State(callee, start)
    state.first = 0
    state.insn = 0
    state.last = 0
    if not walk.push(state, start, walk.index, asynchronous=True):
        walk.too_complex(errno.EFAULT, " for async cb")
    callee.async_entries = caller.async_entries + 1
    info: MapInfo = walk.regs[1].obj
    _map_arguments(callee, info)
    callee.async_callback = True
    callee.returns = (0, 0)


def _map_arguments(callee: Frame, info: MapInfo) -> None:
    callee.regs[1] = Reg(MAP_PTR, obj=info)
    callee.regs[2] = Reg(MAP_KEY, obj=info)
    callee.regs[3] = Reg(MAP_VALUE, obj=info)


def _arguments(walk: Walk, name: str, caller: Frame, callee: Frame) -> None:
    regs = caller.regs
    if name == "for_each_map_elem":
        info: MapInfo = regs[1].obj
        if not map_kinds.BY_NAME[info.kind].each:
            refuse(ENOTSUPP, "callback function not allowed for map")
        _map_arguments(callee, info)
        callee.regs[1] = regs[1]
        callee.regs[4] = regs[3]
    elif name == "loop":
        callee.regs[1] = callee.regs[1].with_kind(SCALAR)
        callee.regs[2] = regs[3]
    elif name == "find_vma":
        callee.regs[1] = regs[1]
        callee.regs[2] = Reg(BTF, obj="vm_area_struct")
        callee.regs[3] = regs[4]
    else:
        callee.regs[1] = Reg(DYNPTR, id=walk.new_id(), obj=("local", True))
        callee.regs[2] = regs[3]
    callee.callback = True
    callee.returns = (0, 1)
