"""PERF_EVENT_ARRAY: what programs put out, kept for Python as if libbpf's perf_buffer read it.

That is: every possible processor has an event at the index of its own number, and the reader never falls behind. Output
to another processor's index is EOPNOTSUPP, to one that no processor has ENOENT, as in the kernel then.

The memory (row[AUX_AT], row[MASK] bytes, not reachable by programs) takes one record after the other: uint32 size of
the data, uint32 index, uint64 time, the data padded to 8 bytes. STATE: bytes used, records lost for lack of room.
"""

from __future__ import annotations

import numpy as np

from pktbpf.hot import Scalar, Words, hot, peek64, poke32, poke64
from pktbpf.maps.layout import (
    AUX_AT,
    CPUS,
    E2BIG,
    EINVAL,
    ENOENT,
    ENOSPC,
    EOPNOTSUPP,
    MASK,
    MAX_ENTRIES,
    STATE_AT,
    copy,
)  # fmt: skip

USED, LOST = np.uint64(0), np.uint64(8)
HEADER = 16
_U0, _U1, _U4, _U7, _U8, _U20, _U32 = (np.uint64(n) for n in (0, 1, 4, 7, 8, 20, 32))
_HEADER = np.uint64(HEADER)
_INDEX = np.uint64(0xFFFFFFFF)  # BPF_F_INDEX_MASK; all ones is BPF_F_CURRENT_CPU
_CONTEXT = np.uint64(0xFFFFF << 32)  # BPF_F_CTXLEN_MASK


@hot
def packet_bytes(flags: Scalar) -> Scalar:
    """How many bytes of the packet the flags ask to append."""
    return (flags & _CONTEXT) >> _U32


@hot
def output(
    row: Words, flags: Scalar, cpu: Scalar, time: Scalar, data: Scalar, size: Scalar, packet: Scalar
) -> Scalar:  # fmt: skip
    """Append `size` bytes at `data` and, as the flags say, bytes at `packet` (machine addresses both): 0 or -errno.

    time: nanoseconds. The caller has checked that the packet has as many bytes (-EFAULT otherwise).
    """
    if flags & ~(_INDEX | _CONTEXT):
        return -EINVAL
    index = flags & _INDEX
    if index == _INDEX:
        index = cpu
    if index >= row[MAX_ENTRIES]:
        return -E2BIG
    if index != cpu:
        return -EOPNOTSUPP if index < row[CPUS] else -ENOENT
    extra = packet_bytes(flags)
    used = peek64(row[STATE_AT] + USED)
    end = (used + _HEADER + size + extra + _U7) & ~_U7
    if end > row[MASK]:
        poke64(row[STATE_AT] + LOST, peek64(row[STATE_AT] + LOST) + _U1)
        return -ENOSPC
    place = row[AUX_AT] + used
    poke32(place, size + extra)
    poke32(place + _U4, index)
    poke64(place + _U8, time)
    copy(place + _HEADER, data, size)
    copy(place + _HEADER + size, packet, extra)
    poke64(row[STATE_AT] + USED, end)
    return 0
