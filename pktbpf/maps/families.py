"""Which family answers the element and batch calls of a kind: one line per kind."""

from __future__ import annotations

from pktbpf.maps import hashtab, lru
from pktbpf.maps.elements import Array, Bloom, Family, Hash, Queue, StackTrace, Trie
from pktbpf.maps.layout import ENOTSUPP
from pktbpf.maps.references import ArrayOfMaps, Descriptors, HashOfMaps, Programs

_RING = Family(ENOTSUPP, ENOTSUPP, ENOTSUPP, ENOTSUPP)
FAMILIES: dict[str, Family] = {
    "HASH": Hash(hashtab),
    "ARRAY": Array(),
    "PROG_ARRAY": Programs(),
    "PERF_EVENT_ARRAY": Descriptors(),
    "PERCPU_HASH": Hash(hashtab),
    "PERCPU_ARRAY": Array(),
    "STACK_TRACE": StackTrace(),
    "CGROUP_ARRAY": Descriptors(),
    "LRU_HASH": Hash(lru),
    "LRU_PERCPU_HASH": Hash(lru),
    "LPM_TRIE": Trie(),
    "ARRAY_OF_MAPS": ArrayOfMaps(),
    "HASH_OF_MAPS": HashOfMaps(),
    "QUEUE": Queue(),
    "STACK": Queue(),
    "RINGBUF": _RING,
    "BLOOM_FILTER": Bloom(),
    "USER_RINGBUF": _RING,
}
