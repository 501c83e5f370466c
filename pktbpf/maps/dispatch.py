"""Which family serves a map: the compiled operations that programs call on arrays and plain hash tables, by kind.

`dispatch_more` has the same for every kind.

One line per kind in each function. Keys and values are machine addresses of at least key_size and value_size bytes;
results are a program's pointer (0 for none) or 0 / -errno.
"""

from __future__ import annotations

import numpy as np

from pktbpf.abi.map_kinds import BY_NAME
from pktbpf.hot import Scalar, Words, hot
from pktbpf.maps import array, hashtab
from pktbpf.maps.layout import CPUS, EINVAL, KIND

HASH, ARRAY, PERCPU_HASH, PERCPU_ARRAY = (BY_NAME[n].number for n in ("HASH", "ARRAY", "PERCPU_HASH", "PERCPU_ARRAY"))
_U0 = np.uint64(0)


@hot
def processor(row: Words, cpu: Scalar) -> Scalar:
    """Which of the map's values per entry a processor has; a map made for fewer processors shares them out."""
    return cpu if cpu < row[CPUS] else cpu % row[CPUS]


@hot
def lookup(row: Words, number: Scalar, key: Scalar, cpu: Scalar) -> Scalar:
    """Pointer to the value of a key for a processor, 0 for none."""
    kind = np.int64(row[KIND])
    place = processor(row, cpu)
    if kind == ARRAY or kind == PERCPU_ARRAY:
        return array.lookup(row, number, key, place)
    if kind == HASH or kind == PERCPU_HASH:
        return hashtab.lookup(row, number, key, place)
    return _U0


@hot
def update(row: Words, key: Scalar, value: Scalar, flags: Scalar, cpu: Scalar) -> Scalar:
    """0 or -errno."""
    kind = np.int64(row[KIND])
    place = processor(row, cpu)
    if kind == ARRAY or kind == PERCPU_ARRAY:
        return array.update(row, key, value, flags, place)
    if kind == HASH or kind == PERCPU_HASH:
        return hashtab.update(row, key, value, flags, place)
    return -EINVAL


@hot
def delete(row: Words, key: Scalar) -> Scalar:
    """0 or -errno."""
    kind = np.int64(row[KIND])
    if kind == HASH or kind == PERCPU_HASH:
        return hashtab.delete(row, key)
    return -EINVAL
