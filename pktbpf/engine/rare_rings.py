"""Records that programs hand to user space: ring buffers, perf events, and the dynptrs over memory and records.

A dynptr is 16 opaque bytes of the stack, laid out as the kernel's (struct bpf_dynptr_kern): uint64 pointer, uint32 size
with the type in bits 28-30, uint32 offset. Every use resolves the pointer again, so a forged one reaches nothing.
Bodies: kernel/bpf/ringbuf.c, kernel/bpf/helpers.c (bpf_dynptr_*), net/core/filter.c (bpf_skb_event_output).
"""

from __future__ import annotations

import numpy as np

from pktbpf.abi.context import COLUMN
from pktbpf.abi.helpers import BY_NAME
from pktbpf.abi.map_kinds import BY_NAME as KINDS
from pktbpf.engine.arith import M32, U0, U32
from pktbpf.engine.common_helpers import (
    EFAULT,
    F_CALL,
    F_INDETERMINATE,
    F_MEMORY,
    R1,
    R2,
    R3,
    R4,
    R5,
    column,
    map_number,
)  # fmt: skip
from pktbpf.engine.memory import (
    B_CAPTURED,
    B_COUNT,
    B_DATA,
    B_LENGTH,
    PACKET_REGION,
    argument,
    map_row,
    metadata,
    reach,
    region_row,
)  # fmt: skip
from pktbpf.hot import Scalar, hot, peek8, peek32, peek64, poke8, poke32, poke64
from pktbpf.maps import perf, ringbuf
from pktbpf.maps.layout import KIND, READ, VALUES_SIZE, WRITE, copy

(
    PERF_OUTPUT, OUTPUT, RESERVE, SUBMIT, DISCARD, QUERY, FROM_MEM, RESERVE_DYNPTR, SUBMIT_DYNPTR, DISCARD_DYNPTR,
    DYNPTR_READ, DYNPTR_WRITE, DYNPTR_DATA,
) = (
    BY_NAME[n].id for n in (
        "perf_event_output", "ringbuf_output", "ringbuf_reserve", "ringbuf_submit", "ringbuf_discard",
        "ringbuf_query", "dynptr_from_mem", "ringbuf_reserve_dynptr", "ringbuf_submit_dynptr",
        "ringbuf_discard_dynptr", "dynptr_read", "dynptr_write", "dynptr_data",
    )
)  # fmt: skip
NUMBERS = frozenset({
    PERF_OUTPUT, OUTPUT, RESERVE, SUBMIT, DISCARD, QUERY, FROM_MEM, RESERVE_DYNPTR, SUBMIT_DYNPTR, DISCARD_DYNPTR,
    DYNPTR_READ, DYNPTR_WRITE, DYNPTR_DATA,
})  # fmt: skip

RINGBUF, PERF_EVENT_ARRAY = KINDS["RINGBUF"].number, KINDS["PERF_EVENT_ARRAY"].number
CPU, TIMESTAMP = COLUMN["cpu"], COLUMN["timestamp"]
EINVAL, E2BIG = np.uint64((1 << 64) - 22), np.uint64((1 << 64) - 7)
DYNPTR = np.uint64(16)
LOCAL, RING, SKB = (np.uint64(n << 28) for n in (1, 2, 3))
PACKET_POINTER = np.uint64(PACKET_REGION << 32)  # where a dynptr over the packet points
_KIND = np.uint64(7 << 28)
SIZE_MASK, READ_ONLY = np.uint64((1 << 24) - 1), np.uint64(1 << 31)
_EVENT_FLAGS = np.uint64((1 << 52) - 1)
_U8, _U12 = np.uint64(8), np.uint64(12)
_U1 = np.uint64(1)


@hot
def span(pointer: Scalar, size: Scalar, need: Scalar, block: Scalar) -> Scalar:
    """reach(), but any pointer will do for no bytes."""
    return reach(pointer, size, need, block) if size != U0 else _U1


@hot
def map_of(register: Scalar, kind: Scalar, block: Scalar) -> Scalar:
    """Number of the map of a kind (plain number) that a register points to, 0 for anything else."""
    which = map_number(argument(block, register), block)
    return which if which != U0 and np.int64(column(region_row(block, which), KIND)) == kind else U0


@hot
def _perf_event(block: Scalar) -> Scalar:
    """bpf_perf_event_output(skb, map, flags, data, size), the flags' upper half asking for bytes of the packet."""
    which = map_of(R2, PERF_EVENT_ARRAY, block)
    if which == U0:
        return U0, F_CALL
    flags, size = argument(block, R3), argument(block, R5)
    data = span(argument(block, R4), size, READ, block)
    if data == U0:
        return U0, F_MEMORY
    if flags & ~_EVENT_FLAGS:
        return EINVAL, 0
    wanted = perf.packet_bytes(flags)
    if wanted > peek64(block + B_LENGTH):
        return EFAULT, 0
    if wanted > peek64(block + B_CAPTURED):
        return U0, F_INDETERMINATE
    cpu, time = np.uint64(metadata(block, CPU)), np.uint64(metadata(block, TIMESTAMP))
    row = map_row(block, which)
    return np.uint64(np.int64(perf.output(row, flags, cpu, time, data, size, peek64(block + B_DATA)))), 0


@hot
def _commit(pointer: Scalar, discard: Scalar, block: Scalar) -> Scalar:
    """(r0, fault) of giving a record back. A program that no check has seen may pass any pointer."""
    which, offset = pointer >> U32, pointer & M32
    if which >= peek64(block + B_COUNT) or np.int64(column(region_row(block, which), KIND)) != RINGBUF:
        return U0, F_CALL
    if offset < ringbuf.HEADER or offset > column(region_row(block, which), VALUES_SIZE):
        return U0, F_MEMORY
    ringbuf.commit(map_row(block, which), offset, discard)
    return U0, 0


@hot
def _ring(number: Scalar, block: Scalar) -> Scalar:
    """(r0, fault) of the helpers whose first argument is a ring buffer."""
    which = map_of(R1, RINGBUF, block)
    if which == U0:
        return U0, F_CALL
    row = map_row(block, which)
    if number == RESERVE:
        return ringbuf.reserve(row, which, argument(block, R2), argument(block, R3)), 0
    if number == QUERY:
        return ringbuf.query(row, argument(block, R2)), 0
    if number == OUTPUT:
        size = argument(block, R3)
        data = span(argument(block, R2), size, READ, block)
        if data == U0:
            return U0, F_MEMORY
        return np.uint64(np.int64(ringbuf.output(row, data, size, argument(block, R4)))), 0
    place, size = reach(argument(block, R4), DYNPTR, WRITE, block), argument(block, R2) & M32
    if place == U0:
        return U0, F_MEMORY
    put_dynptr(place, U0, U0, U0)
    if argument(block, R3):
        return EINVAL, 0
    if size > SIZE_MASK:
        return E2BIG, 0
    record = ringbuf.reserve(row, which, size, U0)
    if record == U0:
        return EINVAL, 0
    put_dynptr(place, record, RING, size)
    return U0, 0


# --- dynptrs --------------------------------------------------------------------------------------------------------


@hot
def put_dynptr(place: Scalar, pointer: Scalar, kind: Scalar, size: Scalar) -> None:
    """Write a dynptr at a machine address; all zero is the null one."""
    poke64(place, pointer)
    poke32(place + _U8, size | kind)
    poke32(place + _U12, U0)


@hot
def _give_back(discard: Scalar, block: Scalar) -> Scalar:
    """Submit or discard the record of a dynptr, which is null then."""
    place = reach(argument(block, R1), DYNPTR, WRITE, block)
    if place == U0:
        return U0, F_MEMORY
    record = peek64(place)
    put_dynptr(place, U0, U0, U0)
    return (U0, 0) if record == U0 else _commit(record, discard, block)


@hot
def _from_mem(block: Scalar) -> Scalar:
    """bpf_dynptr_from_mem(data, size, flags, dynptr)."""
    place, size = reach(argument(block, R4), DYNPTR, WRITE, block), argument(block, R2) & M32
    if place == U0:
        return U0, F_MEMORY
    put_dynptr(place, U0, U0, U0)
    if size > SIZE_MASK:
        return E2BIG, 0
    if argument(block, R3):
        return EINVAL, 0
    put_dynptr(place, argument(block, R1), LOCAL, size)
    return U0, 0


@hot
def is_packet(place: Scalar) -> Scalar:
    """Whether the dynptr at a machine address is over the packet."""
    return peek32(place + _U8) & _KIND == SKB and peek64(place) == PACKET_POINTER


@hot
def _uncaptured(place: Scalar, offset: Scalar, size: Scalar, block: Scalar) -> Scalar:
    """Whether bytes of a dynptr over the packet are among those that the capture lacks."""
    return is_packet(place) and peek32(place + _U12) + offset + size > peek64(block + B_CAPTURED)


@hot
def within(place: Scalar, offset: Scalar, size: Scalar) -> Scalar:
    """Pointer to bytes of the dynptr at a machine address; 0 when they are not all inside or it is null."""
    have = peek32(place + _U8) & SIZE_MASK
    if peek64(place) == U0 or size > have or offset > have - size:
        return U0
    return peek64(place) + peek32(place + _U12) + offset


@hot
def _transfer(number: Scalar, block: Scalar) -> Scalar:
    """bpf_dynptr_read(dst, len, src, offset, flags) and bpf_dynptr_write(dst, offset, src, len, flags)."""
    reading = number == DYNPTR_READ
    place = reach(argument(block, R3 if reading else R1), DYNPTR, READ, block)
    size = argument(block, R2 if reading else R4)
    other = span(argument(block, R1 if reading else R3), size, WRITE if reading else READ, block)
    if place == U0 or other == U0:
        return U0, F_MEMORY
    if peek64(place) == U0 or (reading and argument(block, R5) != U0):
        return EINVAL, 0
    if not reading and peek32(place + _U8) & READ_ONLY:
        return EINVAL, 0
    offset = argument(block, R4 if reading else R2) & M32
    inside = within(place, offset, size)
    if inside == U0:
        return E2BIG, 0
    if argument(block, R5):  # since Linux 6.4 a write looks at its flags after the range
        return EINVAL, 0
    if _uncaptured(place, offset, size, block):
        return U0, F_INDETERMINATE
    inner = span(inside, size, READ if reading else WRITE, block)
    if inner == U0:
        return U0, F_MEMORY
    if reading:
        move(other, inner, size)
    else:
        move(inner, other, size)
    return U0, 0


@hot
def copy_dynptr(target: Scalar, block: Scalar) -> Scalar:
    """bpf_dynptr_copy(dst, dst_off, src, src_off, size) for a dst at a machine address: (r0, fault)."""
    source = reach(argument(block, R3), DYNPTR, READ, block)
    if source == U0:
        return U0, F_MEMORY
    size = argument(block, R5) & M32
    to, offset = argument(block, R2) & M32, argument(block, R4) & M32
    readable, writable = within(source, offset, size), within(target, to, size)
    if peek32(target + _U8) & READ_ONLY:
        writable = U0
    if readable != U0 and writable != U0:
        if _uncaptured(source, offset, size, block):
            return U0, F_INDETERMINATE
        inner, outer = span(readable, size, READ, block), span(writable, size, WRITE, block)
        if inner == U0 or outer == U0:
            return U0, F_MEMORY
        move(outer, inner, size)
        return U0, 0
    if readable != U0:
        null = peek64(target) == U0 or peek32(target + _U8) & READ_ONLY != U0
        return (EINVAL if null else E2BIG) & M32, 0
    if writable != U0:
        return (EINVAL if peek64(source) == U0 else E2BIG) & M32, 0
    if _outside(target, to, size) or _outside(source, offset, size):
        return E2BIG & M32, 0
    return (EINVAL & M32 if size != U0 else U0), 0


@hot
def _outside(place: Scalar, offset: Scalar, size: Scalar) -> Scalar:
    have = peek32(place + _U8) & SIZE_MASK
    return size > have or offset > have - size


@hot
def move(target: Scalar, source: Scalar, size: Scalar) -> None:
    """Copy between machine addresses that may overlap."""
    if target <= source or target >= source + size:
        copy(target, source, size)
        return
    left = size
    while left != U0:
        left -= _U1
        poke8(target + left, peek8(source + left))


@hot
def _data(block: Scalar) -> Scalar:
    """bpf_dynptr_data(dynptr, offset, len): a pointer or null."""
    place = reach(argument(block, R1), DYNPTR, READ, block)
    if place == U0:
        return U0, F_MEMORY
    if peek32(place + _U8) & READ_ONLY:
        return U0, 0
    return within(place, argument(block, R2) & M32, argument(block, R3) & M32), 0


@hot
def call_rings(number: Scalar, block: Scalar) -> Scalar:
    """(r0, fault) of one call; CALL for a number that is none of these."""
    if number == OUTPUT or number == RESERVE or number == QUERY or number == RESERVE_DYNPTR:
        return _ring(number, block)
    if number == SUBMIT or number == DISCARD:
        return _commit(argument(block, R1), number == DISCARD, block)
    if number == PERF_OUTPUT:
        return _perf_event(block)
    if number == FROM_MEM:
        return _from_mem(block)
    if number == SUBMIT_DYNPTR or number == DISCARD_DYNPTR:
        return _give_back(number == DISCARD_DYNPTR, block)
    if number == DYNPTR_READ or number == DYNPTR_WRITE:
        return _transfer(number, block)
    if number == DYNPTR_DATA:
        return _data(block)
    return U0, F_CALL
