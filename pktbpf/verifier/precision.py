"""Precision: going back along the recorded path to mark, in every checkpoint, the scalars a decision hung on.

Pruning may treat two scalars as alike unless a later instruction needed the exact range. When one does (a decided
branch, a pointer offset, a size), this walk backwards finds where the value came from and marks the registers and
spilled slots of the checkpoints on the way. Mirrors backtrack_insn and __mark_chain_precision.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NoReturn

from pktbpf.isa.extended import Insn
from pktbpf.verifier.errors import Refusal
from pktbpf.verifier.layout import TAIL_CALL, is_call
from pktbpf.verifier.state import DST_STACK, SCALAR, SRC_STACK, State, Step, spilled, spilled_scalar

if TYPE_CHECKING:
    from pktbpf.verifier.walk import Walk

_ARGS = 0b111110  # r1 to r5


class _NotTracked(Exception):
    """The origin cannot be followed; everything becomes precise instead."""


def _bug(text: str) -> NoReturn:
    raise Refusal(errno.EFAULT, f"verifier bug: {text}")


Passed = list[tuple[dict[int, int], int, int]]  # places in States' histories and the registers wanted there


class Wanted:
    """What is searched for: bit masks of registers and of stack slots, per frame.

    A walk has one for all its searches, as the kernel (env->bt): a search ends when nothing is wanted in the frames
    down to the current one, and what it has left in deeper ones is wanted by the next that starts there.
    """

    __slots__ = ("frame", "regs", "slots")

    def __init__(self) -> None:
        self.frame = 0
        self.clear()

    def clear(self) -> None:
        """Nothing is wanted anywhere."""
        self.regs = [0] * 8
        self.slots = [0] * 8

    def begin(self, frame: int) -> Wanted:
        """A search starts in a frame."""
        self.frame = frame
        return self

    @property
    def alone(self) -> bool:
        """Nothing is wanted in frames deeper than the current one."""
        after = self.frame + 1
        return not any(self.regs[after:]) and not any(self.slots[after:])

    @property
    def empty(self) -> bool:
        """Nothing is left to find in the frames down to the current one."""
        last = self.frame + 1
        return not any(self.regs[:last]) and not any(self.slots[:last])

    def leave(self) -> None:
        """Into the caller's frame."""
        if self.frame == 0:
            _bug("subprog exit from frame 0")
        self.frame -= 1

    def enter(self) -> None:
        """Into a callee's frame."""
        if self.frame == 7:
            _bug("subprog enter from frame 7")
        self.frame += 1

    def follow_links(self, step: Step | None) -> None:
        """If one of the registers that a branch narrowed together is wanted, all are."""
        if step is None or not step[4]:
            return
        regs, slots = self.regs, self.slots
        linked = step[4]
        if any((regs if is_reg else slots)[frame] >> number & 1 for frame, number, is_reg in linked):
            for frame, number, is_reg in linked:
                (regs if is_reg else slots)[frame] |= 1 << number


def mark_register(walk: Walk, number: int) -> None:
    """The current value of one register is relied on."""
    if not walk.capable:
        return
    state = walk.state
    if walk.regs[number].kind != SCALAR:
        # The kernel asks this of a pointer that bpf_loop is given as a count, and takes it for its own fault.
        _bug("backtracking misuse")
    wanted = walk.wanted.begin(len(state.frames) - 1)
    wanted.regs[wanted.frame] |= 1 << number
    trace(walk, state, wanted)


def mark_slot(walk: Walk, frame: int, slot: int) -> None:
    """The scalar spilled in one slot is relied on."""
    if not walk.capable:
        return
    state = walk.state
    wanted = walk.wanted.begin(len(state.frames) - 1)
    wanted.slots[frame] |= 1 << slot
    trace(walk, state, wanted)


def trace(walk: Walk, start: State, wanted: Wanted) -> bool:
    """Follow `wanted` back from `start` through its checkpoints; True when a new mark was set."""
    if wanted.empty:
        return False
    changed = False
    state = start
    first, index = state.first, start.insn
    following = -1
    skip = True
    log = walk.log
    passed: Passed | None = [] if log is None and wanted.alone else None  # the log shows every search in full
    while True:
        if log is not None:
            log.precise_start(wanted, index, first, following)
        if index < 0:
            return _entry(state, wanted) or changed
        try:
            following, done = _back_through(walk, state, wanted, index, following, skip, passed)
        except _NotTracked:
            mark_all(walk, start)
            wanted.clear()
            return changed
        skip = False
        if done:
            break
        parent = state.parent
        if parent is None:
            break
        state = parent
        changed |= _mark_checkpoint(walk, state, wanted)
        if wanted.empty:
            break
        following = first
        index, first = state.last, state.first
    if not (done or wanted.empty):
        mark_all(walk, start)
        wanted.clear()
        return changed
    if passed and wanted.alone:
        for traced, left, regs in passed:
            traced[left] = regs
    return changed


def _back_through(
    walk: Walk, state: State, wanted: Wanted, index: int, following: int, skip: bool, passed: Passed | None
) -> tuple[int, bool]:
    """Backwards over the instructions since one checkpoint; True when everything was found.

    A search that meets the place and the registers of one before it would find what that found; `passed` collects
    them. Loops ask for the same counter in every round: without this a round takes as long as all those before it.
    """
    history = state.history
    left = len(history)
    insns, touched, stores = walk.insns, walk.touched, walk.stores
    log = walk.log
    first = state.first
    size = len(insns)
    traced = state.traced
    regs, slots = wanted.regs[wanted.frame], any(wanted.slots)
    step = history[left - 1] if left and history[left - 1][0] == index else None
    while True:
        if skip:
            skip = False
        else:
            if log is not None:
                log.precise_step(walk, wanted, index)
            # Most instructions have nothing to do with what is wanted; this test alone took a third off a verification.
            mask = touched[index]
            if (mask and (mask < 0 or regs & mask)) or (slots and stores[index]) or (step is not None and step[4]):
                _step_back(walk, insns[index], index, following, step, wanted)
                regs, slots = wanted.regs[wanted.frame], any(wanted.slots)
                if not regs and wanted.empty:
                    return following, True
        following = index
        if index == first and (left == 0 or (left == 1 and history[0][0] == index)):
            return following, False
        if step is not None:
            index = step[1]
            left -= 1
        else:
            index -= 1
        if not 0 <= index < size:
            _bug(f"backtracking idx {index}")
        step = history[left - 1] if left else None
        if step is not None:
            if step[0] != index:
                step = None
            elif passed is not None and not slots and wanted.frame == 0 and wanted.alone:
                if traced.get(left) == regs:
                    wanted.clear()
                    return following, True
                passed.append((traced, left, regs))


def touched_registers(insn: Insn) -> int:
    """Bit mask of registers without any of which an instruction means nothing to a search back; -1 for one that always
    does something, such as a call. Slots, which stores are about, and links are apart from this."""
    code, kind, operation = insn.code, insn.code & 7, insn.code & 0xF0
    if kind in (4, 7) and operation != 0xB0 and (not code & 8 or operation == 0xD0):
        return 0  # the same register is wanted before as after
    if kind in (5, 6):
        if operation in (0x80, 0x90):
            return -1
        if operation in (0x00, 0xE0):
            return 0
        return 1 << insn.dst | 1 << insn.src if code & 8 else 0
    if kind == 3 and code & 0xE0 == 0xC0:
        return -1
    return 0 if not code else 1 << insn.dst


def _entry(state: State, wanted: Wanted) -> bool:
    """At the entry of a function verified on its own, only its arguments may be wanted."""
    outer = state.frames[0]
    if len(state.frames) == 1 and outer.subprog > 0 and not wanted.slots[0] and not wanted.regs[0] & ~_ARGS:
        changed = False
        for number in range(1, 6):
            if wanted.regs[0] >> number & 1 and outer.regs[number].kind == SCALAR:
                outer.regs[number] = outer.regs[number].with_precise(True)
                changed = True
        wanted.regs[0] = 0
        return changed
    _bug(
        f"backtracking func entry subprog {outer.subprog} reg_mask {wanted.regs[wanted.frame]:x} "
        f"stack_mask {wanted.slots[wanted.frame]:x}"
    )


def _mark_checkpoint(walk: Walk, state: State, wanted: Wanted) -> bool:
    """Mark in a checkpoint what is wanted there; what is marked already was followed before."""
    changed = False
    for number in range(wanted.frame, -1, -1):
        frame = state.frames[number]
        mask = wanted.regs[number]
        if mask:
            for bit in range(10):
                if mask >> bit & 1:
                    reg = frame.regs[bit]
                    if reg.kind != SCALAR or reg.precise:
                        mask &= ~(1 << bit)
                    else:
                        frame.regs[bit] = reg.with_precise(True)
                        changed = True
            wanted.regs[number] = mask
        mask = wanted.slots[number]
        if mask:
            for bit in range(mask.bit_length()):
                if not mask >> bit & 1:
                    continue
                if bit >= len(frame.stack):
                    _bug(f"stack slot {bit}, total slots {len(frame.stack)}")
                slot = frame.stack[bit]
                spill = slot[1]
                if not spilled_scalar(slot) or spill is None or spill.precise:
                    mask &= ~(1 << bit)
                else:
                    frame.stack[bit] = (slot[0], spill.with_precise(True))
                    changed = True
            wanted.slots[number] = mask
        if walk.log is not None:
            walk.log.precise_parent(walk, state, wanted, number)
    return changed


def mark_all(walk: Walk, state: State) -> None:
    """Every scalar of every checkpoint before `state` becomes precise."""
    if walk.log is not None:
        walk.log.precise_all(state)
    parent = state.parent
    while parent is not None:
        for frame in parent.frames:
            for number in range(10):
                reg = frame.regs[number]
                if reg.kind == SCALAR and not reg.precise:
                    frame.regs[number] = reg.with_precise(True)
                    if walk.log is not None:
                        walk.log.forced(frame.number, f"r{number}")
            for number, slot in enumerate(frame.stack):
                spill = slot[1]
                if spilled(slot) and spill is not None and spill.kind == SCALAR and not spill.precise:
                    frame.stack[number] = (slot[0], spill.with_precise(True))
                    if walk.log is not None:
                        walk.log.forced(frame.number, f"fp{-(number + 1) * 8}")
        parent = parent.parent


def forget(state: State) -> None:
    """Drop the marks that a state inherited, before it becomes a checkpoint itself."""
    for frame in state.frames:
        regs = frame.regs
        for number in range(10):
            reg = regs[number]
            if reg.precise and reg.kind == SCALAR:
                regs[number] = reg.with_precise(False)
        for number, slot in enumerate(frame.stack):
            spill = slot[1]
            if spill is not None and spill.precise and spill.kind == SCALAR and spilled(slot):
                frame.stack[number] = (slot[0], spill.with_precise(False))


def _step_back(
    walk: Walk, insn: Insn, index: int, following: int, step: Step | None, wanted: Wanted
) -> None:
    """Undo one instruction: from what is wanted after it to what is wanted before it."""
    code = insn.code
    if code == 0:
        return
    if step is not None:
        wanted.follow_links(step)
    kind = code & 7
    if kind in (4, 7):
        if not _alu(insn, wanted):
            return
    elif kind == 1 or (kind == 3 and code & 0xE0 == 0xC0 and insn.imm == 0x100):
        if not _load(insn, step, wanted):
            return
    elif kind in (2, 3):
        if not _store(insn, kind, step, wanted):
            return
    elif kind in (5, 6):
        if not _jump(walk, insn, index, following, step, wanted):
            return
    else:
        regs = wanted.regs
        if not regs[wanted.frame] >> insn.dst & 1:
            return
        regs[wanted.frame] &= ~(1 << insn.dst)
        if code & 0xE0 in (0x20, 0x40):
            raise _NotTracked
    wanted.follow_links(step)


def _alu(insn: Insn, wanted: Wanted) -> bool:
    regs, frame = wanted.regs, wanted.frame
    if not regs[frame] >> insn.dst & 1:
        return False
    operation = insn.code & 0xF0
    if operation in (0xD0, 0x80):
        return False
    if operation == 0xB0:
        regs[frame] &= ~(1 << insn.dst)
    if insn.code & 8 and insn.src != 10:
        regs[frame] |= 1 << insn.src
    return True


def _load(insn: Insn, step: Step | None, wanted: Wanted) -> bool:
    regs, frame = wanted.regs, wanted.frame
    if not regs[frame] >> insn.dst & 1:
        return False
    regs[frame] &= ~(1 << insn.dst)
    if step is None or step[2] is None:
        return False
    owner, slot = step[2]
    wanted.slots[owner] |= 1 << slot
    return True


def _store(insn: Insn, kind: int, step: Step | None, wanted: Wanted) -> bool:
    regs, frame = wanted.regs, wanted.frame
    if regs[frame] >> insn.dst & 1:
        raise _NotTracked
    if step is None or step[2] is None:
        return False
    owner, slot = step[2]
    if not wanted.slots[owner] >> slot & 1:
        return False
    wanted.slots[owner] &= ~(1 << slot)
    if kind == 3:
        regs[frame] |= 1 << insn.src
    return True


def _jump(walk: Walk, insn: Insn, index: int, following: int, step: Step | None, wanted: Wanted) -> bool:
    regs = wanted.regs
    operation = insn.code & 0xF0
    if is_call(insn, 1):
        _local_call(walk, insn, index, wanted)
        return False
    if operation == 0x80:
        if walk.layout.callback[index] and index != following - 1:
            if not walk.profile.callback_rounds:
                raise _NotTracked
            _leave_callback(wanted)
            return False
        if insn.src == 2 and index not in walk.layout.kfuncs:
            raise _NotTracked
        regs[wanted.frame] &= ~1
        if regs[wanted.frame] & _ARGS:
            _bug(f"backtracking call unexpected regs {regs[wanted.frame]:x}")
        leaves = is_call(insn, 0) and insn.imm == TAIL_CALL and following - index != 1
        if leaves and walk.profile.returns_from_tail_calls:
            # The caller went on from here, as behind an exit.
            wanted.enter()
        return True
    if operation == 0x90:
        _function_exit(walk, following, wanted)
        return False
    if insn.code & 8:
        if not regs[wanted.frame] >> insn.dst & 1 and not regs[wanted.frame] >> insn.src & 1:
            return False
        flags = step[3] if step is not None else 0
        if not flags & SRC_STACK:
            regs[wanted.frame] |= 1 << insn.src
        if not flags & DST_STACK:
            regs[wanted.frame] |= 1 << insn.dst
    return True


def _local_call(walk: Walk, insn: Insn, index: int, wanted: Wanted) -> None:
    regs = wanted.regs
    number = walk.layout.function_starting(index + insn.imm + 1)
    if number is None:
        _bug(f"callee not found at insn {index}")
    if walk.types.is_global(number):
        if regs[wanted.frame] & _ARGS:
            _bug(f"global subprog unexpected regs {regs[wanted.frame]:x}")
        regs[wanted.frame] &= ~1
        return
    if regs[wanted.frame] & ~_ARGS:
        _bug(f"static subprog unexpected regs {regs[wanted.frame]:x}")
    if wanted.slots[wanted.frame]:
        _bug(f"static subprog leftover stack slots {wanted.slots[wanted.frame]:x}")
    arguments = regs[wanted.frame] & _ARGS
    regs[wanted.frame] &= ~_ARGS
    regs[wanted.frame - 1] |= arguments
    wanted.leave()


def _leave_callback(wanted: Wanted) -> None:
    """From the first instruction of a callback to the helper that calls it: its arguments come from the helper."""
    regs = wanted.regs
    if regs[wanted.frame] & ~_ARGS:
        _bug(f"callback unexpected regs {regs[wanted.frame]:x}")
    if wanted.slots[wanted.frame]:
        _bug(f"callback leftover stack slots {wanted.slots[wanted.frame]:x}")
    regs[wanted.frame] &= ~_ARGS
    wanted.leave()


def _function_exit(walk: Walk, following: int, wanted: Wanted) -> None:
    """Backwards into a callee, or into a callback when the helper that calls it follows."""
    regs = wanted.regs
    if following >= 1 and not walk.profile.callback_rounds and walk.layout.callback[following - 1]:
        raise _NotTracked
    if following >= 0 and walk.layout.callback[following]:
        regs[wanted.frame] &= ~_ARGS
    if regs[wanted.frame] & _ARGS:
        _bug(f"backtracking exit unexpected regs {regs[wanted.frame]:x}")
    result = following >= 1 and is_call(walk.insns[following - 1], 1) and regs[wanted.frame] & 1
    regs[wanted.frame] &= ~1
    wanted.enter()
    if result:
        regs[wanted.frame] |= 1
