"""QUEUE and STACK: a ring of max_entries + 1 values (kernel/bpf/queue_stack_maps.c). STATE: head and tail index."""

from __future__ import annotations

import numpy as np

from pktbpf.abi.map_kinds import BY_NAME
from pktbpf.hot import Scalar, Words, hot, peek64, poke64
from pktbpf.maps.layout import (
    BPF_EXIST,
    BPF_NOEXIST,
    E2BIG,
    EINVAL,
    ENOENT,
    KIND,
    MAX_ENTRIES,
    STATE_AT,
    VALUE_SIZE,
    VALUES_AT,
    clear,
    copy,
)

HEAD, TAIL = np.uint64(0), np.uint64(8)
_U0, _U1 = np.uint64(0), np.uint64(1)
_EXIST, _NOEXIST = np.uint64(BPF_EXIST), np.uint64(BPF_NOEXIST)
_STACK = np.uint64(BY_NAME["STACK"].number)


@hot
def _advance(row: Words, which: Scalar) -> None:
    place = row[STATE_AT] + which
    index = peek64(place) + _U1
    poke64(place, index if index <= row[MAX_ENTRIES] else _U0)


@hot
def push(row: Words, value: Scalar, flags: Scalar) -> Scalar:
    """0 or -errno; BPF_EXIST drops the oldest value of a full ring. value: machine address."""
    if flags & _NOEXIST or flags > _EXIST:
        return -EINVAL
    head = peek64(row[STATE_AT] + HEAD)
    following = head + _U1 if head < row[MAX_ENTRIES] else _U0
    if following == peek64(row[STATE_AT] + TAIL):
        if not flags & _EXIST:
            return -E2BIG
        _advance(row, TAIL)
    copy(row[VALUES_AT] + head * row[VALUE_SIZE], value, row[VALUE_SIZE])
    _advance(row, HEAD)
    return 0


@hot
def get(row: Words, value: Scalar, remove: Scalar) -> Scalar:
    """0, or -ENOENT and a zeroed value. The queue's oldest or the stack's newest value goes to a machine address."""
    head, tail = peek64(row[STATE_AT] + HEAD), peek64(row[STATE_AT] + TAIL)
    if head == tail:
        clear(value, row[VALUE_SIZE])
        return -ENOENT
    index = tail
    if row[KIND] == _STACK:
        index = head - _U1 if head != _U0 else row[MAX_ENTRIES]
    copy(value, row[VALUES_AT] + index * row[VALUE_SIZE], row[VALUE_SIZE])
    if remove:
        if row[KIND] == _STACK:
            poke64(row[STATE_AT] + HEAD, index)
        else:
            _advance(row, TAIL)
    return 0
