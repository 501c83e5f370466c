"""Helpers that a translated classic program can call: the random number, the processor, and the internal ones.

Bodies mirror net/core/filter.c (bpf_skb_get_nlattr, bpf_skb_get_nlattr_nest, bpf_skb_get_pay_offset) and the flow
dissector behind the last one (pktbpf.engine.dissect). Compiled; called from the interpreter's loop.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pktbpf.abi.context import COLUMN
from pktbpf.engine.arith import M32, U0
from pktbpf.engine.base import Env, Fault
from pktbpf.engine.dissect import payload_offset
from pktbpf.hot import Bytes, Ints, Scalar, Words, hot, peek64, poke64
from pktbpf.program import INTERNAL_HELPERS

PRANDOM, PROCESSOR = 7, 8
PAY_OFFSET, NLATTR, NLATTR_NEST, DEV_TYPE = (
    INTERNAL_HELPERS[n] for n in ("skb_get_pay_offset", "skb_get_nlattr", "skb_get_nlattr_nest", "dev_type")
)
NUMBERS = frozenset({PRANDOM, PROCESSOR, *INTERNAL_HELPERS.values()})

NLA_HEADER = 4
IFINDEX, HATYPE, CPU = COLUMN["ifindex"], COLUMN["hatype"], COLUMN["cpu"]
R1, R2, R3 = (np.uint64(n) for n in (1, 2, 3))
S12, S25, S27 = (np.uint64(n) for n in (12, 25, 27))
STAR = np.uint64(0x2545F4914F6CDD1D)
NO_DEVICE = np.uint64(0xFFFFFFFFFFFFFFFF)
# state: what helpers keep from one packet to the next or are told by the environment.
S_RANDOM, S_BOOT_TIME, S_COOKIE, S_UID, S_NETNS = range(5)
STATE_SIZE = 16
_RANDOM = np.uint64(8 * S_RANDOM)

F_CALL, F_INDETERMINATE = int(Fault.CALL), int(Fault.INDETERMINATE)


def initial_state(env: Env) -> NDArray[np.uint64]:
    """uint64[STATE_SIZE]: the random generator's state (never zero), boot time, socket cookie, socket user id,
    cookie of the network namespace."""
    state = np.zeros(STATE_SIZE, dtype=np.uint64)
    state[S_RANDOM] = (env.seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) & (1 << 64) - 1 or 1
    state[S_BOOT_TIME], state[S_COOKIE], state[S_UID] = env.boot_time, env.socket_cookie, env.socket_uid
    state[S_NETNS] = env.netns_cookie
    return state


@hot
def random_u32(state: Scalar) -> Scalar:
    """32 bits of xorshift64* (Vigna 2016), reproducible by the seed. state: machine address of the helpers' state."""
    value = peek64(state + _RANDOM)
    value ^= value >> S12
    value ^= value << S25
    value ^= value >> S27
    poke64(state + _RANDOM, value)
    return (value * STAR) >> np.uint64(32)


@hot
def find_attribute(data: Bytes, base: Scalar, begin: Scalar, end: Scalar, wanted: Scalar) -> Scalar:
    """Offset of the first netlink attribute of type `wanted` (14 bits) between two offsets, 0 for none (nla_find)."""
    at = begin
    while end - at >= NLA_HEADER:
        size = np.int64(data[base + at]) | np.int64(data[base + at + 1]) << 8
        if size < NLA_HEADER or size > end - at:
            return np.int64(0)
        kind = (np.int64(data[base + at + 2]) | np.int64(data[base + at + 3]) << 8) & 0x3FFF
        if kind == wanted:
            return at
        at += (size + 3) & ~3
    return np.int64(0)


@hot
def nlattr(data: Bytes, base: Scalar, length: Scalar, captured: Scalar, a: Scalar, x: Scalar, nested: Scalar) -> Scalar:
    """(offset, 0) as the kernel finds it; (0, INDETERMINATE) when the capture was cut short of the packet."""
    if length < NLA_HEADER or a > length - NLA_HEADER:
        return U0, 0
    if captured < length:
        return U0, F_INDETERMINATE
    begin, end = a, length
    if nested:
        size = np.int64(data[base + a]) | np.int64(data[base + a + 1]) << 8
        if size > length - a:
            return U0, 0
        begin, end = a + NLA_HEADER, a + size
    return np.uint64(find_attribute(data, base, begin, end, x)), 0


@hot
def call_basic(
    number: Scalar,
    regs: Words,
    row: Ints,
    data: Bytes,
    base: Scalar,
    length: Scalar,
    captured: Scalar,
    network: Scalar,
    state: Scalar,
) -> Scalar:
    """(r0, 0), or (0, fault). row: the packet's metadata columns. state: machine address of the helpers' state."""
    if number == PRANDOM:
        return random_u32(state), 0
    if number == PROCESSOR:
        return np.uint64(row[CPU]), 0
    if number == DEV_TYPE:
        return (np.uint64(row[HATYPE]) if row[IFINDEX] > 0 else NO_DEVICE), 0
    if number == NLATTR or number == NLATTR_NEST:
        a, x = np.int64(regs[R2] & M32), np.int64(regs[R3] & M32)
        return nlattr(data, base, length, captured, a, x, number == NLATTR_NEST)
    if number == PAY_OFFSET:
        return payload_offset(data, base, length, captured, network, row)
    return U0, F_CALL
