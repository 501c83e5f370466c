"""Kernel functions: iterators over numbers and bits, dynptrs over the packet, strings. Compiled only where called.

Numbers are those of pktbpf.abi.kfuncs. Iterators lie on the program's stack as the kernel lays them out, but for the
words of a bit iterator, which are copied to a place of the runner that belongs to its stack slot. Functions that return
an int leave 32 bits in r0, zero-extended. Bodies: kernel/bpf/bpf_iter.c and kernel/bpf/helpers.c.
"""

from __future__ import annotations

import numpy as np

from pktbpf.abi.kfuncs import NUMBERS as KFUNCS
from pktbpf.abi.map_kinds import BY_NAME as KINDS
from pktbpf.engine.arith import M32, U0, U32
from pktbpf.engine.common_helpers import F_CALL, F_INDETERMINATE, F_MEMORY, R1, R2, R3, R4, column, map_number
from pktbpf.engine.control_helpers import ALL_FRAMES, SCRATCH_REGION
from pktbpf.engine.memory import B_CAPTURED, B_LENGTH, STACK_REGION, argument, charge, reach, region_row
from pktbpf.engine.rare_rings import (
    DYNPTR,
    PACKET_POINTER,
    READ_ONLY,
    SIZE_MASK,
    SKB,
    copy_dynptr,
    is_packet,
    put_dynptr,
    within,
)
from pktbpf.engine.rare_strings import STRINGS, call_strings
from pktbpf.hot import Scalar, hot, peek32, peek64, poke8, poke32, poke64
from pktbpf.maps.layout import KIND, READ, STATE_AT, WRITE, copy

(
    NUM_NEW, NUM_NEXT, NUM_DESTROY, BITS_NEW, BITS_NEXT, BITS_DESTROY, FROM_SKB, ADJUST, CLONE, COPY, IS_NULL,
    IS_RDONLY, SIZE, MEMSET, SLICE, ELEMENTS,
) = (
    KFUNCS[f"bpf_{n}"] for n in (
        "iter_num_new", "iter_num_next", "iter_num_destroy", "iter_bits_new", "iter_bits_next", "iter_bits_destroy",
        "dynptr_from_skb", "dynptr_adjust", "dynptr_clone", "dynptr_copy", "dynptr_is_null", "dynptr_is_rdonly",
        "dynptr_size", "dynptr_memset", "dynptr_slice", "map_sum_elem_count",
    )
)  # fmt: skip
# Regions that nothing on this side can tell from the code around them.
REGIONS = frozenset(KFUNCS[f"bpf_{n}"] for n in (
    "rcu_read_lock", "rcu_read_unlock", "preempt_disable", "preempt_enable", "local_irq_save", "local_irq_restore",
))  # fmt: skip
_REGIONS = tuple(sorted(REGIONS))
NUMBERS = REGIONS | STRINGS | {
    NUM_NEW, NUM_NEXT, NUM_DESTROY, BITS_NEW, BITS_NEXT, BITS_DESTROY, FROM_SKB, ADJUST, CLONE, COPY, IS_NULL,
    IS_RDONLY, SIZE, MEMSET, SLICE, ELEMENTS,
}  # fmt: skip

EINVAL, E2BIG, ERANGE, EFAULT = (np.uint64((1 << 32) - n) for n in (22, 7, 34, 14))
WORDS_MAX = 511  # BITS_ITER_NR_WORDS_MAX
BITS_BYTES = 8 * 512  # copied words of one bit iterator
STACK_SLOTS = 512 // 8 * ALL_FRAMES
_LOOPS = np.int64(8 << 20)  # BPF_MAX_LOOPS
_U1, _U3, _U4, _U6, _U7, _U8, _U12, _U16, _U63 = (np.uint64(n) for n in (1, 3, 4, 6, 7, 8, 12, 16, 63))
_WORDS_MAX, _BITS_BYTES = np.uint64(WORDS_MAX), np.uint64(BITS_BYTES)
_STACK, _SCRATCH = np.uint64(STACK_REGION), np.uint64(SCRATCH_REGION)
_BOTH = READ | WRITE
HASHES = tuple(KINDS[n].number for n in ("HASH", "PERCPU_HASH", "LRU_HASH", "LRU_PERCPU_HASH", "HASH_OF_MAPS"))
_HASH, _PERCPU_HASH, _LRU_HASH, _LRU_PERCPU_HASH, _HASH_OF_MAPS = HASHES


@hot
def _low(value: Scalar) -> Scalar:
    """The low 32 bits as a signed number."""
    return np.int64(np.int32(value & M32))


@hot
def _num_new(block: Scalar) -> Scalar:
    """bpf_iter_num_new(it, start, end): int cur and end."""
    place = reach(argument(block, R1), _U8, WRITE, block)
    if place == U0:
        return U0, F_MEMORY
    start, end = _low(argument(block, R2)), _low(argument(block, R3))
    poke64(place, U0)
    if start > end:
        return EINVAL, 0
    if end - start > _LOOPS:
        return E2BIG, 0
    poke32(place, np.uint64(start - np.int64(1)) & M32)
    poke32(place + _U4, np.uint64(end) & M32)
    return U0, 0


@hot
def _num_next(block: Scalar) -> Scalar:
    """bpf_iter_num_next(it): a pointer to the number, which is the iterator's own first word, or null."""
    pointer = argument(block, R1)
    place = reach(pointer, _U8, _BOTH, block)
    if place == U0:
        return U0, F_MEMORY
    following, end = _low(peek32(place) + _U1), _low(peek32(place + _U4))
    if following >= end:
        poke64(place, U0)
        return U0, 0
    poke32(place, np.uint64(following) & M32)
    return pointer, 0


@hot
def _words(pointer: Scalar, kernel: Scalar) -> Scalar:
    """Where the copied words of the bit iterator at a stack pointer lie."""
    return kernel + ((pointer & M32) >> _U3) * _BITS_BYTES


@hot
def _bits_new(block: Scalar, kernel: Scalar) -> Scalar:
    """bpf_iter_bits_new(it, words, count): the words are copied; uint64 unused, int number of bits, int position."""
    pointer, source, count = argument(block, R1), argument(block, R2), argument(block, R3) & M32
    place = reach(pointer, _U16, WRITE, block)
    if place == U0 or pointer >> U32 != _STACK:
        return U0, F_MEMORY
    poke64(place, U0)
    poke32(place + _U8, U0)
    poke32(place + _U12, M32)
    if source == U0 or count == U0:
        return EINVAL, 0
    if count > _WORDS_MAX:
        return E2BIG, 0
    data = reach(source, count * _U8, READ, block)
    if data == U0:
        return EFAULT, 0
    copy(_words(pointer, kernel), data, count * _U8)
    poke32(place + _U8, count << _U6)
    return U0, 0


@hot
def _bits_next(block: Scalar, kernel: Scalar) -> Scalar:
    """bpf_iter_bits_next(it): a pointer to the position of the next set bit, inside the iterator, or null."""
    pointer = argument(block, R1)
    place = reach(pointer, _U16, _BOTH, block)
    if place == U0 or pointer >> U32 != _STACK:
        return U0, F_MEMORY
    count, bit = _low(peek32(place + _U8)), _low(peek32(place + _U12))
    if count <= 0 or count > np.int64(WORDS_MAX) * 64 or bit < np.int64(-1) or bit >= count:
        return U0, 0
    words = _words(pointer, kernel)
    bit += 1
    while bit < count:
        at = np.uint64(bit)
        word = peek64(words + (at >> _U6) * _U8) >> (at & _U63)
        if word == U0:
            bit = np.int64(((at >> _U6) + _U1) << _U6)
        elif word & _U1:
            break
        else:
            bit += 1
    poke32(place + _U12, np.uint64(bit))
    return (pointer + _U12 if bit < count else U0), 0


@hot
def _from_skb(block: Scalar) -> Scalar:
    """bpf_dynptr_from_skb(skb, flags, dynptr): over the whole packet, read-only in a socket filter."""
    place = reach(argument(block, R3), DYNPTR, WRITE, block)
    if place == U0:
        return U0, F_MEMORY
    if argument(block, R2):
        put_dynptr(place, U0, U0, U0)
        return EINVAL, 0
    put_dynptr(place, PACKET_POINTER, SKB | READ_ONLY, peek64(block + B_LENGTH))
    return U0, 0


@hot
def _adjust(place: Scalar, block: Scalar) -> Scalar:
    """bpf_dynptr_adjust(p, start, end)."""
    start, end = argument(block, R2) & M32, argument(block, R3) & M32
    head = peek32(place + _U8)
    if peek64(place) == U0 or start > end:
        return EINVAL
    if start > head & SIZE_MASK or end > head & SIZE_MASK:
        return ERANGE
    poke32(place + _U12, (peek32(place + _U12) + start) & M32)
    poke32(place + _U8, head & ~SIZE_MASK | (end - start))
    return U0


@hot
def _slice(place: Scalar, block: Scalar) -> Scalar:
    """bpf_dynptr_slice(p, offset, buffer, size): a pointer to the bytes themselves or null: (r0, fault)."""
    offset, size = argument(block, R2) & M32, argument(block, R4) & M32
    inside = within(place, offset, size)
    if inside == U0 or not is_packet(place):
        return inside, 0
    end = peek32(place + _U12) + offset + size
    if end > peek64(block + B_LENGTH):
        return U0, 0
    if end > peek64(block + B_CAPTURED):
        return U0, F_INDETERMINATE
    return inside, 0


@hot
def _memset(place: Scalar, block: Scalar) -> Scalar:
    """bpf_dynptr_memset(p, offset, size, byte): (r0, fault)."""
    offset, size, byte = argument(block, R2) & M32, argument(block, R3) & M32, argument(block, R4)
    head = peek32(place + _U8)
    if head & READ_ONLY:
        return EINVAL, 0
    have = head & SIZE_MASK
    if size > have or offset > have - size:
        return E2BIG, 0
    if peek64(place) == U0:
        return U0, 0  # a null dynptr has no bytes, so there are none to set
    target = reach(peek64(place) + peek32(place + _U12) + offset, size, WRITE, block) if size != U0 else _U1
    if target == U0:
        return U0, F_MEMORY
    charge(block, size)
    done = U0
    while done < size:
        poke8(target + done, byte)
        done += _U1
    return U0, 0


@hot
def _dynptr(number: Scalar, block: Scalar) -> Scalar:
    """(r0, fault) of the functions whose first argument is an initialised dynptr."""
    # The dynptr of a callback lies in memory that programs only read.
    changed = number == ADJUST and argument(block, R1) >> U32 != _SCRATCH
    place = reach(argument(block, R1), DYNPTR, _BOTH if changed else READ, block)
    if place == U0:
        return U0, F_MEMORY
    null = peek64(place) == U0
    if number == IS_NULL:
        return (_U1 if null else U0), 0
    if number == IS_RDONLY:
        return (_U1 if not null and peek32(place + _U8) & READ_ONLY else U0), 0
    if number == SIZE:
        return (EINVAL if null else peek32(place + _U8) & SIZE_MASK), 0
    if number == ADJUST:
        return _adjust(place, block), 0
    if number == SLICE:
        return _slice(place, block)
    if number == MEMSET:
        return _memset(place, block)
    if number == COPY:
        return copy_dynptr(place, block)
    other = reach(argument(block, R2), DYNPTR, WRITE, block)
    if other == U0:
        return U0, F_MEMORY
    poke64(other, peek64(place))
    poke64(other + _U8, peek64(place + _U8))
    return (EINVAL if null else U0), 0


@hot
def _elements(block: Scalar) -> Scalar:
    """bpf_map_sum_elem_count(map): entries of a hash table; other kinds are not counted."""
    which = map_number(argument(block, R1), block)
    if which == U0:
        return U0, F_CALL
    row = region_row(block, which)
    kind = np.int64(column(row, KIND))
    if kind == _HASH or kind == _PERCPU_HASH or kind == _LRU_HASH or kind == _LRU_PERCPU_HASH or kind == _HASH_OF_MAPS:
        return peek64(column(row, STATE_AT)), 0
    return U0, 0


@hot
def call_kernel(number: Scalar, block: Scalar, kernel: Scalar) -> Scalar:
    """(r0, fault) of one call; CALL for a number that is none of these. kernel: where words of bit iterators go."""
    if number == NUM_NEXT:
        return _num_next(block)
    if number == NUM_NEW:
        return _num_new(block)
    if number == BITS_NEXT:
        return _bits_next(block, kernel)
    if number == BITS_NEW:
        return _bits_new(block, kernel)
    if number == FROM_SKB:
        return _from_skb(block)
    if number == ELEMENTS:
        return _elements(block)
    if number == NUM_DESTROY or number == BITS_DESTROY or _is_region(number):
        return U0, 0
    if (
        number == ADJUST or number == CLONE or number == COPY or number == IS_NULL or number == IS_RDONLY
        or number == SIZE or number == MEMSET or number == SLICE
    ):  # fmt: skip
        return _dynptr(number, block)
    return call_strings(number, block)


@hot
def _is_region(number: Scalar) -> Scalar:
    """Whether it begins or ends a region."""
    for one in _REGIONS:  # noqa: SIM110 - numba unrolls the loop over the tuple
        if number == one:
            return True
    return False
