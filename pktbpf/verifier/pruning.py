"""When a path may stop: comparing its state with those that were explored from the same instruction before.

A path whose state is at least as well known as an explored one cannot end otherwise. Checkpoints are kept by the
kernel's heuristics, because which states are there decides what fits into the budget; loops found this way are settled
per strongly connected part of the program.

Mirrors is_state_visited and the handling of loops around them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pktbpf.verifier import iterators, precision
from pktbpf.verifier.equality import EXACT, NOT_EXACT, RANGE_WITHIN, Ids, equal, exact, maybe_looping, same_calls
from pktbpf.verifier.errors import invalid
from pktbpf.verifier.layout import MAY_GOTO
from pktbpf.verifier.state import (
    EMPTY,
    INVALID,
    SCALAR,
    SPILL,
    Reg,
    State,
    spilled,
)
from pktbpf.verifier.texts import frame_text

if TYPE_CHECKING:
    from pktbpf.verifier.walk import Walk

_KEEP_AFTER_HISTORY = 40
_BUCKET_LIMIT = 64
_MAX_ROUNDS = 64
_PATIENCE = 3
_ALL_SPILL, _ALL_EMPTY = SPILL * 8, INVALID * 8


Chain = tuple[tuple[int, ...], int]


class _Visit:
    """One stay in a loop: the checkpoint that entered it and the states that came back to an explored one."""

    __slots__ = ("backedges", "count", "entry")

    def __init__(self) -> None:
        self.entry: State | None = None
        self.backedges: list[State] = []
        self.count = 0


class Explored:
    """Checkpoints by instruction, and the loops being explored."""

    def __init__(self, walk: Walk):
        self.walk = walk
        self.buckets: dict[int, list[State]] = {}
        self.visits: dict[Chain, _Visit] = {}
        self.size = 0
        self.in_free_list = 0
        self.backedges = 0
        self.total = 0
        self.peak = 0
        self.most_per_insn = 0
        self.jumps_before = 0
        self.insns_before = 0

    def restart(self) -> None:
        """Forget the checkpoints, not the counters: another function is verified next."""
        self.buckets.clear()
        self.visits.clear()

    def bucket(self, index: int, callsite: int) -> list[State]:
        """The checkpoints kept for an instruction reached from one call."""
        key = ((index ^ callsite) & 0xFFFFFFFF) % len(self.walk.insns)
        found = self.buckets.get(key)
        if found is None:
            found = self.buckets[key] = []
        return found

    def _count_peak(self) -> None:
        self.peak = max(self.peak, self.size + self.in_free_list + self.backedges)

    # ---- loops

    def _chain(self, state: State) -> Chain | None:
        """Call sites down to the first frame that stands in a loop, and the loop's number."""
        scc = self.walk.layout.scc
        calls: list[int] = []
        for number in range(len(state.frames)):
            at = state.at(number)
            if scc[at]:
                return tuple(calls), scc[at]
            calls.append(at)
        return None

    def _enter_loop(self, state: State) -> None:
        chain = self._chain(state)
        if chain is None:
            return
        visit = self.visits.setdefault(chain, _Visit())
        if visit.entry is None:
            visit.entry = state
            if self.walk.log is not None:
                self.walk.log.loop("enter", chain)

    def leave_loop(self, state: State) -> None:
        """All paths below a checkpoint are finished: if it entered a loop, settle the precision of the whole loop."""
        chain = self._chain(state)
        if chain is None:
            return
        visit = self.visits.get(chain)
        if visit is None or visit.entry is not state:
            return
        if self.walk.log is not None:
            self.walk.log.loop("exit", chain)
        visit.entry = None
        self.backedges -= visit.count
        visit.count = 0
        self._count_peak()
        rounds = 0
        while True:
            rounds += 1
            if rounds > _MAX_ROUNDS:
                for back in visit.backedges:
                    precision.mark_all(self.walk, back)
                break
            changed = False
            for back in visit.backedges:
                assert back.equal is not None
                changed |= self.propagate(back.equal, back)
            if not changed:
                break
        visit.backedges = []

    def _incomplete(self, state: State) -> bool:
        """Whether marks may still arrive, because the loop it stands in is not settled."""
        chain = self._chain(state)
        visit = self.visits.get(chain) if chain is not None else None
        return visit is not None and bool(visit.backedges)

    def _add_backedge(self, old: State, new: State, index: int) -> None:
        back = new.copy()
        back.equal = old
        back.insn = index
        chain = self._chain(old)
        assert chain is not None
        visit = self.visits.setdefault(chain, _Visit())
        visit.backedges.insert(0, back)
        visit.count += 1
        self.backedges += 1
        self._count_peak()
        if self.walk.log is not None:
            self.walk.log.loop("backedge", chain)

    def propagate(self, old: State, new: State) -> bool:
        """What `old` needed precisely is needed of `new` as well, back through its checkpoints."""
        if not self.walk.capable and self.walk.log is None:
            return False
        wanted = (self.walk.wanted if self.walk.capable else precision.Wanted()).begin(len(new.frames) - 1)
        for number in range(len(old.frames) - 1, -1, -1):
            frame = old.frames[number]
            for index in range(10):
                reg = frame.regs[index]
                if reg.precise and reg.kind == SCALAR:
                    wanted.regs[number] |= 1 << index
            for index, slot in enumerate(frame.stack):
                spill = slot[1]
                if spill is not None and spill.precise and spill.kind == SCALAR and spilled(slot):
                    wanted.slots[number] |= 1 << index
            if self.walk.log is not None:
                self.walk.log.propagating(number, wanted)
        return self.walk.capable and precision.trace(self.walk, new, wanted)

    # ---- checkpoints

    def release_branch(self, state: State | None) -> None:
        """A path ended: count it off its checkpoints, settling the loops that are thereby done."""
        while state is not None:
            state.branches -= 1
            if state.branches:
                return
            self.leave_loop(state)
            if state.in_free:
                self._drop(state)
            state = state.parent

    def _drop(self, state: State) -> None:
        if state.in_free and not state.branches and not self._incomplete(state):
            state.in_free = False
            self.in_free_list -= 1

    def _clean(self, bucket: list[State], index: int, current: State) -> None:
        """Forget what nothing reads any more in finished checkpoints of this place."""
        for state in bucket:
            if state.branches or state.cleaned or state.insn != index or not same_calls(state, current):
                continue
            if not self._incomplete(state):
                self._clean_state(state)

    def _clean_state(self, state: State) -> None:
        state.cleaned = True
        live = self.walk.layout.live
        unset = self.walk.unset
        slots = self.walk.live.live_slots(state)
        for number, frame in enumerate(state.frames):
            mask = live[state.at(number)]
            frame.regs[:10] = [reg if mask >> i & 1 else unset for i, reg in enumerate(frame.regs[:10])]
            kept = slots[number]
            frame.stack = [slot if kept >> i & 1 else EMPTY for i, slot in enumerate(frame.stack)]

    def visit(self, index: int) -> bool:
        """Compare the current state with the checkpoints here; True when the path may end. May keep a checkpoint."""
        walk = self.walk
        current = walk.state
        forced = bool(walk.layout.force[index]) or len(current.history) > _KEEP_AFTER_HISTORY
        jumps = walk.jumps - self.jumps_before
        insns = walk.processed - self.insns_before
        keep = forced or (jumps >= 2 and insns >= 8)
        bucket = self.bucket(index, current.frames[-1].callsite)
        self._clean(bucket, index, current)
        plain = not (forced or walk.insns[index].code == MAY_GOTO or walk.layout.callback[index])
        count = 0
        loop = False
        for state in bucket[:]:
            count += 1
            if state.insn != index:
                continue
            if state.branches:
                found = False
                if not plain or maybe_looping(state, current):
                    # A callback that came back leaves what the finished checkpoint before it in the list said.
                    found, again = self._unfinished(state, current, index)
                    loop = loop if again is None else again
                if not found and not forced and jumps < 20 and insns < 100:
                    keep = False
            else:
                loop = self._incomplete(state)
                found = equal(walk, state, current, RANGE_WITHIN if loop else NOT_EXACT)
            if found:
                self._hit(state, current, index, loop)
                return True
            if keep:
                state.misses += 1
            if state.misses > _PATIENCE:
                self._miss(bucket, state, index)
        self.most_per_insn = max(self.most_per_insn, count)
        if keep and (walk.capable or count <= _BUCKET_LIMIT):
            self._keep(bucket, current, index)
        return False

    def _unfinished(self, state: State, current: State, index: int) -> tuple[bool, bool | None]:
        """A checkpoint on the current path itself: the end of a loop that converges, or one that never ends. Whether
        it covers the current state, and whether a loop closes there, None where that says nothing new."""
        walk = self.walk
        frame = state.frames[-1]
        if frame.async_callback and frame.async_entries != current.frames[-1].async_entries:
            return False, None
        if (
            walk.insns[index].code == MAY_GOTO
            and state.may_goto != current.may_goto
            and equal(walk, state, current, RANGE_WITHIN)
        ):
            return True, True
        if walk.layout.force[index] and index in walk.layout.kfuncs:
            same = equal(walk, state, current, RANGE_WITHIN) and iterators.is_active(current.frames)
            return same, True if same else None
        if walk.layout.callback[index] and walk.profile.callback_rounds:
            return equal(walk, state, current, RANGE_WITHIN), None
        if (
            maybe_looping(state, current)
            and equal(walk, state, current, EXACT)
            and not iterators.depths_differ(state.frames, current.frames)
            and state.may_goto == current.may_goto
            and state.callback_unroll == current.callback_unroll
        ):
            last = len(current.frames) - 1
            invalid(
                f"infinite loop detected at insn {index}", f"cur state:{frame_text(current, last)}",
                f"old state:{frame_text(state, last)}", insn=index,
            )  # fmt: skip
        return False, None

    def _hit(self, state: State, current: State, index: int, loop: bool) -> None:
        walk = self.walk
        state.hits += 1
        if walk.layout.jump[index]:
            walk.record()
        self.propagate(state, current)
        if loop:
            self._add_backedge(state, current, index)

    def _miss(self, bucket: list[State], state: State, index: int) -> None:
        """Give up a checkpoint that has been compared in vain too often."""
        patience = 64 if self.walk.layout.force[index] and state.branches > 0 else _PATIENCE
        if state.misses > state.hits * patience + patience:
            bucket.remove(state)
            state.in_free = True
            self.in_free_list += 1
            self.size -= 1
            self._drop(state)

    def _keep(self, bucket: list[State], current: State, index: int) -> None:
        walk = self.walk
        self.total += 1
        self.size += 1
        self._count_peak()
        self.jumps_before = walk.jumps
        self.insns_before = walk.processed
        if walk.capable:
            precision.forget(current)
        new = current.copy()
        new.insn = index
        self._enter_loop(new)
        current.parent = new
        current.first = index
        current.depth = new.depth + 1
        current.history = []
        current.traced = {}
        bucket.insert(0, new)


def find_entry(bucket: list[State], current: State, index: int) -> State | None:
    """The nearest checkpoint of this loop on the current path."""
    for state in bucket:
        if state.insn == index and state.branches and same_calls(state, current) and state.depth < current.depth:
            return state
    return None


def widen(walk: Walk, old: State, new: State) -> None:
    """Forget, in the next round of a loop, ranges that differ from the last one and were not needed."""
    ids = Ids(walk.last_id)
    for number in range(len(old.frames) - 1, -1, -1):
        before, after = old.frames[number], new.frames[number]
        for index in range(11):
            after.regs[index] = _widened(walk, before.regs[index], after.regs[index], ids)
        for index, slot in enumerate(before.stack):
            if index >= len(after.stack):
                break
            mine = after.stack[index]
            if spilled(slot) and spilled(mine) and slot[1] is not None and mine[1] is not None:
                after.stack[index] = (mine[0], _widened(walk, slot[1], mine[1], ids))


def _widened(walk: Walk, old: Reg, new: Reg, ids: Ids) -> Reg:
    if old.kind != SCALAR or new.kind != SCALAR or old.precise or new.precise or exact(old, new, ids):
        return new
    return walk.unknown
