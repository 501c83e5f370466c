"""bpf_timer_* on the replay's clock, and bpf_kptr_xchg. Compiled only where called.

Time is the packets' timestamps: before a packet runs, every timer that has expired by then fires in order of expiry,
each callback at its own expiry time; what is still armed after the last packet does not fire. A timer in a map value
holds 1 + its place in a table (TIMERS entries) of the runner. Bodies: kernel/bpf/helpers.c (bpf_timer_*).
"""

from __future__ import annotations

import numpy as np

from pktbpf.abi.context import COLUMN
from pktbpf.abi.helpers import BY_NAME
from pktbpf.abi.map_kinds import BY_NAME as KINDS
from pktbpf.engine.arith import M32, U0, U32
from pktbpf.engine.basic_helpers import S_BOOT_TIME
from pktbpf.engine.common_helpers import F_CALL, F_MEMORY, R1, R2, R3, column, map_number, state_value
from pktbpf.engine.control_helpers import SCRATCH_REGION, function_slot
from pktbpf.engine.memory import argument, metadata, reach, region_row
from pktbpf.hot import Ints, Scalar, Words, hot, peek64, poke32, poke64
from pktbpf.maps.layout import KEY_SIZE, KEY_STRIDE, KEYS_AT, KIND, MAP_POINTER, READ, STRIDE, WRITE, copy

INIT, SET_CALLBACK, START, CANCEL, XCHG = (
    BY_NAME[n].id for n in ("timer_init", "timer_set_callback", "timer_start", "timer_cancel", "kptr_xchg")
)
NUMBERS = frozenset({INIT, SET_CALLBACK, START, CANCEL, XCHG})

TIMERS = 1 << 16  # entries of the table; more timers at once are -ENOMEM
# Words of the state: entries in use, number of the running one, starts so far, the earliest expiry (never later than it
# is), a number below which no entry is free.
T_COUNT, T_RUNNING, T_STARTS, T_NEXT, T_FREE = (np.uint64(8 * n) for n in range(5))
TIMER_STATE = 5
# Words of an entry, the table being behind the state: pointer to the timer (0: free), clock, callback as the
# program's pointer, 0 for none, expiry in nanoseconds since 1970, number of its start (0: not armed).
E_TIMER, E_CLOCK, E_CALLBACK, E_EXPIRY, E_START = (np.uint64(8 * n) for n in range(5))
TIMER_ENTRY = 5
NEVER = np.uint64((1 << 63) - 1)

HASH, ARRAY, LRU_HASH = (KINDS[n].number for n in ("HASH", "ARRAY", "LRU_HASH"))
CPU, TIMESTAMP = COLUMN["cpu"], COLUMN["timestamp"]
EINVAL, EBUSY, ENOMEM, EDEADLK = (np.uint64((1 << 64) - n) for n in (22, 16, 12, 35))
_REALTIME, _MONOTONIC, _BOOTTIME = U0, np.uint64(1), np.uint64(7)
_ABSOLUTE, _FLAGS = np.uint64(1), np.uint64(3)
_TABLE, _ENTRY = np.uint64(8 * TIMER_STATE), np.uint64(8 * TIMER_ENTRY)
_U1, _U8, _SIZE = np.uint64(1), np.uint64(8), np.uint64(16)
_BOTH = READ | WRITE


@hot
def _entry(timers: Scalar, number: Scalar) -> Scalar:
    """Machine address of entry `number`, counted from 1."""
    return timers + _TABLE + (number - _U1) * _ENTRY


@hot
def _found(timers: Scalar, pointer: Scalar, place: Scalar) -> Scalar:
    """The entry of the timer at a pointer (machine address `place`), 0 when it has not been initialised."""
    number = peek64(place)
    if number == U0 or number > peek64(timers + T_COUNT):
        return U0
    entry = _entry(timers, number)
    return entry if peek64(entry + E_TIMER) == pointer else U0


@hot
def _init(timers: Scalar, pointer: Scalar, place: Scalar, clock: Scalar) -> Scalar:
    """r0 of bpf_timer_init."""
    if clock != _REALTIME and clock != _MONOTONIC and clock != _BOOTTIME:
        return EINVAL
    if _found(timers, pointer, place) != U0:
        return EBUSY
    number, count = peek64(timers + T_FREE), peek64(timers + T_COUNT)
    while number <= count and peek64(_entry(timers, number) + E_TIMER) != U0:
        number += _U1
    if number > np.uint64(TIMERS):
        return ENOMEM
    if number > count:
        poke64(timers + T_COUNT, number)
    entry = _entry(timers, number)
    poke64(timers + T_FREE, number + _U1)
    poke64(entry + E_TIMER, pointer)
    poke64(entry + E_CLOCK, clock)
    poke64(entry + E_CALLBACK, U0)
    poke64(entry + E_START, U0)
    poke64(place, number)
    return U0


@hot
def _start(timers: Scalar, entry: Scalar, block: Scalar) -> Scalar:
    """r0 of bpf_timer_start(timer, nsecs, flags); a time beyond the clock's end never comes."""
    wait, flags = argument(block, R2), argument(block, R3)
    if flags > _FLAGS or entry == U0 or peek64(entry + E_CALLBACK) == U0:
        return EINVAL
    base = np.uint64(metadata(block, TIMESTAMP))
    if flags & _ABSOLUTE:
        base = U0 if peek64(entry + E_CLOCK) == _REALTIME else state_value(block, S_BOOT_TIME)
    expiry = base + wait
    if wait > NEVER or expiry > NEVER:
        expiry = NEVER
    starts = peek64(timers + T_STARTS) + _U1
    poke64(timers + T_STARTS, starts)
    poke64(entry + E_EXPIRY, expiry)
    poke64(entry + E_START, starts)
    if expiry < peek64(timers + T_NEXT):
        poke64(timers + T_NEXT, expiry)
    return U0


@hot
def _cancel(timers: Scalar, entry: Scalar) -> Scalar:
    """r0 of bpf_timer_cancel: whether it was armed."""
    if entry == U0:
        return EINVAL
    running = peek64(timers + T_RUNNING)
    if running != U0 and _entry(timers, running) == entry:
        return EDEADLK
    armed = peek64(entry + E_START) != U0
    poke64(entry + E_CALLBACK, U0)
    poke64(entry + E_START, U0)
    return _U1 if armed else U0


@hot
def call_timers(number: Scalar, block: Scalar, timers: Scalar) -> Scalar:
    """(r0, fault) of one call; CALL for a number that is none of these. timers: machine address of the state."""
    if not (number == INIT or number == SET_CALLBACK or number == START or number == CANCEL or number == XCHG):
        return U0, F_CALL
    pointer = argument(block, R1)
    place = reach(pointer, _U8 if number == XCHG else _SIZE, _BOTH, block)
    if place == U0:
        return U0, F_MEMORY
    if number == XCHG:
        old = peek64(place)
        poke64(place, argument(block, R2))
        return old, 0
    if number == INIT:
        which = map_number(argument(block, R2), block)
        if which == U0 or which != pointer >> U32:
            return U0, F_CALL
        kind = np.int64(column(region_row(block, which), KIND))
        if kind != HASH and kind != ARRAY and kind != LRU_HASH:
            return U0, F_CALL
        return _init(timers, pointer, place, argument(block, R3)), 0
    entry = _found(timers, pointer, place)
    if number == START:
        return _start(timers, entry, block), 0
    if number == CANCEL:
        return _cancel(timers, entry), 0
    function = argument(block, R2)
    if function_slot(function, block) < 0:
        return U0, F_CALL
    if entry == U0:
        return EINVAL, 0
    poke64(entry + E_CALLBACK, function)
    return U0, 0


@hot
def _earliest(timers: Scalar) -> Scalar:
    """Number of the armed entry that expires first, of those the one started first; 0 for none. Renews T_NEXT."""
    best, number, next_expiry, next_start = U0, _U1, NEVER, U0
    while number <= peek64(timers + T_COUNT):
        entry = _entry(timers, number)
        start, expiry = peek64(entry + E_START), peek64(entry + E_EXPIRY)
        if start != U0 and (expiry < next_expiry or (expiry == next_expiry and best != U0 and start < next_start)):
            best, next_expiry, next_start = number, expiry, start
        number += _U1
    poke64(timers + T_NEXT, next_expiry)
    return best


@hot
def _key(value: Scalar, row: Scalar, scratch: Scalar) -> None:
    """Copy the key of a value (its offset in the map) to a machine address."""
    index = value // column(row, STRIDE)
    if np.int64(column(row, KIND)) == ARRAY:
        poke32(scratch, index)
    else:
        copy(scratch, column(row, KEYS_AT) + index * column(row, KEY_STRIDE), column(row, KEY_SIZE))


@hot
def expired(timers: Scalar, packet: Ints, regs: Words, block: Scalar, meta: Scalar) -> Scalar:
    """Slot of the next callback to run before a packet (its metadata row), its arguments set; -1 when there is none.

    meta: machine address of the metadata row that is the callback's, filled here. A timer whose map entry
    has gone is dropped.
    """
    now = np.uint64(packet[TIMESTAMP])
    while peek64(timers + T_NEXT) <= now:
        number = _earliest(timers)
        if number == U0 or peek64(timers + T_NEXT) > now:
            break
        entry = _entry(timers, number)
        pointer, callback = peek64(entry + E_TIMER), function_slot(peek64(entry + E_CALLBACK), block)
        place = reach(pointer, _SIZE, _BOTH, block)
        poke64(entry + E_START, U0)
        if place == U0 or peek64(place) != number or callback < 0:
            poke64(entry + E_TIMER, U0)
            if number < peek64(timers + T_FREE):
                poke64(timers + T_FREE, number)
            continue
        which = pointer >> U32
        row = region_row(block, which)
        offset = (pointer & M32) // column(row, STRIDE) * column(row, STRIDE)
        _key(offset, row, peek64(region_row(block, np.uint64(SCRATCH_REGION))))
        regs[R1], regs[R2] = MAP_POINTER | which << U32, np.uint64(SCRATCH_REGION << 32)
        regs[R3] = which << U32 | offset
        poke64(timers + T_RUNNING, number)
        poke64(meta + np.uint64(8 * TIMESTAMP), peek64(entry + E_EXPIRY))
        poke64(meta + np.uint64(8 * CPU), np.uint64(packet[CPU]))
        return callback
    return np.int64(-1)
