"""Which stack slots may still be read: found while walking, per chain of calls, by a backward fixed point.

Pruning ignores slots of an explored state that nothing reads any more. Marks are kept per function instance, that is
per list of call sites leading to the function; each instruction has a mask of slots it may read and one of slots it
certainly overwrites, for every frame on the chain. Mirrors the kernel's liveness.c (6.18).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pktbpf.verifier.layout import Layout
from pktbpf.verifier.state import State

if TYPE_CHECKING:
    from pktbpf.verifier.watch import Watcher

Chain = tuple[int, ...]
_ALL = (1 << 64) - 1


class _Marks:
    """Per instruction of one function: slots read, written, written on all ways on, and live before."""

    __slots__ = ("live", "read", "write", "write_all")

    def __init__(self, size: int):
        self.read = [0] * size
        self.write = [0] * size
        self.write_all = [0] * size
        self.live = [0] * size


class Instance:
    """One function reached through one chain of call sites."""

    __slots__ = ("chain", "dropped", "frames", "function", "size", "start", "updated", "written")

    def __init__(self, chain: Chain, function: int, start: int, size: int):
        self.chain = chain
        self.function = function
        self.start = start
        self.size = size
        self.frames: list[_Marks | None] = [None] * (len(chain) + 1)
        self.written = bytearray(size)
        self.updated = False
        self.dropped = False

    def marks(self, frame: int) -> _Marks:
        """The marks for one frame of the chain, made when first needed."""
        found = self.frames[frame]
        if found is None:
            found = self.frames[frame] = _Marks(self.size)
        return found

    def live_before(self, index: int, frame: int) -> int:
        """Mask of slots of `frame` that may be read at or after instruction `index`."""
        found = self.frames[frame]
        return found.live[index - self.start] if found is not None else 0


class StackLiveness:
    """All instances of one verification. watcher: hears how marks change, None for nobody."""

    def __init__(self, layout: Layout, watcher: Watcher | None = None):
        self.layout = layout
        self.watcher = watcher
        self.instances: dict[tuple[Chain, int], Instance] = {}
        self.current: Instance | None = None
        self.pending: dict[int, int] = {}

    def lookup(self, state: State, frame: int) -> Instance:
        """The instance of frame `frame` of `state`."""
        frames = state.frames
        chain = tuple(frames[i + 1].callsite for i in range(frame))
        return self._instance(chain, frames[frame].subprog)

    def _instance(self, chain: Chain, number: int) -> Instance:
        key = (chain, number)
        found = self.instances.get(key)
        if found is None:
            function = self.layout.functions[number]
            found = Instance(chain, number, function.start, function.end - function.start)
            self.instances[key] = found
        return found

    def read(self, state: State, frame: int, index: int, mask: int) -> None:
        """Instruction `index` may read the slots of `mask`."""
        if self.current is None:
            self.current = self.lookup(state, len(state.frames) - 1)
        self._read(self.current, frame, index, mask)

    @staticmethod
    def _read(instance: Instance, frame: int, index: int, mask: int) -> None:
        marks = instance.marks(frame)
        position = index - instance.start
        before = marks.read[position]
        after = before | mask
        if after != before:
            if after & ~marks.live[position]:
                instance.updated = True
            marks.read[position] = after

    def write(self, frame: int, mask: int) -> None:
        """The instruction being checked overwrites all of the slots of `mask`."""
        self.pending[frame] = self.pending.get(frame, 0) | mask

    def begin(self, state: State) -> None:
        """Before an instruction that may touch the stack."""
        if self.current is None:
            self.current = self.lookup(state, len(state.frames) - 1)
        if self.pending:
            self.pending = {}

    def commit(self, index: int) -> None:
        """After it: what it overwrites on every way it was reached."""
        if self.current is not None:
            self._commit(self.current, index)

    def _commit(self, instance: Instance, index: int) -> None:
        position = index - instance.start
        seen = instance.written[position]
        pending = self.pending
        if not pending and not seen:
            instance.written[position] = 1
            return
        for frame in range(len(instance.chain) + 1):
            mask = pending.get(frame, 0)
            if not mask and not seen:
                continue
            marks = instance.marks(frame)
            # The kernel reads the old mask into 32 bits here, so slots below fp-256 keep what was seen first.
            old = marks.write[position] & 0xFFFFFFFF
            if seen:
                mask &= old
            if old != mask:
                marks.write[position] = mask
                instance.updated = True
            if old & ~mask:
                instance.dropped = True
        instance.written[position] = 1

    def refresh(self, state: State) -> None:
        """Bring the instances of the state's frames up to date; after every path end and function exit."""
        self.current = None
        for frame in range(len(state.frames) - 1, -1, -1):
            instance = self.lookup(state, frame)
            if instance.updated:
                self._update(instance)
                instance.updated = False
                instance.dropped = False

    def _update(self, instance: Instance) -> None:
        if instance.dropped:
            for marks in instance.frames:
                if marks is not None:
                    marks.write_all = [0] * instance.size
        if self.watcher is not None and self.watcher.every_state:
            self._watched_update(instance, self.watcher)
        else:
            for marks in instance.frames:
                if marks is not None:
                    _fixed_point(marks, self.layout.successors, instance.start, instance.size)
        if instance.chain:
            self._to_caller(instance)

    def _watched_update(self, instance: Instance, watcher: Watcher) -> None:
        """The fixed point in the kernel's order, all frames in turn, every change told."""
        order = self.layout.postorder(instance.function)
        successors, start, prune = self.layout.successors, instance.start, self.layout.prune
        chain = (*instance.chain, start)
        rounds, changed = 0, True
        while changed:
            rounds += 1
            changed = False
            for frame, marks in enumerate(instance.frames):
                for index in order if marks is not None else ():
                    assert marks is not None
                    position = index - start
                    found = _flow(marks, position, successors[index], start)
                    old = marks.live[position], marks.write_all[position]
                    if found is None or found == old:
                        continue
                    changed = True
                    if marks.read[position] or marks.write[position] or not position or prune[index]:
                        watcher.live_stack(chain, frame, index, old, found)
                    marks.live[position], marks.write_all[position] = found
        watcher.live_rounds(chain, rounds)

    def _to_caller(self, instance: Instance) -> None:
        """What the function does to outer frames, as marks of the call instruction."""
        chain = instance.chain
        callsite = chain[-1]
        outer = self._instance(chain[:-1], self.layout.function_at(callsite))
        self.pending = {}
        for frame in range(len(chain)):
            marks = instance.frames[frame]
            if marks is None:
                continue
            self.write(frame, marks.write_all[0])
            self._read(outer, frame, callsite, marks.live[0])
        self._commit(outer, callsite)
        self.pending = {}

    def live_slots(self, state: State) -> list[int]:
        """Mask of live slots of every frame of a checkpoint."""
        last = len(state.frames) - 1
        instances = [self.lookup(state, frame) for frame in range(last + 1)]
        innermost = instances[last]
        masks = []
        for frame in range(last + 1):
            mask = innermost.live_before(state.insn, frame)
            for outer in range(frame, last):
                callsite = innermost.chain[outer]
                # A helper that calls back is reached again; after an ordinary call the next instruction is.
                again = self.layout.callback[callsite] and self.layout.rules.callback_rounds
                point = callsite if again else callsite + 1
                mask |= instances[outer].live_before(point, frame)
            masks.append(mask)
        return masks


def _flow(marks: _Marks, position: int, following: tuple[int, ...], start: int) -> tuple[int, int] | None:
    """(live before, written on all ways on) of one instruction by those that follow it; None for the last one."""
    if not following:
        return None
    after, every = 0, _ALL
    for target in following:
        if target - start < len(marks.live):
            after |= marks.live[target - start]
            every &= marks.write_all[target - start]
    return (after & ~marks.write[position]) | marks.read[position], every | marks.write[position]


def _fixed_point(marks: _Marks, successors: list[tuple[int, ...]], start: int, size: int) -> None:
    live, write_all, read, write = marks.live, marks.write_all, marks.read, marks.write
    changed = True
    while changed:
        changed = False
        for position in range(size - 1, -1, -1):
            following = successors[start + position]
            if not following:
                continue
            after, every = 0, _ALL
            for target in following:
                if target - start < size:
                    after |= live[target - start]
                    every &= write_all[target - start]
            every |= write[position]
            before = (after & ~write[position]) | read[position]
            if before != live[position] or every != write_all[position]:
                live[position] = before
                write_all[position] = every
                changed = True
