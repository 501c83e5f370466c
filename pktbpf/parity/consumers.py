"""Readers of what a program hands out while both sides run: records of ring buffers and perf events, in order.

The readers of both sides come by after the same packets, so a ring buffer is full at the same packet on both. A perf
ring of the kernel is smaller than our buffer of perf events; so that it does not lose what we keep, a program with one
runs over few packets between two visits. What is lost all the same is counted.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from pktbpf.kernel import rings
from pktbpf.kernel.loading import Loaded
from pktbpf.kernel.maps import LiveMap
from pktbpf.kernel.perf_events import PerfReader
from pktbpf.maps.face import Map

OUTGOING = frozenset({"RINGBUF", "PERF_EVENT_ARRAY"})
_STEP = 16  # packets between two visits: 32 KiB for the events of each
_Taken = dict[str, dict[bytes, bytes]]


class Consumers:
    """What came out so far, by map and key: the number of a record; of an event its number and the processor's.

    variants: our maps by name, of each of our runs. `open` once the program is loaded; raises KernelUnavailable where
    perf events are not allowed. Close it.
    """

    def __init__(self, variants: Sequence[Mapping[str, Map]], loaded: Loaded):
        self._variants = variants
        self._loaded = loaded
        self._specs = {name: one.spec for name, one in variants[0].items() if one.kind in OUTGOING}
        self._live: dict[str, LiveMap] = {}
        self._readers: dict[str, PerfReader] = {}
        self._kernel: _Taken = {name: {} for name in self._specs}
        self._ours: list[_Taken] = [{name: {} for name in self._specs} for _ in variants]

    def open(self) -> None:
        """Put the kernel's readers in place."""
        for name, spec in self._specs.items():
            self._live[name] = self._loaded.live(spec)
            if spec.kind == "PERF_EVENT_ARRAY":
                self._readers[name] = PerfReader(self._live[name].fd, spec.max_entries)

    @property
    def step(self) -> int | None:
        """After how many packets at the latest to call `drain`; None for any number."""
        return _STEP if any(spec.kind == "PERF_EVENT_ARRAY" for spec in self._specs.values()) else None

    def drain(self) -> None:
        """Take out what is there, on both sides."""
        for name, spec in self._specs.items():
            taken = self._kernel[name]
            if name in self._readers:
                for sample in self._readers[name].read():
                    taken[_event_key(taken, sample.cpu)] = sample.data
            else:
                for record in rings.records(self._live[name].fd, spec.max_entries):
                    taken[len(taken).to_bytes(4, "little")] = record
            for maps, own in zip(self._variants, self._ours, strict=True):
                _take(maps[name], own[name])

    def kernel(self, name: str) -> Mapping[bytes, bytes]:
        """What the kernel handed out; events with perf's padding."""
        return self._kernel[name]

    def ours(self, number: int, name: str) -> Mapping[bytes, bytes]:
        """What our run `number` handed out."""
        return self._ours[number][name]

    def lost(self, name: str) -> tuple[int, int]:
        """Events that found no room, in the kernel's ring and in our buffer: (0, 0) but for a perf event array."""
        reader = self._readers.get(name)
        return (reader.lost, self._variants[0][name].lost) if reader is not None else (0, 0)

    def close(self) -> None:
        """Take the readers away."""
        for reader in self._readers.values():
            reader.close()
        for live in self._live.values():
            live.close()
        self._readers, self._live = {}, {}


def _take(one: Map, taken: dict[bytes, bytes]) -> None:
    if one.kind == "RINGBUF":
        for record in one.records():
            taken[len(taken).to_bytes(4, "little")] = record
    else:
        for event in one.events():
            taken[_event_key(taken, event.slot)] = event.data


def _event_key(taken: Mapping[bytes, bytes], cpu: int) -> bytes:
    return struct.pack("<II", len(taken), cpu)
