"""Which parts of the compiled loop a linked program needs, and the state that the rarer helpers keep between packets.

The loop's parameters for helpers are None where a program calls none of a group, and that group is not compiled then:
`basic` or `world` (maps, time, packet bytes), and of the rare ones `kinds` (maps other than arrays and plain hash
tables), `rings` (ring buffers, perf events, dynptrs), `text` (strings and traces), `timers` (timers, kptr_xchg),
`kernel` (kernel functions).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pktbpf.engine import (
    basic_helpers,
    common_helpers,
    control_helpers,
    rare_kernel,
    rare_maps,
    rare_rings,
    rare_text,
    rare_timers,
)  # fmt: skip
from pktbpf.engine.linker import Linked
from pktbpf.hot import Bytes, Words
from pktbpf.maps import dispatch_more

COMMON = common_helpers.NUMBERS | control_helpers.NUMBERS
RINGS = rare_rings.NUMBERS | {control_helpers.DRAIN}
ALL_HELPERS = COMMON | rare_maps.NUMBERS | RINGS | rare_text.NUMBERS | rare_timers.NUMBERS
# Kinds that only their own helpers take.
WITHOUT_ELEMENTS = {"PROG_ARRAY", "RINGBUF", "USER_RINGBUF", "PERF_EVENT_ARRAY", "STACK_TRACE", "CGROUP_ARRAY"}
TRACES = 64 << 20  # bytes of traces that are kept for trace_records()


@dataclass(slots=True)
class Groups:
    """What of the loop to compile for a program."""

    basic: bool
    world: bool
    kinds: bool
    rings: bool
    text: bool
    timers: bool
    kernel: bool = False

    @classmethod
    def of(cls, linked: Linked) -> Groups:
        """By the helpers that the linked programs call and the maps they name."""
        calls, maps = linked.calls, linked.maps.values()
        kinds = {m.kind for m in maps} | {m.inner.kind for m in maps if m.inner is not None}
        world = bool(kinds) or not calls <= basic_helpers.NUMBERS
        return cls(
            basic=bool(calls) and not world,
            world=world,
            kinds=bool(calls & rare_maps.NUMBERS) or dispatch_more.needed(kinds - WITHOUT_ELEMENTS),
            rings=bool(calls & RINGS),
            text=bool(calls & rare_text.NUMBERS),
            timers=bool(calls & rare_timers.NUMBERS),
            kernel=bool(calls & rare_kernel.NUMBERS),
        )


def _zeros(count: int) -> Words:
    return np.zeros(count, dtype=np.uint64)


@dataclass(slots=True)
class RareState:
    """Memory of the rare groups of one runner, made when a group is first needed and kept from run to run."""

    text: Words | None = None
    traces: Bytes | None = None
    packed: Words | None = None
    timers: Words | None = None
    words: Words | None = None
    seed: int = 0

    def words_at(self) -> np.uint64:
        """Machine address of the copied words of bit iterators, a place for each stack slot."""
        if self.words is None:
            self.words = _zeros(rare_kernel.STACK_SLOTS * rare_kernel.BITS_BYTES // 8)
        return np.uint64(self.words.ctypes.data)

    def text_at(self) -> np.uint64:
        """Machine address of the state of text helpers, with room for traces."""
        if self.text is None:
            self.text, self.traces, self.packed = _zeros(rare_text.TEXT_STATE), np.zeros(TRACES, np.uint8), _zeros(256)
            for where, value in (
                (rare_text.T_BUFFER, self.traces.ctypes.data), (rare_text.T_ROOM, TRACES),
                (rare_text.T_PACKED, self.packed.ctypes.data), (rare_text.T_KEY, self.seed * 0x9E3779B97F4A7C15 + 1),
            ):  # fmt: skip
                self.text[int(where) // 8] = value & (1 << 64) - 1
        return np.uint64(self.text.ctypes.data)

    def timers_at(self) -> np.uint64:
        """Machine address of the table of timers."""
        if self.timers is None:
            self.timers = _zeros(rare_timers.TIMER_STATE + rare_timers.TIMERS * rare_timers.TIMER_ENTRY)
            self.timers[int(rare_timers.T_NEXT) // 8] = rare_timers.NEVER
            self.timers[int(rare_timers.T_FREE) // 8] = 1
        return np.uint64(self.timers.ctypes.data)
