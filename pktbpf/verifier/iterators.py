"""Open-coded iterators and saved interrupt flags: objects of kernel functions that live on the program's stack.

An iterator takes one to three slots, holds a reference until it is destroyed, and is active or drained; `step` forks
the path at each request for the next element. Mirrors process_iter_arg, process_iter_next_call and process_irq_flag.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pktbpf.abi.kfuncs import ITERATOR_SLOTS, Kfunc
from pktbpf.verifier import memory, references, scalar
from pktbpf.verifier.branches import not_null
from pktbpf.verifier.errors import denied, invalid, refuse
from pktbpf.verifier.state import EMPTY, IRQ_BYTE, ITER_BYTE, RCU, STACK, UNTRUSTED, Frame, Reg, State

if TYPE_CHECKING:
    from pktbpf.verifier.walk import Walk

ACTIVE, DRAINED = "active", "drained"
_ALL_ITER, _ALL_IRQ = ITER_BYTE * 8, IRQ_BYTE * 8
_RCU_PROTECTED = ("css", "task")


def _place(walk: Walk, reg: Reg, what: str, slots: int) -> tuple[Frame, int | None, list[str]]:
    """(frame, upper slot or None, the kernel's line why not; no line where the stack only has to grow)."""
    frame = walk.state.frames[reg.frame]
    if reg.v[1]:
        return frame, None, [f"{what} has to be at a constant offset"]
    offset = reg.off + scalar.signed64(reg.v[0])
    # The kernel's division rounds towards zero, so that offset 0 names the first slot.
    position = (-offset - 1) >> 3 if offset < 0 else -((offset + 1) >> 3)
    if offset % 8 or position + 1 < slots:
        return frame, None, [f"cannot pass in {what} at an offset={offset}"]
    if position >= len(frame.stack):
        return frame, None, []
    return frame, position, []


def argument(walk: Walk, row: Kfunc, number: int, name: str) -> tuple[int, int]:
    """Check the iterator that register `number` points to, or make a new one: (frame, upper slot)."""
    reg = walk.regs[number]
    if reg.kind != STACK:
        invalid(f"arg#{number - 1} expected pointer to an iterator on stack")
    slots = ITERATOR_SLOTS[name]
    frame, position, lines = _place(walk, reg, "iter", slots)
    if row.has("new"):
        return _create(walk, number, name, frame, position, lines)
    _check_ready(walk, row, number, name, lines, frame, position)
    assert position is not None
    mask = sum(1 << position - i for i in range(slots))
    walk.live.read(walk.state, frame.number, walk.index, mask)
    return frame.number, position


def _create(
    walk: Walk, number: int, name: str, frame: Frame, position: int | None, lines: list[str]
) -> tuple[int, int]:
    slots = ITERATOR_SLOTS[name]
    taken = position is not None and any(ITER_BYTE in frame.stack[position - i][0] for i in range(slots))
    if lines or taken:
        invalid(*lines, f"expected uninitialized iter_{name} as arg #{number - 1}")
    for byte in range(0, slots * 8, 8):
        memory.access(walk, number, byte, 8, write=True, value=-1, direct=False)
    frame, position, _ = _place(walk, walk.regs[number], "iter", slots)
    assert position is not None
    ref = references.acquire(walk, walk.index)
    kind = STACK
    if name in _RCU_PROTECTED:
        kind |= RCU
    for i in range(slots):
        frame.stack[position - i] = (_ALL_ITER, Reg(kind, ref=0 if i else ref, obj=(name, ACTIVE, 0)))
    walk.live.write(frame.number, sum(1 << position - i for i in range(slots)))
    return frame.number, position


def _check_ready(
    walk: Walk, row: Kfunc, number: int, name: str, lines: list[str], frame: Frame, position: int | None
) -> None:
    ready = position is not None
    for i in range(ITERATOR_SLOTS[name] if position is not None else 0):
        types, held = frame.stack[(position or 0) - i]
        if held is not None and ITER_BYTE in types and held.kind & UNTRUSTED:
            refuse(errno.EPROTO, f"expected an RCU CS when using {row.name}")
        ready = ready and types == _ALL_ITER and held is not None and held.obj[0] == name and bool(held.ref) == (i == 0)
    if not ready:
        invalid(*lines, f"expected an initialized iter_{name} as arg #{number - 1}")


def _held(walk: Walk, frame: int, position: int) -> Reg:
    held = walk.state.frames[frame].stack[position][1]
    assert held is not None
    return held


def reference(walk: Walk, frame: int, position: int) -> int:
    """The reference that the iterator holds."""
    return _held(walk, frame, position).ref


def destroy(walk: Walk, frame: int, position: int, name: str) -> None:
    """Give the iterator back; its slots are free again."""
    references.release(walk, reference(walk, frame, position))
    stack = walk.state.frames[frame].stack
    for i in range(ITERATOR_SLOTS[name]):
        stack[position - i] = EMPTY
    walk.live.write(frame, sum(1 << position - i for i in range(ITERATOR_SLOTS[name])))


def step(walk: Walk, frame: int, position: int) -> None:
    """The next element: one path goes on with it, the current one with null and a drained iterator."""
    state = walk.state
    held = _held(walk, frame, position)
    name, phase, depth = held.obj
    if phase == ACTIVE:
        assert state.parent is not None
        before = walk.previous_entry(state.parent, walk.index)
        queued = walk.branch(walk.index + 1, walk.index)
        if queued is None:
            walk.too_complex(errno.ENOMEM)
        _set(queued.frames[frame], position, name, (name, ACTIVE, depth + 1))
        if before is not None:
            walk.widen(before, queued)
        regs = queued.frames[-1].regs
        regs[0] = not_null(regs[0])
    _set(state.frames[frame], position, name, (name, DRAINED, depth))
    walk.regs[0] = walk.zero


def _set(frame: Frame, position: int, name: str, what: tuple[str, str, int]) -> None:
    """Only the first slot carries the phase, as only it carries the reference."""
    types, held = frame.stack[position]
    assert held is not None
    frame.stack[position] = (types, Reg(held.kind, ref=held.ref, obj=what))


def depths_differ(old: list[Frame], new: list[Frame]) -> bool:
    """Whether an active iterator has moved on between two states of the same place."""
    for mine, other in zip(old, new, strict=True):
        for number, (types, held) in enumerate(mine.stack):
            if types[0] != ITER_BYTE or held is None or held.obj[1] != ACTIVE:
                continue
            theirs = other.stack[number][1] if number < len(other.stack) else None
            if theirs is None or theirs.obj is None or theirs.obj[2] != held.obj[2]:
                return True
    return False


def is_active(frames: list[Frame]) -> bool:
    """Whether R1 of the innermost frame points to an active iterator."""
    reg = frames[-1].regs[1]
    held = frames[reg.frame].stack[(-(reg.off + scalar.signed64(reg.v[0])) - 1) >> 3][1]
    return held is not None and isinstance(held.obj, tuple) and held.obj[1] == ACTIVE


def leave_rcu(state: State) -> None:
    """After bpf_rcu_read_unlock, iterators over what RCU protects are not to be used any more."""
    for frame in state.frames:
        for number, (types, held) in enumerate(frame.stack):
            if types[7] == ITER_BYTE and held is not None and held.kind & RCU:
                frame.stack[number] = (types, held.with_kind(held.kind & ~RCU | UNTRUSTED))


# ---- interrupt flags


def save_irq(walk: Walk, number: int) -> None:
    """Interrupts go off: the flags lie in a stack slot until they are restored."""
    reg = walk.regs[number]
    frame, position, lines = _place(walk, reg, "irq_flag", 1)
    if lines or (position is not None and IRQ_BYTE in frame.stack[position][0]):
        invalid(*lines, f"expected uninitialized irq flag as arg#{number - 1}")
    memory.access(walk, number, 0, 8, write=True, value=-1, direct=False)
    frame, position, _ = _place(walk, walk.regs[number], "irq_flag", 1)
    assert position is not None
    id = walk.new_id()
    walk.state.refs += (("irq", id, walk.index, None),)
    walk.state.irq = id
    frame.stack[position] = (_ALL_IRQ, Reg(STACK, ref=id, obj=("irq", True)))
    walk.live.write(frame.number, 1 << position)


def restore_irq(walk: Walk, number: int) -> None:
    """Interrupts go on again, in the reverse order."""
    frame, position, lines = _place(walk, walk.regs[number], "irq_flag", 1)
    held = frame.stack[position] if position is not None else EMPTY
    if position is None or held[0] != _ALL_IRQ or held[1] is None:
        invalid(*lines, f"expected an initialized irq flag as arg#{number - 1}")
    walk.live.read(walk.state, frame.number, walk.index, 1 << position)
    _release_irq(walk, held[1].ref)
    frame.stack[position] = EMPTY
    walk.live.write(frame.number, 1 << position)


def _release_irq(walk: Walk, id: int) -> None:
    state = walk.state
    before = 0
    for reference in state.refs:
        if reference[0] != "irq":
            continue
        if reference[1] == id and id == state.irq:
            state.refs = tuple(other for other in state.refs if other is not reference)
            state.irq = before
            return
        before = reference[1]
    taken = next((ref[2] for ref in state.refs if ref[0] == "irq" and ref[1] == state.irq), 0)
    denied(f"cannot restore irq state out of order, expected id={state.irq} acquired at insn_idx={taken}")
