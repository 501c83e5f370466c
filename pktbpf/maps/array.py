"""ARRAY and PERCPU_ARRAY: values side by side, one per index and processor (kernel/bpf/arraymap.c).

Value of index i on processor c is at (i * cpus + c) * stride. Every entry exists from the start, zeroed.
"""

from __future__ import annotations

import numpy as np

from pktbpf.hot import Scalar, Words, hot, peek32
from pktbpf.maps.layout import (
    BPF_EXIST,
    BPF_F_LOCK,
    BPF_NOEXIST,
    CPUS,
    E2BIG,
    EEXIST,
    EINVAL,
    MAX_ENTRIES,
    SPIN_LOCK,
    STRIDE,
    VALUES_AT,
    copy_value,
    pointer,
)

_U0 = np.uint64(0)
_PLAIN = np.uint64(0xFFFFFFFFFFFFFFFF ^ BPF_F_LOCK)
_LOCK, _EXIST, _NOEXIST = np.uint64(BPF_F_LOCK), np.uint64(BPF_EXIST), np.uint64(BPF_NOEXIST)


@hot
def lookup(row: Words, number: Scalar, key: Scalar, cpu: Scalar) -> Scalar:
    """Pointer to the value, 0 past the end. key: machine address."""
    index = peek32(key)
    if index >= row[MAX_ENTRIES]:
        return _U0
    return pointer(number, (index * row[CPUS] + cpu) * row[STRIDE])


@hot
def update(row: Words, key: Scalar, value: Scalar, flags: Scalar, cpu: Scalar) -> Scalar:
    """0 or -errno, in array_map_update_elem's order of checks. key, value: machine addresses."""
    index = peek32(key)
    if flags & _PLAIN > _EXIST:
        return -EINVAL
    if index >= row[MAX_ENTRIES]:
        return -E2BIG
    if flags & _NOEXIST:
        return -EEXIST
    if flags & _LOCK and row[SPIN_LOCK] == _U0:
        return -EINVAL
    copy_value(row, row[VALUES_AT] + (index * row[CPUS] + cpu) * row[STRIDE], value)
    return 0
