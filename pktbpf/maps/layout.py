"""The descriptor row of a map: uint64[WIDTH] that compiled code reads, and what pointers into maps look like.

A pointer to a value is `number << 32 | offset`, number being the map's place in the registry's table (16 and up, so
never a stack or context region). A pointer to the map itself has bit 62 set. Memory is addressed by machine address;
the arrays behind it belong to the Map object, which lives as long as any program uses it.
"""

from __future__ import annotations

import numpy as np

from pktbpf.hot import Scalar, Words, hot, peek8, peek64, poke8, poke64

# Columns of a row. Sizes are in bytes, *_AT columns machine addresses.
VALUES_AT, VALUES_SIZE, RIGHTS = 0, 1, 2  # in this place for pktbpf.engine.memory.resolve: base, length, rights
KIND, KEY_SIZE, VALUE_SIZE, MAX_ENTRIES, FLAGS, STRIDE, CPUS = 3, 4, 5, 6, 7, 8, 9
STATE_AT = 10  # uint64[STATE_SIZE] of counters that change: see each family
KEYS_AT, KEY_STRIDE, HEADS_AT, MASK, LINKS_AT = 11, 12, 13, 14, 15  # hash tables
SPECIAL_AT, SPECIAL_COUNT = 16, 17  # pairs (offset, size) of locks, timers and kernel pointers inside a value
SPIN_LOCK = 18  # 1 + offset of the value's bpf_spin_lock, 0 for none
AUX_AT, AUX2_AT, AUX3_AT, INNER = 19, 20, 21, 22  # for the family's own use
LRU_TARGET, LRU_CPUS = 23, 24  # LRU tables: nodes fetched at once, possible processors
HASHES = 25  # Bloom filters: number of hash functions
SLOTS = 26  # entries that the memory has room for, where that may be less than MAX_ENTRIES
WIDTH = 27
STATE_SIZE = 32

FIRST_NUMBER = 16
READ, WRITE = np.uint64(1), np.uint64(2)
MAP_POINTER = np.uint64(1 << 62)

BPF_ANY, BPF_NOEXIST, BPF_EXIST, BPF_F_LOCK = 0, 1, 2, 4
BPF_F_NO_PREALLOC, BPF_F_NO_COMMON_LRU, BPF_F_NUMA_NODE, BPF_F_RDONLY, BPF_F_WRONLY = 1, 2, 4, 8, 16
BPF_F_STACK_BUILD_ID, BPF_F_ZERO_SEED, BPF_F_RDONLY_PROG, BPF_F_WRONLY_PROG = 32, 64, 128, 256
BPF_F_MMAPABLE, BPF_F_PRESERVE_ELEMS, BPF_F_INNER_MAP = 1024, 2048, 4096

ENOENT, E2BIG, EAGAIN, ENOMEM, EEXIST, EINVAL = 2, 7, 11, 12, 17, 22
ENOSPC, ENODATA, EOPNOTSUPP, ENOTSUPP = 28, 61, 95, 524

_U8, _U1, _U32 = np.uint64(8), np.uint64(1), np.uint64(32)
_U0 = np.uint64(0)


def round_up(size: int, unit: int = 8) -> int:
    """size, rounded up to a multiple of unit."""
    return (size + unit - 1) // unit * unit


@hot
def copy(target: Scalar, source: Scalar, size: Scalar) -> None:
    """Copy `size` bytes between machine addresses (uint64 all)."""
    done = _U0
    while done + _U8 <= size:
        poke64(target + done, peek64(source + done))
        done += _U8
    while done < size:
        poke8(target + done, peek8(source + done))
        done += _U1


@hot
def clear(target: Scalar, size: Scalar) -> None:
    """Zero `size` bytes at a machine address."""
    done = _U0
    while done + _U8 <= size:
        poke64(target + done, _U0)
        done += _U8
    while done < size:
        poke8(target + done, _U0)
        done += _U1


@hot
def copy_value(row: Words, target: Scalar, source: Scalar) -> None:
    """Copy a value but for its locks, timers and kernel pointers (copy_map_value)."""
    at = _U0
    for index in range(np.int64(row[SPECIAL_COUNT])):
        pair = row[SPECIAL_AT] + np.uint64(index) * np.uint64(16)
        begin, size = peek64(pair), peek64(pair + _U8)
        copy(target + at, source + at, begin - at)
        at = begin + size
    copy(target + at, source + at, row[VALUE_SIZE] - at)


@hot
def clear_special(row: Words, value: Scalar) -> None:
    """Zero the locks, timers and kernel pointers of a value that is given up (bpf_obj_free_fields)."""
    for index in range(np.int64(row[SPECIAL_COUNT])):
        pair = row[SPECIAL_AT] + np.uint64(index) * np.uint64(16)
        clear(value + peek64(pair), peek64(pair + _U8))


@hot
def equal(left: Scalar, right: Scalar, size: Scalar) -> Scalar:
    """Whether `size` bytes at two machine addresses are the same."""
    done = _U0
    while done + _U8 <= size:
        if peek64(left + done) != peek64(right + done):
            return False
        done += _U8
    while done < size:
        if peek8(left + done) != peek8(right + done):
            return False
        done += _U1
    return True


@hot
def pointer(number: Scalar, offset: Scalar) -> Scalar:
    """A program's pointer to byte `offset` of the values of map `number` (uint64 both)."""
    return number << _U32 | offset
