"""BLOOM_FILTER: bits by jhash of the value with seeds 0, 1, ... (kernel/bpf/bloom_filter.c).

The bits are at row[AUX_AT], row[MASK] is their number less one, row[HASHES] the number of hash functions.
"""

from __future__ import annotations

import numpy as np

from pktbpf.hot import Scalar, Words, hot, peek8, poke8
from pktbpf.maps.jhash import jhash
from pktbpf.maps.layout import AUX_AT, EINVAL, ENOENT, HASHES, MASK, VALUE_SIZE

_U0, _U1, _U3, _U7 = (np.uint64(n) for n in (0, 1, 3, 7))


@hot
def push(row: Words, value: Scalar, flags: Scalar) -> Scalar:
    """0 or -EINVAL. value: machine address."""
    if flags != _U0:
        return -EINVAL
    index = _U0
    while index < row[HASHES]:
        bit = jhash(value, row[VALUE_SIZE], index) & row[MASK]
        place = row[AUX_AT] + (bit >> _U3)
        poke8(place, peek8(place) | _U1 << (bit & _U7))
        index += _U1
    return 0


@hot
def peek(row: Words, value: Scalar) -> Scalar:
    """0 when the value may have been pushed, -ENOENT when it was not."""
    index = _U0
    while index < row[HASHES]:
        bit = jhash(value, row[VALUE_SIZE], index) & row[MASK]
        if not peek8(row[AUX_AT] + (bit >> _U3)) >> (bit & _U7) & _U1:
            return -ENOENT
        index += _U1
    return 0
