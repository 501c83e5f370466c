"""Helpers that move the program counter: tail calls, bpf_loop, bpf_for_each_map_elem, bpf_user_ringbuf_drain.

A callback runs in a frame of its own whose row in `frames` carries the walk's state; when it returns, `again` either
sets up the next round or says what the helper returns. Rules: kernel/bpf/bpf_iter.c (bpf_loop), arraymap.c and
hashtab.c (for_each), include/linux/bpf.h (tail calls).
"""

from __future__ import annotations

import numpy as np

from pktbpf.abi.helpers import BY_NAME
from pktbpf.abi.limits import MAX_FRAMES, MAX_TAIL_CALLS
from pktbpf.abi.map_kinds import BY_NAME as KINDS
from pktbpf.engine.arith import M32, U0, U32
from pktbpf.engine.base import Fault
from pktbpf.engine.common_helpers import R1, R2, R3, R4, column, map_number
from pktbpf.engine.memory import B_FUNCTIONS, B_LAST, argument, map_row, region_row, set_argument
from pktbpf.hot import Scalar, Words, hot, peek64, poke64
from pktbpf.maps import ringbuf, walk
from pktbpf.maps.layout import AUX_AT, EAGAIN, ENODATA, KIND, MAP_POINTER, MAX_ENTRIES, STRIDE

TAIL_CALL, LOOP, FOR_EACH, DRAIN = (
    BY_NAME[n].id for n in ("tail_call", "loop", "for_each_map_elem", "user_ringbuf_drain")
)
NUMBERS = frozenset({TAIL_CALL, LOOP, FOR_EACH})  # the drain helper is compiled with the ring buffers

# Columns of a frame's row. The first six are saved registers and the return address.
F_R10, F_RETURN, F_KIND, F_INDEX, F_COUNT, F_CONTEXT, F_TARGET, F_MAP, F_CURSOR, F_LIMIT = range(4, 14)
FRAME = 14
# Every program that a tail call enters may nest its own calls as deep again, below the frames of those before it.
ALL_FRAMES = MAX_FRAMES * (MAX_TAIL_CALLS + 1)

PROG_ARRAY, USER_RINGBUF, HASH, ARRAY, PERCPU_HASH, PERCPU_ARRAY, LRU_HASH, LRU_PERCPU_HASH = (
    KINDS[n].number for n in (
        "PROG_ARRAY", "USER_RINGBUF", "HASH", "ARRAY", "PERCPU_HASH", "PERCPU_ARRAY", "LRU_HASH", "LRU_PERCPU_HASH",
    )
)  # fmt: skip
FUNCTION = np.uint64(1 << 61)  # marks a pointer to a function; the rest is its number, see pktbpf.engine.linker
FAULT_CALL = int(Fault.CALL)
LOOP_LIMIT = np.uint64(1 << 23)
EINVAL = np.uint64((1 << 64) - 22)
# The verifier puts the loop in the place of the call, and its code for too many rounds loads 32 bits.
E2BIG = np.uint64((1 << 32) - 7)
_LOOP, _FOR_EACH, _DRAIN = np.uint64(LOOP), np.uint64(FOR_EACH), np.uint64(DRAIN)
_NO_DATA, _SKIPPED = np.int64(-ENODATA), np.int64(-EAGAIN)
_WAKEUP = np.uint64(ringbuf.NO_WAKEUP | ringbuf.FORCE_WAKEUP)
_MOST_SAMPLES = np.uint64(128 * 1024)  # BPF_MAX_USER_RINGBUF_SAMPLES
_U1, _U8 = np.uint64(1), np.uint64(8)
_LOCAL = np.uint64(1 << 28)  # the type of a dynptr over plain memory, above its size
SCRATCH_REGION = 3  # where a callback's key or dynptr lies; a slot per frame, its size in the row's STRIDE column
_SCRATCH = np.uint64(SCRATCH_REGION << 32)


@hot
def tail_call(block: Scalar, count: Scalar) -> Scalar:
    """(slot to go on at, fault): -1 to fall through. The row of a program array has its entry slots at AUX_AT."""
    which = map_number(argument(block, R2), block)
    if which == U0:
        return np.int64(-1), FAULT_CALL
    row = region_row(block, which)
    slots = column(row, AUX_AT)
    if np.int64(column(row, KIND)) != PROG_ARRAY or slots == U0:
        return np.int64(-1), FAULT_CALL
    index = argument(block, R3) & M32
    if index >= column(row, MAX_ENTRIES) or count >= MAX_TAIL_CALLS:
        return np.int64(-1), 0
    return np.int64(peek64(slots + index * _U8)), 0


@hot
def function_slot(pointer: Scalar, block: Scalar) -> Scalar:
    """Slot of the function that a pointer names, -1 for anything else."""
    number = pointer ^ FUNCTION
    if number >= peek64(block + B_LAST):
        return np.int64(-1)
    return np.int64(peek64(peek64(block + B_FUNCTIONS) + number * _U8))


@hot
def begin(number: Scalar, block: Scalar, row: Words) -> Scalar:
    """Fill a frame's row for a walk: (r0, fault, whether callbacks may follow)."""
    function = function_slot(argument(block, R2), block)
    if function < 0:
        return U0, FAULT_CALL, False
    row[F_KIND], row[F_INDEX], row[F_CURSOR] = np.uint64(number), U0, U0
    row[F_TARGET], row[F_CONTEXT] = np.uint64(function), argument(block, R3)
    if number == DRAIN:
        row[F_MAP], row[F_COUNT] = map_number(argument(block, R1), block), U0
        if row[F_MAP] == U0 or np.int64(column(region_row(block, row[F_MAP]), KIND)) != USER_RINGBUF:
            return U0, FAULT_CALL, False
        return (EINVAL, 0, False) if argument(block, R4) & ~_WAKEUP else (U0, 0, True)
    if number == LOOP:
        if argument(block, R4):
            return EINVAL, 0, False
        if argument(block, R1) & M32 > LOOP_LIMIT:
            return E2BIG, 0, False
        row[F_COUNT] = argument(block, R1) & M32
        return U0, 0, True
    which = map_number(argument(block, R1), block)
    if which == U0:
        return U0, FAULT_CALL, False
    if argument(block, R4):
        return EINVAL, 0, False
    row[F_MAP] = which
    kind = np.int64(column(region_row(block, which), KIND))
    walked = kind == HASH or kind == ARRAY or kind == PERCPU_HASH or kind == PERCPU_ARRAY or kind == LRU_HASH
    return (U0, 0, True) if walked or kind == LRU_PERCPU_HASH else (U0, FAULT_CALL, False)


@hot
def scratch(block: Scalar, depth: Scalar) -> Scalar:
    """(offset in the scratch region, machine address) of a frame's slot."""
    row = region_row(block, _SCRATCH >> U32)
    offset = np.uint64(depth) * column(row, STRIDE)
    return offset, peek64(row) + offset


@hot
def drain(block: Scalar, row: Words, depth: Scalar, returned: Scalar) -> Scalar:
    """Next round of bpf_user_ringbuf_drain: a dynptr over the next sample is in the frame's scratch memory.

    The row counts samples (F_INDEX), those skipped among them (F_COUNT), and has 1 + the size of the sample that the
    callback has just seen (F_CURSOR).
    """
    ring = map_row(block, row[F_MAP])
    if row[F_CURSOR] != U0:
        ringbuf.user_release(ring, row[F_CURSOR] - _U1)
        row[F_INDEX] += _U1
        if returned != U0:
            return False, row[F_INDEX] - row[F_COUNT]
    while row[F_INDEX] < _MOST_SAMPLES:
        outcome, offset, size = ringbuf.user_peek(ring)
        if outcome == _SKIPPED:
            row[F_INDEX] += _U1
            row[F_COUNT] += _U1
        elif outcome == _NO_DATA:
            break
        elif outcome != 0:
            return False, np.uint64(np.int64(outcome))
        else:
            slot, place = scratch(block, depth)
            poke64(place, row[F_MAP] << U32 | offset)
            poke64(place + _U8, size | _LOCAL)
            row[F_CURSOR] = size + _U1
            set_argument(block, R1, _SCRATCH | slot)
            set_argument(block, R2, row[F_CONTEXT])
            return True, row[F_TARGET]
    return False, row[F_INDEX] - row[F_COUNT]


@hot
def again(block: Scalar, row: Words, depth: Scalar, cpu: Scalar, returned: Scalar, rings: Scalar | None) -> Scalar:
    """Next round: (True, slot) with the arguments set, or (False, r0). returned: the callback's r0, 0 at the start.
    rings: None where the program drains no ring buffer; that is not compiled then."""
    if rings is not None:  # noqa: SIM102 - two tests, so that numba drops the branch
        if row[F_KIND] == _DRAIN:
            return drain(block, row, depth, returned)
    if row[F_KIND] == _LOOP:
        if returned != U0 or row[F_INDEX] >= row[F_COUNT]:
            return False, row[F_INDEX]
        set_argument(block, R1, row[F_INDEX])
        set_argument(block, R2, row[F_CONTEXT])
        row[F_INDEX] += _U1
        return True, row[F_TARGET]
    if returned != U0:
        return False, row[F_INDEX]
    number = row[F_MAP]
    slot, place = scratch(block, depth)
    cursor, value = walk.following(map_row(block, number), number, row[F_CURSOR], place, cpu)
    if value == U0:
        return False, row[F_INDEX]
    row[F_CURSOR] = cursor
    row[F_INDEX] += _U1
    set_argument(block, R1, MAP_POINTER | number << U32)
    set_argument(block, R2, _SCRATCH | slot)
    set_argument(block, R3, value)
    set_argument(block, R4, row[F_CONTEXT])
    return True, row[F_TARGET]
