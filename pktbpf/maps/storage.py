"""Memory and descriptor row of a new map, by kind. Everything is lazily zeroed: pages are taken when first touched.

`Storage` owns the blocks; the row holds their machine addresses. A map whose values do not fit in the 32-bit offsets of
a program's pointer, or which the machine has no address space for, ends in ENOMEM as it would in the kernel.
"""

from __future__ import annotations

import errno
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pktbpf.abi.map_kinds import BY_NAME
from pktbpf.errors import MapError
from pktbpf.maps import layout
from pktbpf.maps.attributes import PERCPU_KINDS
from pktbpf.maps.layout import round_up
from pktbpf.maps.lru_lists import BLOCK_WORDS
from pktbpf.program import MapSpec

LIMIT = 1 << 32
PERF_BUFFER = 64 << 20  # bytes of records that a PERF_EVENT_ARRAY keeps between two calls of events()
LRU_BATCH = 128


class Storage:
    """The row (uint64[WIDTH]) and the blocks of one map.

    special: (offset, size) of locks, timers and kernel pointers in a value. spin_lock: offset of the value's lock.
    possible_cpus: processors that per-CPU maps have values for and LRU tables have lists for.
    """

    def __init__(
        self, spec: MapSpec, possible_cpus: int, special: tuple[tuple[int, int], ...], spin_lock: int | None
    ):  # fmt: skip
        self.spec = spec
        self.blocks: list[NDArray[Any]] = []
        self.row = np.zeros(layout.WIDTH, dtype=np.uint64)
        self.possible_cpus = possible_cpus
        self._common(special, spin_lock)
        _BUILDERS[spec.kind](self)

    def allocate(self, count: int, dtype: type[np.generic] = np.uint8) -> int:
        """Zeroed memory for `count` items; its machine address."""
        size = max(count, 1) * np.dtype(dtype).itemsize
        if size > 2 * LIMIT:
            raise MapError(errno.ENOMEM, f"map creation: {size} bytes are more than a map can have")
        try:
            block = np.zeros(max(count, 1), dtype=dtype)
        except MemoryError:
            raise MapError(errno.ENOMEM, f"map creation: no memory for {size} bytes") from None
        self.blocks.append(block)
        return int(block.ctypes.data)

    def _common(self, special: tuple[tuple[int, int], ...], spin_lock: int | None) -> None:
        spec, row = self.spec, self.row
        row[layout.KIND] = BY_NAME[spec.kind].number
        row[layout.KEY_SIZE], row[layout.VALUE_SIZE] = spec.key_size, spec.value_size
        row[layout.MAX_ENTRIES], row[layout.FLAGS] = spec.max_entries, spec.flags
        row[layout.CPUS] = self.possible_cpus if spec.kind in PERCPU_KINDS else 1
        row[layout.STRIDE] = round_up(spec.value_size)
        row[layout.STATE_AT] = self.allocate(layout.STATE_SIZE, np.uint64)
        row[layout.SPECIAL_COUNT] = len(special)
        if special:
            block = np.array(sorted(special), dtype=np.uint64)
            self.blocks.append(block)
            row[layout.SPECIAL_AT] = block.ctypes.data
        row[layout.SPIN_LOCK] = 0 if spin_lock is None else spin_lock + 1

    def values(self, size: int) -> None:
        """Value memory that programs may point into, with the rights the flags leave them."""
        if size >= LIMIT:
            raise MapError(errno.ENOMEM, f"map creation: values of {size} bytes are over 4 GiB")
        row, flags = self.row, self.spec.flags
        rights = (0 if flags & layout.BPF_F_WRONLY_PROG else 1) | (0 if flags & layout.BPF_F_RDONLY_PROG else 2)
        row[layout.VALUES_AT], row[layout.VALUES_SIZE], row[layout.RIGHTS] = self.allocate(size), size, rights

    def table(self, slots: int) -> None:
        """Keys, bucket heads and chains of a hash table."""
        spec, row = self.spec, self.row
        buckets = 1 << (int(row[layout.MAX_ENTRIES]) - 1).bit_length()
        row[layout.SLOTS] = slots
        row[layout.KEY_STRIDE] = round_up(spec.key_size)
        row[layout.KEYS_AT] = self.allocate(slots * round_up(spec.key_size))
        row[layout.HEADS_AT], row[layout.MASK] = self.allocate(buckets, np.uint32), buckets - 1
        row[layout.LINKS_AT] = self.allocate(slots + 1, np.uint32)

    def slots(self, wanted: int, size: int) -> int:
        """How many slots of `size` bytes there can be: fewer than `wanted` only where nothing is preallocated."""
        if self.spec.flags & layout.BPF_F_NO_PREALLOC:
            return min(wanted, (LIMIT - 1) // size)
        return wanted


def _array(storage: Storage) -> None:
    row = storage.row
    storage.values(storage.spec.max_entries * int(row[layout.CPUS]) * int(row[layout.STRIDE]))


def _hash(storage: Storage) -> None:
    spec, row = storage.spec, storage.row
    spare = 1 if spec.kind == "HASH" else 0
    size = int(row[layout.CPUS]) * int(row[layout.STRIDE])
    slots = storage.slots(spec.max_entries + spare, max(size, round_up(spec.key_size)))
    storage.values(slots * size)
    storage.table(slots)
    row[layout.SLOTS] = slots - spare
    if spare:
        storage.blocks[0][3] = slots


def _lru(storage: Storage) -> None:
    row, cpus = storage.row, storage.possible_cpus
    own = bool(storage.spec.flags & layout.BPF_F_NO_COMMON_LRU)
    entries = round_up(storage.spec.max_entries, cpus) if own else storage.spec.max_entries
    row[layout.MAX_ENTRIES], row[layout.LRU_CPUS] = entries, cpus
    row[layout.LRU_TARGET] = min(max(entries // cpus // 2, 1), LRU_BATCH)
    storage.values(entries * int(row[layout.CPUS]) * int(row[layout.STRIDE]))
    storage.table(entries)
    heads = 3 * cpus if own else 3 + 2 * cpus
    total = 1 + entries + heads
    row[layout.AUX_AT] = storage.allocate(2 * total, np.uint32)
    links = storage.blocks[-1]
    for head in range(1 + entries, total):
        links[2 * head : 2 * head + 2] = head
    row[layout.AUX2_AT] = storage.allocate(total, np.uint32)
    row[layout.AUX3_AT] = storage.allocate((1 + cpus) * BLOCK_WORDS, np.uint64)
    blocks = storage.blocks[-1].reshape(-1, BLOCK_WORDS)
    share = entries // cpus
    for cpu in range(cpus):
        blocks[cpu + 1, 5] = cpu
    for number in range(cpus if own else 1):
        first, last = (number * share + 1, (number + 1) * share) if own else (1, entries)
        inactive = 1 + entries + 3 * number + 1
        blocks[number, 2:5] = (inactive, first, last)


def _trie(storage: Storage) -> None:
    spec, row = storage.spec, storage.row
    stride = int(row[layout.STRIDE])
    key = round_up(spec.key_size)
    slots = storage.slots(2 * spec.max_entries, max(stride, key, 16))
    row[layout.SLOTS], row[layout.KEY_STRIDE] = slots, key
    storage.values(slots * stride)
    row[layout.KEYS_AT] = storage.allocate(slots * key)
    row[layout.LINKS_AT] = storage.allocate(2 * (slots + 1), np.uint32)
    row[layout.AUX_AT] = storage.allocate(slots + 1)


def _queue(storage: Storage) -> None:
    spec, row = storage.spec, storage.row
    row[layout.VALUES_AT] = storage.allocate((spec.max_entries + 1) * spec.value_size)


def _bloom(storage: Storage) -> None:
    """Bits as the kernel sizes them: entries * functions * 7 / 5 rounded up to a power of two, 64 at least."""
    spec, row = storage.spec, storage.row
    hashes = spec.extra or 5
    bits = spec.max_entries * hashes
    overflow = bits > 0xFFFFFFFF or bits // 5 * 7 > 0xFFFFFFFF
    bits = bits // 5 * 7
    size = 1 << 32 if overflow or bits > 1 << 31 else max(64, 1 << (bits - 1).bit_length() if bits else 64)
    row[layout.HASHES], row[layout.MASK] = hashes, size - 1
    row[layout.AUX_AT] = storage.allocate(size // 8)


def _ring(storage: Storage) -> None:
    size = storage.spec.max_entries
    if 2 * size >= LIMIT:
        raise MapError(errno.ENOMEM, f"map creation: a ring of {size} bytes is over 1 GiB")
    storage.values(2 * size)


def _perf(storage: Storage) -> None:
    row = storage.row
    row[layout.CPUS] = storage.possible_cpus  # those that have an event
    row[layout.AUX_AT], row[layout.MASK] = storage.allocate(PERF_BUFFER), PERF_BUFFER


def _programs(storage: Storage) -> None:
    """Entry slots of the linked programs, int64, -1 where there is none."""
    storage.row[layout.AUX_AT] = storage.allocate(storage.spec.max_entries, np.int64)
    storage.blocks[-1][:] = -1


def _array_of_maps(storage: Storage) -> None:
    storage.row[layout.AUX_AT] = storage.allocate(storage.spec.max_entries, np.uint64)


def _hash_of_maps(storage: Storage) -> None:
    """A table whose values are 8 bytes wide here, as in the kernel, and out of reach for programs."""
    row, slots = storage.row, storage.slots(storage.spec.max_entries, 8)
    storage.table(slots)
    row[layout.AUX_AT] = row[layout.VALUES_AT] = storage.allocate(slots, np.uint64)
    row[layout.VALUE_SIZE] = row[layout.STRIDE] = 8


def _nothing(_storage: Storage) -> None:
    return None


_BUILDERS = {
    "ARRAY": _array, "PERCPU_ARRAY": _array, "HASH": _hash, "PERCPU_HASH": _hash, "LRU_HASH": _lru,
    "LRU_PERCPU_HASH": _lru, "LPM_TRIE": _trie, "QUEUE": _queue, "STACK": _queue, "BLOOM_FILTER": _bloom,
    "RINGBUF": _ring, "USER_RINGBUF": _ring, "PERF_EVENT_ARRAY": _perf, "PROG_ARRAY": _programs,
    "ARRAY_OF_MAPS": _array_of_maps, "HASH_OF_MAPS": _hash_of_maps, "CGROUP_ARRAY": _nothing, "STACK_TRACE": _nothing,
}  # fmt: skip
