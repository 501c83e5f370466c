"""Dynptrs: two stack slots that a helper fills, reads through, and gives back.

Mirrors process_dynptr_func, mark_stack_slots_dynptr and unmark_stack_slots_dynptr.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pktbpf.abi.helpers import Arg
from pktbpf.verifier import memory, references, scalar, stack
from pktbpf.verifier.errors import invalid
from pktbpf.verifier.state import DYNPTR, DYNPTR_BYTE, EMPTY, SKB_SLICE, Frame, Reg, spilled

if TYPE_CHECKING:
    from pktbpf.verifier.walk import Walk

_BOTH = DYNPTR_BYTE * 8


def _offset(reg: Reg) -> int | None:
    """Fixed offset from the frame pointer, None for a variable one."""
    return None if reg.v[1] else reg.off + scalar.signed64(reg.v[0])


def _slot(walk: Walk, reg: Reg) -> tuple[Frame, int] | None:
    """Frame and upper slot of a dynptr the register points to; None where there can be none."""
    offset = _offset(reg)
    frame = walk.state.frames[reg.frame]
    if offset is None or offset % 8:
        return None
    position = (-offset - 1) >> 3
    if position < 1 or position >= len(frame.stack):
        return None
    return frame, position


def why_not(walk: Walk, reg: Reg) -> list[str]:
    """The kernel's line for a pointer that cannot be one to a dynptr; empty when it only lies below the stack."""
    if not walk.profile.placed_dynptrs:
        return []
    offset = _offset(reg)
    if offset is None:
        return ["dynptr has to be at a constant offset"]
    if offset % 8 or (-offset - 1) >> 3 < 1:
        return [f"cannot pass in dynptr at an offset={offset}"]
    return []


def find(walk: Walk, reg: Reg) -> Reg | None:
    """What is stored in the slot that a stack pointer names, dynptr or not."""
    place = _slot(walk, reg)
    if place is None:
        return None
    return place[0].stack[place[1]][1]


def argument(walk: Walk, number: int, arg: Arg, ref: int = 0) -> None:
    """A dynptr argument: an empty place to be filled (uninit), or one that is there. Fails with EINVAL.

    ref: the reference that a copy of a referenced dynptr shares.
    """
    reg = walk.regs[number]
    if arg.uninit:
        lines = ["dynptr"] if reg.kind == DYNPTR else why_not(walk, reg)
        if lines:
            invalid(*(lines if lines != ["dynptr"] else ()), "Dynptr has to be an uninitialized dynptr")
        for byte in (0, 8):
            memory.access(walk, number, byte, 8, write=True, value=-1, direct=False)
        _create(walk, walk.regs[number], arg.of, ref)
        return
    if reg.kind == DYNPTR:
        if not arg.rdonly:
            invalid("cannot pass pointer to const bpf_dynptr, the helper mutates it")
        kind = reg.obj[0]
    else:
        place = _slot(walk, reg)
        if place is None or not _whole(place):
            lines = why_not(walk, reg) if place is None else []
            invalid(*lines, f"Expected an initialized dynptr as arg #{number - walk.profile.numbers_from_zero}")
        found = place[0].stack[place[1]][1]
        assert found is not None
        kind = found.obj[0]
    if arg.of and kind != arg.of:
        invalid(f"Expected a dynptr of type {arg.of} as arg #{number - walk.profile.numbers_from_zero}")
    if reg.kind != DYNPTR:
        assert place is not None
        walk.live.read(walk.state, reg.frame, walk.index, 1 << place[1] | 1 << place[1] - 1)


def _whole(place: tuple[Frame, int]) -> bool:
    frame, position = place
    upper, lower = frame.stack[position], frame.stack[position - 1]
    return upper[0] == _BOTH and lower[0] == _BOTH and upper[1] is not None and bool(upper[1].obj[1])


def _create(walk: Walk, reg: Reg, kind: str, ref: int) -> None:
    place = _slot(walk, reg)
    if place is None:
        invalid(*why_not(walk, reg))
    frame, position = place
    stack.destroy_dynptr(walk, frame, position)
    stack.destroy_dynptr(walk, frame, position - 1)
    id = walk.new_id()
    if kind == "ringbuf" and not ref:
        ref = references.acquire(walk, walk.index)
    frame.stack[position] = (_BOTH, Reg(DYNPTR, id=id, ref=ref, obj=(kind, True)))
    frame.stack[position - 1] = (_BOTH, Reg(DYNPTR, id=id, ref=ref, obj=(kind, False)))
    walk.live.write(frame.number, 1 << position | 1 << position - 1)


def release(walk: Walk, reg: Reg) -> None:
    """Submit or discard: the reference, every slice of it and every copy end."""
    place = _slot(walk, reg)
    assert place is not None
    frame, position = place
    found = frame.stack[position][1]
    assert found is not None
    ref = found.ref
    if ref:
        references.release(walk, ref)
    for number in range(1, len(frame.stack)):
        other = frame.stack[number][1]
        mine = other is not None and (other.ref == ref if ref else number == position)
        if mine and other is not None and other.kind == DYNPTR and other.obj[1]:
            frame.stack[number] = frame.stack[number - 1] = EMPTY
            walk.live.write(frame.number, 1 << number | 1 << number - 1)


def type_of(walk: Walk, reg: Reg) -> str:
    """local, ringbuf or skb: what the dynptr that an argument names is over."""
    found = reg if reg.kind == DYNPTR else find(walk, reg)
    assert found is not None
    return str(found.obj[0])


def identity(walk: Walk, reg: Reg) -> tuple[int, int]:
    """Id and reference of the dynptr that an argument names."""
    found = reg if reg.kind == DYNPTR else find(walk, reg)
    assert found is not None
    return found.id, found.ref


def forget_packet_slices(walk: Walk) -> None:
    """A write through a dynptr over the packet may move its bytes: slices of it end."""
    references.every_register(walk.state, lambda reg: walk.gone if reg.kind & SKB_SLICE else reg)


def invalidate_slices(walk: Walk, id: int) -> None:
    """Memory obtained from dynptr `id` is unusable from now on."""
    from pktbpf.verifier.state import MEM, OR_NULL

    gone = walk.gone
    for frame in walk.state.frames:
        frame.regs[:] = [gone if r.kind in (MEM, MEM | OR_NULL) and r.uid == id else r for r in frame.regs]
        for number, slot in enumerate(frame.stack):
            spill = slot[1]
            if spill is not None and spilled(slot) and spill.kind in (MEM, MEM | OR_NULL) and spill.uid == id:
                frame.stack[number] = (slot[0], gone)
