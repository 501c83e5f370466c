"""The compiled interpreter as a machine that can be stopped after any instruction, and turned back.

A run with a budget of n instructions stops after the n-th with its registers and stack in place; running again with
another budget is a step forward or back. Maps and the helpers' state are put back before every run, so each sees the
same world.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pktbpf.engine.base import Env, Fault, Skbs
from pktbpf.engine.image import OP
from pktbpf.engine.image import word as pack
from pktbpf.engine.interpreter import ENGINE
from pktbpf.engine.linker import Linked
from pktbpf.maps.face import Map
from pktbpf.program import Program, Verified

# Only the state words of these say what their memory holds.
_LOGS = ("RINGBUF", "USER_RINGBUF", "PERF_EVENT_ARRAY")


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a run stopped. slot: of the linked image, the next instruction or the last one run when it has ended.
    counts: int64[slots, 2] so far, the next instruction counted."""

    slot: int
    registers: tuple[int, ...]
    stack: bytes
    counts: NDArray[np.int64]
    ended: bool
    verdict: int
    fault: Fault


class Core:
    """One packet (a row of Skbs) and a program whose maps are live. state: the helpers' before the packet."""

    def __init__(self, verified: Verified, env: Env, skbs: Skbs, state: NDArray[np.uint64] | None = None):
        self.skbs = skbs
        self.runner = ENGINE.prepare(verified, env, coverage=True)
        self.linked: Linked = self.runner.linked
        self.budget = self.runner.budget
        self.runner.zero_memory = 512  # the whole stack, so that what is shown is not from the packet before
        if state is not None:
            self.runner.work.state[:] = state
        self._saved = [(block, block.copy()) for block in self._memory()]
        self._before: tuple[int, NDArray[np.int64]] | None = None

    def maps(self) -> dict[str, Map]:
        """All maps that the program can reach, by name."""
        found: dict[int, Map] = {}
        pending = list(self.linked.maps.values())
        while pending:
            one = pending.pop()
            if id(one) not in found:
                found[id(one)] = one
                pending += [target for target in one.targets.values() if isinstance(target, Map)]
        return {one.spec.name or f"map{number}": one for number, one in enumerate(found.values())}

    def _memory(self) -> list[NDArray[Any]]:
        blocks: list[NDArray[Any]] = [self.runner.work.state]
        for one in self.maps().values():
            blocks += one.storage.blocks[:1] if one.spec.kind in _LOGS else one.storage.blocks
        return blocks

    def _restore(self) -> None:
        for block, saved in self._saved:
            np.copyto(block, saved)

    def after(self, steps: int) -> Stop:
        """The state after so many instructions, or at the end if that comes first."""
        previous = self._before
        if steps and (previous is None or previous[0] != steps - 1):
            previous = (steps - 1, self._run(steps - 1)[0])
        counts, ended, verdict, fault = self._run(steps)
        self._before = (steps, counts)
        slot = 0
        if steps and previous is not None:
            moved = np.flatnonzero(counts[:, 0] != previous[1][:, 0])
            slot = int(moved[0]) if len(moved) else int(np.flatnonzero(counts[:, 0])[-1])
        work = self.runner.work
        registers = tuple(int(value) for value in work.regs[:11])
        return Stop(slot, registers, work.stack.tobytes(), counts, ended, verdict, fault)

    def _run(self, budget: int) -> tuple[NDArray[np.int64], bool, int, Fault]:
        self._restore()
        assert self.runner.counts is not None
        self.runner.counts[:] = 0
        self.runner.budget = min(budget, self.budget)
        outcome = self.runner.run(self.skbs)
        fault = Fault(int(outcome.fault[0]))
        ended = fault is not Fault.BUDGET or budget >= self.budget
        return self.runner.counts.astype(np.int64), ended, int(outcome.verdict[0]), fault

    def whole(self) -> Stop:
        """The end of the run."""
        counts, ended, verdict, fault = self._run(self.budget)
        registers = tuple(int(value) for value in self.runner.work.regs[:11])
        return Stop(0, registers, self.runner.work.stack.tobytes(), counts, ended, verdict, fault)

    def turned(self, slot: int, taken: bool) -> int | None:
        """The verdict had the branch at `slot` gone that way, each time. None where the run does not end."""
        word = self.linked.words[slot]
        distance = (int(word) >> 16) & 0xFFFF if taken else 0
        self.linked.words[slot] = pack(OP["JA"], off=distance)
        try:
            _, ended, verdict, fault = self._run(self.budget)
        finally:
            self.linked.words[slot] = word
        return verdict if ended and fault is Fault.NONE else None

    def restore(self) -> None:
        """Put maps and helpers' state back as they were before the packet."""
        self._restore()

    @contextmanager
    def world(self, steps: int) -> Iterator[None]:
        """Maps as they are after so many instructions."""
        self._run(steps)
        try:
            yield
        finally:
            self._restore()

    def owner(self, slot: int) -> tuple[int, Program, int]:
        """(index, program, slot in that program) of a slot of the linked image."""
        bases = [self.linked.bases[id(program)] for program in self.linked.programs]
        index = max(n for n, base in enumerate(bases) if base <= slot)
        return index, self.linked.programs[index], slot - bases[index]


def one_row(skbs: Skbs, row: int) -> Skbs:
    """One packet with bytes of its own, which stay when the reader's buffer goes on."""
    part = slice(row, row + 1)
    base, head, captured = int(skbs.base[row]), int(skbs.head[row]), max(int(skbs.captured[row]), 0)
    data = skbs.data[base - head : base + captured].copy()
    return replace(
        skbs, data=data if len(data) else np.zeros(1, dtype=np.uint8), base=skbs.head[part].copy(),
        length=skbs.length[part].copy(), captured=skbs.captured[part].copy(), head=skbs.head[part].copy(),
        meta=(skbs.meta[part] if len(skbs.meta) else skbs.meta).copy(), delivered=skbs.delivered[part].copy(),
    )  # fmt: skip
