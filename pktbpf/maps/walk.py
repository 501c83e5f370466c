"""Entry after entry of a map, for bpf_for_each_map_elem: a cursor, the key copied out, a pointer to the value."""

from __future__ import annotations

import numpy as np

from pktbpf.abi.map_kinds import BY_NAME
from pktbpf.hot import Scalar, Words, hot, peek32, poke32
from pktbpf.maps import hashtab
from pktbpf.maps.dispatch import processor
from pktbpf.maps.layout import CPUS, HEADS_AT, KEY_SIZE, KIND, LINKS_AT, MASK, MAX_ENTRIES, STRIDE, copy, pointer

ARRAY, PERCPU_ARRAY = (BY_NAME[n].number for n in ("ARRAY", "PERCPU_ARRAY"))
_U0, _U1, _U4, _U32 = (np.uint64(n) for n in (0, 1, 4, 32))
_LOW = np.uint64(0xFFFFFFFF)


@hot
def following(row: Words, number: Scalar, cursor: Scalar, key: Scalar, cpu: Scalar) -> Scalar:
    """(new cursor, pointer to the value) of the entry after the cursor (0: the first), its key copied to the machine
    address `key`; pointer 0 after the last."""
    kind = np.int64(row[KIND])
    if kind == ARRAY or kind == PERCPU_ARRAY:
        if cursor >= row[MAX_ENTRIES]:
            return cursor, _U0
        poke32(key, cursor)
        return cursor + _U1, pointer(number, (cursor * row[CPUS] + processor(row, cpu)) * row[STRIDE])
    return _hash_following(row, number, cursor, key, cpu)


@hot
def _hash_following(row: Words, number: Scalar, cursor: Scalar, key: Scalar, cpu: Scalar) -> Scalar:
    """The cursor holds the bucket in its upper half and the slot to go on with in its lower (0: the bucket's end).

    The next slot is remembered before the callback runs, so that it may delete the entry it is at.
    """
    bucket, slot = cursor >> _U32, cursor & _LOW
    while slot == _U0:
        if bucket > row[MASK] or row[HEADS_AT] == _U0:
            return cursor, _U0
        slot = peek32(row[HEADS_AT] + bucket * _U4)
        bucket += _U1
    copy(key, hashtab.key_of(row, slot), row[KEY_SIZE])
    following = peek32(row[LINKS_AT] + slot * _U4)
    return bucket << _U32 | following, pointer(number, hashtab.value_offset(row, slot, processor(row, cpu)))
