"""The user-space side of ring buffers, perf event arrays and queues: records out, records in.

What is read is gone afterwards unless the caller says otherwise; looking at a queue takes nothing out.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from pktbpf.errors import MapError
from pktbpf.maps import layout, perf
from pktbpf.maps.layout import round_up

BUSY, DISCARD, HEADER = 1 << 31, 1 << 30, 8
_CONSUMER, _PRODUCER = 0, 1


class Event(NamedTuple):
    """One bpf_perf_event_output. slot: index in the array, the processor with BPF_F_CURRENT_CPU. time: nanoseconds."""

    slot: int
    time: int
    data: bytes


def _want(m: Any, kind: str, what: str) -> None:
    if m.kind != kind:
        raise MapError(errno.EINVAL, f"{m.title}: {what} are in a {kind}")


def _position(m: Any, which: int) -> int:
    return int(m.storage.blocks[0][which])


def records(m: Any, consume: bool = True) -> list[bytes]:
    """Submitted records from the consumer position on, up to the first that is still reserved; discarded ones are
    passed over. consume: move the position behind them, which makes room; False leaves them for the next call."""
    _want(m, "RINGBUF", "records")
    base, mask = int(m.row[layout.VALUES_AT]), m.spec.max_entries - 1
    at, end = _position(m, _CONSUMER), _position(m, _PRODUCER)
    out: list[bytes] = []
    while at < end:
        place = base + (at & mask)
        mark = ctypes.c_uint32.from_address(place).value
        if mark & BUSY:
            break
        size = mark & ~DISCARD
        if at + HEADER + size > end:  # only an unchecked program can have written over a header
            at = end
            break
        if not mark & DISCARD:
            out.append(ctypes.string_at(place + HEADER, size))
        at += round_up(size + HEADER)
    if consume:
        m.storage.blocks[0][_CONSUMER] = np.uint64(at)
    return out


def produce(m: Any, data: bytes, discard: bool) -> int:
    """Write a record for the program's drain helper: 0, -E2BIG for one larger than the ring, -ENOSPC for no room."""
    _want(m, "USER_RINGBUF", "records to produce")
    whole = round_up(len(data) + HEADER)
    if whole > m.spec.max_entries:
        return -errno.E2BIG
    at = _position(m, _PRODUCER)
    if at + whole - _position(m, _CONSUMER) > m.spec.max_entries:
        return -errno.ENOSPC
    place = int(m.row[layout.VALUES_AT]) + (at & (m.spec.max_entries - 1))
    header = struct.pack("<II", len(data) | (DISCARD if discard else 0), 0)
    ctypes.memmove(place, header + data, HEADER + len(data))
    m.storage.blocks[0][_PRODUCER] = np.uint64(at + whole)
    return 0


def events(m: Any, consume: bool = True) -> list[Event]:
    """All events since the buffer was last emptied, in the order they were put out. consume: empty it; False leaves
    them for the next call. What `lost` counts stays either way."""
    _want(m, "PERF_EVENT_ARRAY", "events")
    end = _position(m, 0)
    raw = ctypes.string_at(int(m.row[layout.AUX_AT]), end) if end else b""
    out, at = [], 0
    while at + perf.HEADER <= end:
        size, index, time = struct.unpack_from("<IIQ", raw, at)
        out.append(Event(index, time, raw[at + perf.HEADER : at + perf.HEADER + size]))
        at += perf.HEADER + round_up(size)
    if consume:
        m.storage.blocks[0][0] = np.uint64(0)
    return out


def lost(m: Any) -> int:
    """Events of a PERF_EVENT_ARRAY that found no room in the buffer since the map was made; 0 for other kinds."""
    return _position(m, 1) if m.kind == "PERF_EVENT_ARRAY" else 0


def queued(m: Any) -> Iterator[bytes]:
    """Values of a queue or stack in the order they would be popped; they stay there."""
    head, tail, size = _position(m, 0), _position(m, 1), m.spec.max_entries + 1
    indices = [(tail + n) % size for n in range((head - tail) % size)]
    base = int(m.row[layout.VALUES_AT])
    for index in reversed(indices) if m.kind == "STACK" else indices:
        yield ctypes.string_at(base + index * m.spec.value_size, m.spec.value_size)
