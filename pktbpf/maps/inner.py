"""ARRAY_OF_MAPS and HASH_OF_MAPS for programs: slots of 8 bytes at row[AUX_AT] with the number of a map, 0 for none.

What stands in a slot is the map's place in the registry's table; the Python object that holds the outer map holds the
inner ones as well, so a number in a slot is always that of a live map. Only the system call changes the slots.
"""

from __future__ import annotations

import numpy as np

from pktbpf.hot import Scalar, Words, hot, peek32, peek64
from pktbpf.maps import hashtab
from pktbpf.maps.layout import AUX_AT, MAP_POINTER, MAX_ENTRIES

_U0, _U1, _U8, _U32 = (np.uint64(n) for n in (0, 1, 8, 32))


@hot
def _pointer_at(row: Words, slot: Scalar) -> Scalar:
    number = peek64(row[AUX_AT] + slot * _U8)
    return _U0 if number == _U0 else MAP_POINTER | number << _U32


@hot
def array_lookup(row: Words, key: Scalar) -> Scalar:
    """Pointer to the map at an index, 0 for none. key: machine address."""
    index = peek32(key)
    return _U0 if index >= row[MAX_ENTRIES] else _pointer_at(row, index)


@hot
def hash_lookup(row: Words, key: Scalar) -> Scalar:
    """Pointer to the map of a key, 0 for none."""
    slot = hashtab.slot_of(row, key)
    return _U0 if slot == _U0 else _pointer_at(row, slot - _U1)
