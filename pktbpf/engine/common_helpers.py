"""Helpers that most extended programs call: maps, time, packet bytes, identity. Compiled; no call back into Python.

Arguments are r1-r5 of `regs`; the answer is (r0, fault). Memory arguments are resolved with their sizes before use, so
an unverified program faults instead of reaching anything else. Bodies: kernel/bpf/helpers.c and net/core/filter.c.
"""

from __future__ import annotations

import numpy as np

from pktbpf.abi.context import COLUMN, UNSET
from pktbpf.abi.helpers import BY_NAME
from pktbpf.engine.arith import M32, U0, U32
from pktbpf.engine.base import Fault
from pktbpf.engine.basic_helpers import S_BOOT_TIME, S_COOKIE, S_NETNS, S_UID, random_u32
from pktbpf.engine.memory import (
    B_CAPTURED,
    B_COUNT,
    B_DATA,
    B_HEAD,
    B_LENGTH,
    B_MAC,
    B_NETWORK,
    B_STATE,
    argument,
    charge,
    map_row,
    metadata,
    reach,
    region_row,
)  # fmt: skip
from pktbpf.hot import Scalar, hot, peek8, peek64
from pktbpf.maps import dispatch
from pktbpf.maps.layout import FIRST_NUMBER, KEY_SIZE, KIND, MAP_POINTER, READ, VALUE_SIZE, WRITE, clear, copy

(
    LOOKUP, UPDATE, DELETE, KTIME, PRANDOM, PROCESSOR, NUMA, COOKIE, UID, LOAD_BYTES, LOAD_RELATIVE, JIFFIES, BOOT,
    COARSE, TAI, STRNCMP, SPIN_LOCK, SPIN_UNLOCK, NETNS,
) = (
    BY_NAME[n].id for n in (
        "map_lookup_elem", "map_update_elem", "map_delete_elem", "ktime_get_ns", "get_prandom_u32",
        "get_smp_processor_id", "get_numa_node_id", "get_socket_cookie", "get_socket_uid", "skb_load_bytes",
        "skb_load_bytes_relative", "jiffies64", "ktime_get_boot_ns", "ktime_get_coarse_ns", "ktime_get_tai_ns",
        "strncmp", "spin_lock", "spin_unlock", "get_netns_cookie",
    )
)  # fmt: skip
NUMBERS = frozenset({
    LOOKUP, UPDATE, DELETE, KTIME, PRANDOM, PROCESSOR, NUMA, COOKIE, UID, LOAD_BYTES, LOAD_RELATIVE, JIFFIES, BOOT,
    COARSE, TAI, STRNCMP, SPIN_LOCK, SPIN_UNLOCK, NETNS,
})  # fmt: skip

R1, R2, R3, R4, R5 = (np.uint64(n) for n in (1, 2, 3, 4, 5))
F_MEMORY, F_CALL, F_INDETERMINATE = int(Fault.MEMORY), int(Fault.CALL), int(Fault.INDETERMINATE)
CPU, TIMESTAMP = COLUMN["cpu"], COLUMN["timestamp"]
EFAULT = np.uint64((1 << 64) - 14)
_FIRST = np.uint64(FIRST_NUMBER)
_INT_MAX, _U16_MAX = np.uint64(0x7FFFFFFF), np.uint64(0xFFFF)
_CLOCK_TICK = np.uint64(4_000_000)  # nanoseconds; the live kernel runs with CONFIG_HZ=250
_FIRST_TICK = np.uint64((1 << 32) - 300 * 250)  # INITIAL_JIFFIES: the counter starts five minutes before it wraps
_U1, _U8 = np.uint64(1), np.uint64(8)


@hot
def map_number(value: Scalar, block: Scalar) -> Scalar:
    """Number of the map that a map pointer names, 0 for anything else."""
    number = (value ^ MAP_POINTER) >> U32
    if number < _FIRST or number >= peek64(block + B_COUNT) or value & M32:
        return U0
    return number if column(region_row(block, number), KIND) != U0 else U0


@hot
def column(row: Scalar, name: Scalar) -> Scalar:
    """A column (plain number) of a map's row at a machine address."""
    return peek64(row + np.uint64(name) * _U8)


@hot
def map_element(number: Scalar, block: Scalar, cpu: Scalar) -> Scalar:
    """(r0, fault) of the lookup, update and delete helpers."""
    which = map_number(argument(block, R1), block)
    if which == U0:
        return U0, F_CALL
    row = map_row(block, which)
    key = reach(argument(block, R2), row[KEY_SIZE], READ, block)
    if key == U0:
        return U0, F_MEMORY
    if number == LOOKUP:
        return dispatch.lookup(row, which, key, cpu), 0
    if number == DELETE:
        return np.uint64(np.int64(dispatch.delete(row, key))), 0
    value = reach(argument(block, R3), row[VALUE_SIZE], READ, block)
    if value == U0:
        return U0, F_MEMORY
    charge(block, row[VALUE_SIZE])
    return np.uint64(np.int64(dispatch.update(row, key, value, argument(block, R4), cpu))), 0


@hot
def copy_packet(target: Scalar, size: Scalar, begin: Scalar, block: Scalar) -> Scalar:
    """Copy `size` bytes at offset `begin` (int64) from byte 0 to a machine address: (r0, fault); else zeros."""
    end = begin + np.int64(size)
    if end > np.int64(peek64(block + B_LENGTH)):
        clear(target, size)
        return EFAULT, 0
    if end > np.int64(peek64(block + B_CAPTURED)) or begin < -np.int64(peek64(block + B_HEAD)):
        return U0, F_INDETERMINATE
    copy(target, peek64(block + B_DATA) + np.uint64(begin), size)
    return U0, 0


@hot
def load_bytes(block: Scalar) -> Scalar:
    """bpf_skb_load_bytes(skb, offset, to, len)."""
    size, offset = argument(block, R4) & M32, argument(block, R2) & M32
    target = reach(argument(block, R3), size, WRITE, block)
    if target == U0:
        return U0, F_MEMORY
    if offset > _INT_MAX:
        clear(target, size)
        return EFAULT, 0
    return copy_packet(target, size, np.int64(offset), block)


@hot
def load_relative(block: Scalar) -> Scalar:
    """bpf_skb_load_bytes_relative(skb, offset, to, len, start_header): from the link (0) or network (1) header."""
    size, offset, header = argument(block, R4) & M32, argument(block, R2) & M32, argument(block, R5) & M32
    target = reach(argument(block, R3), size, WRITE, block)
    if target == U0:
        return U0, F_MEMORY
    mac, network = np.int64(peek64(block + B_MAC)), np.int64(peek64(block + B_NETWORK))
    if offset > _U16_MAX or header > _U1 or (header == U0 and mac == UNSET):
        clear(target, size)
        return EFAULT, 0
    start = mac if header == U0 else (network if network != UNSET else np.int64(0))
    return copy_packet(target, size, start + np.int64(offset), block)


@hot
def strncmp(block: Scalar) -> Scalar:
    """bpf_strncmp(s1, s1_sz, s2): the order of the first bytes that differ, as strncmp."""
    size = argument(block, R2) & M32
    left = reach(argument(block, R1), size, READ, block)
    if left == U0:
        return U0, F_MEMORY
    for index in range(np.int64(size)):
        right = reach(argument(block, R3) + np.uint64(index), _U1, READ, block)
        if right == U0:
            return U0, F_MEMORY
        a, b = peek8(left + np.uint64(index)), peek8(right)
        if a != b:
            return (np.uint64(np.int64(-1)) if a < b else _U1), 0
        if a == U0:
            break
    return U0, 0


@hot
def clock(number: Scalar, block: Scalar) -> Scalar:
    """Nanoseconds by the packet's timestamp; since boot, for all clocks but TAI, as the environment sets boot."""
    now = np.uint64(metadata(block, TIMESTAMP))
    if number == TAI:
        return now
    since_boot = now - state_value(block, S_BOOT_TIME)
    return since_boot // _CLOCK_TICK + _FIRST_TICK if number == JIFFIES else since_boot


@hot
def state_value(block: Scalar, index: Scalar) -> Scalar:
    """One word of the helpers' state."""
    return peek64(peek64(block + B_STATE) + np.uint64(index) * _U8)


@hot
def call_common(number: Scalar, block: Scalar) -> Scalar:
    """(r0, fault) of one call; CALL for a number that is none of these."""
    if number == LOOKUP or number == UPDATE or number == DELETE:
        return map_element(number, block, np.uint64(metadata(block, CPU)))
    if number == LOAD_BYTES:
        return load_bytes(block)
    if number == LOAD_RELATIVE:
        return load_relative(block)
    if number == KTIME or number == BOOT or number == COARSE or number == TAI or number == JIFFIES:
        return clock(number, block), 0
    if number == PRANDOM:
        return random_u32(peek64(block + B_STATE)), 0
    if number == PROCESSOR:
        return np.uint64(metadata(block, CPU)), 0
    if number == NUMA or number == SPIN_LOCK or number == SPIN_UNLOCK:
        return U0, 0
    if number == COOKIE:
        return state_value(block, S_COOKIE), 0
    if number == NETNS:
        return state_value(block, S_NETNS), 0
    if number == UID:
        return state_value(block, S_UID), 0
    if number == STRNCMP:
        return strncmp(block)
    return U0, F_CALL
