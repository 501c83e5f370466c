"""Element operations of programs for every kind, and those that few kinds have. Same contract as `dispatch`.

Kept apart because compiling it takes the LRU lists, the trie and the ring buffer with it: use `dispatch` for programs
whose maps are arrays and plain hash tables only, and this for all others. `needed` tells which.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pktbpf.abi.map_kinds import BY_NAME
from pktbpf.hot import Scalar, Words, hot
from pktbpf.maps import array, bloom, dispatch, hashtab, inner, lru, queue, trie
from pktbpf.maps.layout import CPUS, EINVAL, EOPNOTSUPP, KIND

(LRU_HASH, LRU_PERCPU_HASH, LPM_TRIE, ARRAY_OF_MAPS, HASH_OF_MAPS, QUEUE, STACK, BLOOM_FILTER, PERCPU_ARRAY,
 PERCPU_HASH) = (
    BY_NAME[n].number for n in (
        "LRU_HASH", "LRU_PERCPU_HASH", "LPM_TRIE", "ARRAY_OF_MAPS", "HASH_OF_MAPS", "QUEUE", "STACK", "BLOOM_FILTER",
        "PERCPU_ARRAY", "PERCPU_HASH",
    )
)  # fmt: skip
SIMPLE = frozenset({"HASH", "ARRAY", "PERCPU_HASH", "PERCPU_ARRAY"})
_U0 = np.uint64(0)


def needed(kinds: Iterable[str]) -> bool:
    """Whether programs with maps of these kinds (inner maps included) need this module instead of `dispatch`."""
    return not SIMPLE.issuperset(kinds)


@hot
def lookup(row: Words, number: Scalar, key: Scalar, cpu: Scalar) -> Scalar:
    """Pointer to the value of a key for a processor, or to an inner map; 0 for none."""
    kind = np.int64(row[KIND])
    if kind == LRU_HASH:
        return lru.lookup(row, number, key, _U0)
    if kind == LRU_PERCPU_HASH:
        return lru.lookup(row, number, key, dispatch.processor(row, cpu))
    if kind == LPM_TRIE:
        return trie.lookup(row, number, key)
    if kind == ARRAY_OF_MAPS:
        return inner.array_lookup(row, key)
    if kind == HASH_OF_MAPS:
        return inner.hash_lookup(row, key)
    return dispatch.lookup(row, number, key, cpu)


@hot
def update(row: Words, key: Scalar, value: Scalar, flags: Scalar, cpu: Scalar) -> Scalar:
    """0 or -errno."""
    kind = np.int64(row[KIND])
    if kind == LRU_HASH or kind == LRU_PERCPU_HASH:
        return lru.update(row, key, value, flags, cpu)
    if kind == LPM_TRIE:
        return trie.update(row, key, value, flags)
    return dispatch.update(row, key, value, flags, cpu)


@hot
def delete(row: Words, key: Scalar) -> Scalar:
    """0 or -errno."""
    kind = np.int64(row[KIND])
    if kind == LRU_HASH or kind == LRU_PERCPU_HASH:
        return lru.delete(row, key)
    if kind == LPM_TRIE:
        return trie.delete(row, key)
    return dispatch.delete(row, key)


@hot
def push(row: Words, value: Scalar, flags: Scalar) -> Scalar:
    """bpf_map_push_elem: 0 or -errno. value: machine address."""
    kind = np.int64(row[KIND])
    if kind == QUEUE or kind == STACK:
        return queue.push(row, value, flags)
    if kind == BLOOM_FILTER:
        return bloom.push(row, value, flags)
    return -EINVAL


@hot
def pop(row: Words, value: Scalar) -> Scalar:
    """bpf_map_pop_elem: 0 and the value at a machine address, or -errno."""
    kind = np.int64(row[KIND])
    if kind == QUEUE or kind == STACK:
        return queue.get(row, value, True)
    return -EOPNOTSUPP


@hot
def peek(row: Words, value: Scalar) -> Scalar:
    """bpf_map_peek_elem: the value of a queue or stack; for a Bloom filter whether the value may be in it."""
    kind = np.int64(row[KIND])
    if kind == QUEUE or kind == STACK:
        return queue.get(row, value, False)
    if kind == BLOOM_FILTER:
        return bloom.peek(row, value)
    return -EOPNOTSUPP


@hot
def lookup_percpu(row: Words, number: Scalar, key: Scalar, cpu: Scalar) -> Scalar:
    """bpf_map_lookup_percpu_elem: pointer to the value of any processor, 0 for none. cpu: uint64, the helper's u32."""
    if cpu >= row[CPUS]:
        return _U0
    kind = np.int64(row[KIND])
    if kind == PERCPU_ARRAY:
        return array.lookup(row, number, key, cpu)
    if kind == PERCPU_HASH:
        return hashtab.lookup(row, number, key, cpu)
    if kind == LRU_PERCPU_HASH:
        return lru.lookup(row, number, key, cpu)
    return _U0
