"""RINGBUF and USER_RINGBUF: records with 8-byte headers and positions that only grow (kernel/bpf/ringbuf.c).

The memory is twice the ring's size, so that a record which wraps stays in one piece. In the kernel the second half is
the same pages again; here it is made equal where a record reaches into it, since what lay there before can be read in a
new record. Header: uint32 length with the busy and discard bits, uint32 page offset. STATE: consumer,
producer and pending position.
"""

from __future__ import annotations

import numpy as np

from pktbpf.hot import Scalar, Words, hot, peek32, peek64, poke32, poke64
from pktbpf.maps.layout import (
    E2BIG,
    EAGAIN,
    EINVAL,
    ENODATA,
    MAX_ENTRIES,
    STATE_AT,
    VALUES_AT,
    VALUES_SIZE,
    copy,
    pointer,
)

CONSUMER, PRODUCER, PENDING = (np.uint64(8 * n) for n in range(3))
BUSY, DISCARD = np.uint64(1 << 31), np.uint64(1 << 30)
HEADER = np.uint64(8)
NO_WAKEUP, FORCE_WAKEUP = 1, 2
_U0, _U1, _U2, _U3, _U4, _U7, _U12 = (np.uint64(n) for n in (0, 1, 2, 3, 4, 7, 12))
_DATA_PAGE = np.uint64(3)  # the data begin three pages after the kernel's structure
_LARGEST = np.uint64(0xFFFFFFFF // 4)
_LARGEST_DYNPTR = np.uint64((1 << 24) - 1)
_WAKEUP = np.uint64(NO_WAKEUP | FORCE_WAKEUP)
_LENGTH = np.uint64((1 << 30) - 1)


@hot
def _whole(size: Scalar) -> Scalar:
    """Bytes that a record of `size` takes with its header."""
    return (size + HEADER + _U7) & ~_U7


@hot
def _settle(row: Words) -> Scalar:
    """Move the pending position over records that are no longer busy; returns it."""
    state = row[STATE_AT]
    at, end = peek64(state + PENDING), peek64(state + PRODUCER)
    while at < end:
        mark = peek32(row[VALUES_AT] + (at & (row[MAX_ENTRIES] - _U1)))
        if mark & BUSY:
            break
        at += _whole(mark & ~DISCARD)
    poke64(state + PENDING, at)
    return at


@hot
def reserve(row: Words, number: Scalar, size: Scalar, flags: Scalar) -> Scalar:
    """Pointer to the bytes of a new busy record, 0 when flags are set or there is no room."""
    if flags != _U0 or size > _LARGEST or _whole(size) > row[MAX_ENTRIES]:
        return _U0
    state, mask = row[STATE_AT], row[MAX_ENTRIES] - _U1
    begin = peek64(state + PRODUCER)
    end = begin + _whole(size)
    if end - peek64(state + CONSUMER) > mask or end - _settle(row) > mask:
        return _U0
    offset = begin & mask
    over = offset + _whole(size)
    if over > row[MAX_ENTRIES]:
        copy(row[VALUES_AT] + row[MAX_ENTRIES], row[VALUES_AT], over - row[MAX_ENTRIES])
    poke32(row[VALUES_AT] + offset, size | BUSY)
    poke32(row[VALUES_AT] + offset + _U4, (offset >> _U12) + _DATA_PAGE)
    poke64(state + PRODUCER, end)
    return pointer(number, offset + HEADER)


@hot
def commit(row: Words, offset: Scalar, discard: Scalar) -> None:
    """Submit or discard the record whose bytes are at `offset` of the map's memory (low half of the pointer)."""
    place = row[VALUES_AT] + offset - HEADER
    mark = peek32(place) & ~BUSY
    over = offset - HEADER + _whole(mark & _LENGTH)
    if over > row[MAX_ENTRIES] and over <= row[VALUES_SIZE]:
        copy(row[VALUES_AT], row[VALUES_AT] + row[MAX_ENTRIES], over - row[MAX_ENTRIES])
    poke32(place, mark | DISCARD if discard else mark)


@hot
def output(row: Words, data: Scalar, size: Scalar, flags: Scalar) -> Scalar:
    """Copy `size` bytes at a machine address into a new record: 0, -EINVAL for flags, -EAGAIN for no room."""
    if flags & ~_WAKEUP:
        return -EINVAL
    record = reserve(row, _U0, size, _U0)
    if record == _U0:
        return -EAGAIN
    copy(row[VALUES_AT] + record, data, size)
    commit(row, record, False)
    return 0


@hot
def query(row: Words, what: Scalar) -> Scalar:
    """BPF_RB_AVAIL_DATA, RING_SIZE, CONS_POS, PROD_POS (0 to 3); 0 for anything else."""
    state = row[STATE_AT]
    if what == _U0:
        return peek64(state + PRODUCER) - peek64(state + CONSUMER)
    if what == _U1:
        return row[MAX_ENTRIES]
    if what == _U2:
        return peek64(state + CONSUMER)
    return peek64(state + PRODUCER) if what == _U3 else _U0


@hot
def user_peek(row: Words) -> Scalar:
    """(0 or -errno, offset, size) of the next record that user space produced (__bpf_user_ringbuf_peek).

    -EAGAIN: a discarded record was skipped, ask again. -ENODATA: nothing more.
    """
    state, mask = row[STATE_AT], row[MAX_ENTRIES] - _U1
    end, at = peek64(state + PRODUCER), peek64(state + CONSUMER)
    if end & _U7:
        return -EINVAL, _U0, _U0
    if at >= end:
        return -ENODATA, _U0, _U0
    mark = peek32(row[VALUES_AT] + (at & mask))
    size = mark & _LENGTH
    whole = _whole(size)
    if whole > end - at:
        return -EINVAL, _U0, _U0
    if whole > row[MAX_ENTRIES] or size > _LARGEST_DYNPTR:
        return -E2BIG, _U0, _U0
    if mark & DISCARD:
        poke64(state + CONSUMER, at + whole)
        return -EAGAIN, _U0, _U0
    if mark & BUSY:
        return -ENODATA, _U0, _U0
    return 0, (at & mask) + HEADER, size


@hot
def user_release(row: Words, size: Scalar) -> None:
    """The record of `size` bytes that user_peek gave is done with."""
    state = row[STATE_AT]
    poke64(state + CONSUMER, peek64(state + CONSUMER) + _whole(size))
