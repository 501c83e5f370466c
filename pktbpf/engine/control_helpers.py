"""Helpers that move the program counter: tail calls, bpf_loop, bpf_for_each_map_elem, bpf_user_ringbuf_drain.

A callback runs in a frame of its own whose row in `frames` carries the walk's state; when it returns, `again` either
sets up the next round or says what the helper returns. Rules: kernel/bpf/bpf_iter.c (bpf_loop), arraymap.c and
hashtab.c (for_each), include/linux/bpf.h (tail calls).
"""

from __future__ import annotations

import numpy as np

from pktbpf.abi.helpers import BY_NAME
from pktbpf.abi.limits import MAX_TAIL_CALLS
from pktbpf.abi.map_kinds import BY_NAME as KINDS
from pktbpf.engine.arith import M32, U0, U32
from pktbpf.engine.base import Fault
from pktbpf.engine.common_helpers import R1, R2, R3, R4, column, map_number
from pktbpf.engine.memory import argument, region_row
from pktbpf.hot import Scalar, Words, hot, peek64
from pktbpf.maps import walk
from pktbpf.maps.layout import AUX_AT, KIND, MAX_ENTRIES

TAIL_CALL, LOOP, FOR_EACH = (BY_NAME[n].id for n in ("tail_call", "loop", "for_each_map_elem"))
NUMBERS = frozenset({TAIL_CALL, LOOP, FOR_EACH})

# Columns of a frame's row. The first six are saved registers and the return address.
F_R10, F_RETURN, F_KIND, F_INDEX, F_COUNT, F_CONTEXT, F_TARGET, F_MAP, F_CURSOR = range(4, 13)
FRAME = 13

PROG_ARRAY = KINDS["PROG_ARRAY"].number
FUNCTION = np.uint64(1 << 61)  # marks a pointer to a function; the rest is its slot
FAULT_CALL = int(Fault.CALL)
LOOP_LIMIT = np.uint64(1 << 23)
EINVAL, E2BIG = np.uint64((1 << 64) - 22), np.uint64((1 << 64) - 7)
_LOOP, _FOR_EACH = np.uint64(LOOP), np.uint64(FOR_EACH)
_U1, _U8 = np.uint64(1), np.uint64(8)
SCRATCH_REGION, SCRATCH_SLOT = 3, 512  # where a callback's key lies; one slot per frame


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
def begin(number: Scalar, regs: Words, block: Scalar, row: Words, slots: Scalar) -> Scalar:
    """Fill a frame's row for a walk: (r0, fault, whether callbacks may follow). slots: size of the program."""
    function = regs[R2]
    if function >> U32 != FUNCTION >> U32 or function & M32 >= np.uint64(slots):
        return U0, FAULT_CALL, False
    row[F_KIND], row[F_INDEX], row[F_CURSOR] = np.uint64(number), U0, U0
    row[F_TARGET], row[F_CONTEXT] = function & M32, regs[R3]
    if number == LOOP:
        if regs[R4]:
            return EINVAL, 0, False
        if regs[R1] & M32 > LOOP_LIMIT:
            return E2BIG, 0, False
        row[F_COUNT] = regs[R1] & M32
        return U0, 0, True
    which = map_number(regs[R1], block)
    if which == U0:
        return U0, FAULT_CALL, False
    if regs[R4]:
        return EINVAL, 0, False
    row[F_MAP] = which
    return U0, 0, True


@hot
def again(regs: Words, regions: Words, row: Words, depth: Scalar, cpu: Scalar, returned: Scalar) -> Scalar:
    """Next round: (True, slot) with the arguments set, or (False, r0). returned: the callback's r0, 0 at the start."""
    if row[F_KIND] == _LOOP:
        if returned != U0 or row[F_INDEX] >= row[F_COUNT]:
            return False, row[F_INDEX]
        regs[R1], regs[R2] = row[F_INDEX], row[F_CONTEXT]
        row[F_INDEX] += _U1
        return True, row[F_TARGET]
    if returned != U0:
        return False, row[F_INDEX]
    number = row[F_MAP]
    offset = np.uint64(depth * SCRATCH_SLOT)
    scratch = regions[np.uint64(SCRATCH_REGION)][0] + offset
    cursor, value = walk.following(regions[number], number, row[F_CURSOR], scratch, cpu)
    if value == U0:
        return False, row[F_INDEX]
    row[F_CURSOR] = cursor
    row[F_INDEX] += _U1
    regs[R1], regs[R3], regs[R4] = number << U32, value, row[F_CONTEXT]
    regs[R2] = np.uint64(SCRATCH_REGION << 32) | offset
    return True, row[F_TARGET]
