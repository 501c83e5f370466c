"""Whether a state is covered by one that was explored before: registers, stack slots, references, one by one.

`equal` answers for two states in three ways: NOT_EXACT forgives what was never needed precisely, EXACT wants the same,
RANGE_WITHIN wants ranges inside ranges (rounds of iterators and callbacks). Mirrors states_equal, regsafe, stacksafe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pktbpf.verifier import scalar
from pktbpf.verifier.state import (
    ADD_CONST,
    BASE,
    DYNPTR_BYTE,
    INVALID,
    IRQ_BYTE,
    ITER_BYTE,
    MAP_KEY,
    MAP_VALUE,
    MEM,
    MISC,
    NOT_INIT,
    SCALAR,
    SPILL,
    STACK,
    UNKNOWN,
    ZERO_BYTE,
    Frame,
    Reg,
    Slot,
    State,
)

if TYPE_CHECKING:
    from pktbpf.verifier.walk import Walk

NOT_EXACT, EXACT, RANGE_WITHIN = range(3)
_ALL_EMPTY = INVALID * 8


class Ids:
    """Which id of the old state stands for which id of the new one, one to one."""

    __slots__ = ("new", "old", "temporary")

    def __init__(self, temporary: int):
        self.old: dict[int, int] = {}
        self.new: set[int] = set()
        self.temporary = temporary

    def match(self, old: int, new: int) -> bool:
        """Pair two ids; zero only with zero."""
        if bool(old) != bool(new):
            return False
        if not old:
            return True
        known = self.old.get(old)
        if known is not None:
            return known == new
        if new in self.new:
            return False
        self.old[old] = new
        self.new.add(new)
        return True

    def match_scalar(self, old: int, new: int) -> bool:
        """Scalars without an id are alone with their value: an old one learned nothing through links, so those of the
        new one do no harm; a new one counts as one of its own."""
        if not old:
            return True
        if not new:
            self.temporary += 1
            new = self.temporary
        # A constant apart from a value: that value must be the same one as well.
        return self.match(old, new) and not (old & ADD_CONST and not self.match(old & ~ADD_CONST, new & ~ADD_CONST))


def exact(old: Reg, new: Reg, ids: Ids) -> bool:
    """Equal in everything, ids one to one."""
    return old.same(new) and ids.match(old.id, new.id) and ids.match(old.ref, new.ref)


def _covers(walk: Walk, old: Reg, new: Reg, ids: Ids, how: int) -> bool:
    """Whether whatever was safe with `old` is safe with `new`."""
    if how == EXACT:
        return exact(old, new, ids)
    kind = old.kind
    if kind == NOT_INIT and (how == NOT_EXACT or new.kind == NOT_INIT):
        return True
    if kind != new.kind:
        return False
    if kind == SCALAR:
        if walk.explore_limits:
            return old.same(new) and ids.match_scalar(old.id, new.id)
        if not old.precise and how == NOT_EXACT:
            return True
        if not old.id:
            return scalar.within(old.v, new.v)
        if (old.id ^ new.id) & ADD_CONST or (old.id & ADD_CONST and old.off != new.off):
            return False
        return scalar.within(old.v, new.v) and ids.match_scalar(old.id, new.id)
    base = kind & BASE
    if base in (MAP_VALUE, MAP_KEY, MEM):
        return (
            old.off == new.off
            and old.obj == new.obj
            and old.uid == new.uid
            and scalar.within(old.v, new.v)
            and ids.match(old.id, new.id)
            and ids.match(old.ref, new.ref)
        )
    if base == STACK:
        return old.same(new) and ids.match(old.id, new.id) and old.frame == new.frame
    return exact(old, new, ids)


def _as_scalar(walk: Walk, slot: Slot) -> Reg | None:
    """A slot that a load would give back as one scalar: a whole spill, or bytes that hold anything."""
    types, spill = slot
    if types[0] == SPILL and spill is not None and spill.kind == SCALAR:
        return spill
    for letter in types:
        if letter != MISC and not (letter == INVALID and walk.reads_unwritten_stack):
            return None
    return UNKNOWN


def _stack_covers(walk: Walk, old: Frame, new: Frame, ids: Ids, how: int) -> bool:
    theirs = new.stack
    for number, slot in enumerate(old.stack):
        other = theirs[number] if number < len(theirs) else None
        if other is slot and how == NOT_EXACT and slot[1] is None:
            continue
        if how != NOT_EXACT:
            if other is None or (other[0] != slot[0]):
                return False
        elif slot[0] == _ALL_EMPTY:
            continue
        if not _slot_covers(walk, slot, other, ids, how):
            return False
    return True


def _slot_covers(walk: Walk, slot: Slot, other: Slot | None, ids: Ids, how: int) -> bool:
    """One slot, byte by byte in the kernel's order; a register spilled in both is compared as one."""
    types = slot[0]
    lenient = walk.reads_unwritten_stack
    asked = False
    for position in range(8):
        letter = types[position]
        if letter == INVALID or (lenient and letter == MISC):
            continue
        if other is None:
            return False
        if not asked:
            mine, its = _as_scalar(walk, slot), _as_scalar(walk, other)
            if mine is not None and its is not None:
                return _covers(walk, mine, its, ids, how)
            asked = True
        found = other[0][position]
        if letter == MISC and found == ZERO_BYTE:
            continue
        if letter != found:
            return False
        if position != 7:
            continue
        return _last_byte(walk, letter, slot, other, ids, how)
    return True


def _last_byte(walk: Walk, letter: str, slot: Slot, other: Slot, ids: Ids, how: int) -> bool:
    if letter in (MISC, ZERO_BYTE, INVALID):
        return True
    mine, its = slot[1], other[1]
    if mine is None or its is None:
        return mine is its
    if letter == SPILL:
        return _covers(walk, mine, its, ids, how)
    if letter == DYNPTR_BYTE:
        return bool(mine.obj == its.obj) and ids.match(mine.ref, its.ref)
    if letter == ITER_BYTE:
        return bool(mine.obj[:2] == its.obj[:2]) and ids.match(mine.ref, its.ref)
    if letter == IRQ_BYTE:
        return ids.match(mine.ref, its.ref)
    return False


def _held_alike(old: State, new: State, ids: Ids) -> bool:
    if not (old.refs or new.refs or old.locks or new.locks or old.irq or new.irq or old.lock[0] or new.lock[0]):
        return old.preempt == new.preempt and old.rcu == new.rcu and old.lock[1] is new.lock[1]
    if len(old.refs) != len(new.refs) or old.locks != new.locks or old.preempt != new.preempt or old.rcu != new.rcu:
        return False
    if not ids.match(old.irq, new.irq) or not ids.match(old.lock[0], new.lock[0]) or old.lock[1] is not new.lock[1]:
        return False
    return all(
        a[0] == b[0] and ids.match(a[1], b[1]) and (a[0] == "ptr" or a[3] is b[3])
        for a, b in zip(old.refs, new.refs, strict=True)
    )


def equal(walk: Walk, old: State, new: State, how: int) -> bool:
    """Whether `new` need not be explored because `old` was."""
    if len(old.frames) != len(new.frames) or (old.speculative and not new.speculative):
        return False
    ids = Ids(walk.last_id)
    if not _held_alike(old, new, ids):
        return False
    live = walk.layout.live
    for number, frame in enumerate(old.frames):
        mine = new.frames[number]
        if frame.callsite != mine.callsite or frame.callback_depth > mine.callback_depth:
            return False
        mask = live[old.at(number)]
        theirs = mine.regs
        for index, reg in enumerate(frame.regs):
            if mask >> index & 1:
                other = theirs[index]
                if reg is other and not reg.id and not reg.ref:
                    continue
                if not _covers(walk, reg, other, ids, how):
                    return False
        if not _stack_covers(walk, frame, mine, ids, how):
            return False
    return True


def same_calls(a: State, b: State) -> bool:
    """Whether two states were reached through the same chain of calls."""
    return len(a.frames) == len(b.frames) and all(
        x.callsite == y.callsite for x, y in zip(a.frames, b.frames, strict=True)
    )


def maybe_looping(old: State, new: State) -> bool:
    """Registers equal to the byte, ids included: a loop that changes nothing."""
    if len(old.frames) != len(new.frames):
        return False
    for a, b in zip(old.frames[-1].regs, new.frames[-1].regs, strict=True):
        if a is not b and (a.v != b.v or a.id != b.id or a.ref != b.ref or not a.same(b)):
            return False
    return True
