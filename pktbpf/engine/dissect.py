"""Where the payload of a packet begins, as the kernel's flow dissector sees it (skb_get_poff, net/core).

Only what that function needs: protocol, transport offset, fragment flags. `state` holds EtherType, offset, IP protocol
and fragment kind while the walk goes from header to header, at most 15 of them. A header that lies inside the packet
but outside the captured bytes makes the answer unknown.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pktbpf.abi.context import COLUMN, UNSET
from pktbpf.engine.arith import U0
from pktbpf.engine.base import Fault
from pktbpf.engine.link import be16, be32
from pktbpf.hot import Bytes, Ints, Scalar, hot

GOOD, BAD, AGAIN, TRANSPORT, IP_AGAIN, UNKNOWN = range(6)
PROTO, OFFSET, IP_PROTO, FRAGMENT, VLANS = range(5)
NOT_FRAGMENT, LATER_FRAGMENT, FIRST_FRAGMENT = range(3)
MAX_HEADERS = 15

VLAN_PRESENT, VLAN_PROTO, PROTOCOL = COLUMN["vlan_present"], COLUMN["vlan_proto"], COLUMN["protocol"]
F_INDETERMINATE = int(Fault.INDETERMINATE)

# Bytes that skb_get_poff adds for a transport header, by IP protocol: UDP, UDP-Lite, ICMP, ICMPv6, IGMP, DCCP, SCTP.
_TRANSPORT = np.zeros(256, dtype=np.int64)
for _protocol, _size in ((17, 8), (136, 8), (1, 8), (58, 8), (2, 8), (33, 12), (132, 12)):
    _TRANSPORT[_protocol] = _size


@hot
def missing(at: Scalar, size: Scalar, length: Scalar, captured: Scalar) -> Scalar:
    """0 when `size` bytes at offset `at` are there, else BAD (past the packet) or UNKNOWN (past the capture)."""
    if at + size > length:
        return BAD
    return UNKNOWN if at + size > captured or at < 0 else 0


@hot
def _ipv4(data: Bytes, base: Scalar, length: Scalar, captured: Scalar, state: Ints) -> Scalar:
    at = state[OFFSET]
    lack = missing(at, 20, length, captured)
    if lack:
        return lack
    words = data[base + at] & 15
    if words < 5:
        return BAD
    state[OFFSET] = at + np.int64(words) * 4
    state[IP_PROTO] = data[base + at + 9]
    fragment = be16(data, base + at + 6)
    if fragment & 0x3FFF:
        state[FRAGMENT] = LATER_FRAGMENT if fragment & 0x1FFF else FIRST_FRAGMENT
        return GOOD
    return TRANSPORT


@hot
def _ipv6(data: Bytes, base: Scalar, length: Scalar, captured: Scalar, state: Ints) -> Scalar:
    at = state[OFFSET]
    lack = missing(at, 40, length, captured)
    if lack:
        return lack
    state[IP_PROTO] = data[base + at + 6]
    state[OFFSET] = at + 40
    return TRANSPORT


@hot
def _vlan(data: Bytes, base: Scalar, length: Scalar, captured: Scalar, state: Ints, row: Ints) -> Scalar:
    first = state[VLANS] == 0
    state[VLANS] += 1
    if first and row[VLAN_PRESENT]:
        state[PROTO] = row[PROTOCOL]
        return AGAIN
    lack = missing(state[OFFSET], 4, length, captured)
    if lack:
        return lack
    state[PROTO] = be16(data, base + state[OFFSET] + 2)
    state[OFFSET] += 4
    return AGAIN


@hot
def _pppoe(data: Bytes, base: Scalar, length: Scalar, captured: Scalar, state: Ints) -> Scalar:
    at = base + state[OFFSET]
    lack = missing(state[OFFSET], 8, length, captured)
    if lack:
        return lack
    if data[at] != 0x11 or data[at + 1] != 0:
        return BAD
    state[OFFSET] += 8
    inner = be16(data, at + 6)
    ether = 0x0800 if inner == 0x21 else 0x86DD if inner == 0x57 else 0
    if inner == 0x281 or inner == 0x283:
        ether = 0x8847
    if ether:
        state[PROTO] = ether
        return AGAIN
    return GOOD if inner & 0x0101 == 1 else BAD


@hot
def _skip(
    data: Bytes, base: Scalar, length: Scalar, captured: Scalar, state: Ints, size: Scalar, verdict: Any
) -> Scalar:
    """Protocols whose header is only stepped over."""
    lack = missing(state[OFFSET], size, length, captured)
    if lack:
        return lack
    state[OFFSET] += size
    return verdict


@hot
def _inner_ethernet(
    data: Bytes, base: Scalar, length: Scalar, captured: Scalar, state: Ints, size: Scalar, proto_at: Scalar
) -> Scalar:
    """HSR, PRP and batman-adv: a header that names the protocol inside."""
    at = base + state[OFFSET]
    lack = missing(state[OFFSET], size, length, captured)
    if lack:
        return lack
    if size == 24 and (data[at] != 0x40 or data[at + 1] != 15):
        return BAD
    state[PROTO] = be16(data, at + proto_at)
    state[OFFSET] += size
    return AGAIN


@hot
def _network(data: Bytes, base: Scalar, length: Scalar, captured: Scalar, state: Ints, row: Ints) -> Scalar:
    proto = state[PROTO]
    if proto == 0x0800:
        return _ipv4(data, base, length, captured, state)
    if proto == 0x86DD:
        return _ipv6(data, base, length, captured, state)
    if proto == 0x8100 or proto == 0x88A8:
        return _vlan(data, base, length, captured, state, row)
    if proto == 0x8864:
        return _pppoe(data, base, length, captured, state)
    if proto == 0x8847 or proto == 0x8848:
        state[OFFSET] += 4
        return GOOD
    if proto == 0x0806 or proto == 0x8035 or proto == 0x8902:
        return GOOD
    if proto == 0x88CA:
        lack = missing(state[OFFSET], 16, length, captured)
        return lack if lack else GOOD
    if proto == 0x8906:
        return _skip(data, base, length, length, state, 38, GOOD)
    if proto == 0x88F7:
        return _skip(data, base, length, captured, state, 34, GOOD)
    if proto == 0x4305:
        return _inner_ethernet(data, base, length, captured, state, 24, 22)
    if proto == 0x88FB or proto == 0x892F:
        return _inner_ethernet(data, base, length, captured, state, 6, 4)
    return BAD


@hot
def _gre(data: Bytes, base: Scalar, length: Scalar, captured: Scalar, state: Ints) -> Scalar:
    at = state[OFFSET]
    lack = missing(at, 4, length, captured)
    if lack:
        return lack
    flags, version = be16(data, base + at), be16(data, base + at) & 7
    if flags & 0x4000 or version > 1:
        return GOOD
    state[PROTO] = be16(data, base + at + 2)
    if version == 1 and not (state[PROTO] == 0x880B and flags & 0x2000):
        return GOOD
    at += 8 if flags & 0x8000 else 4
    if flags & 0x2000:
        lack = missing(at, 4, length, captured)
        if lack:
            return lack
        at += 4
    if flags & 0x1000:
        at += 4
    return _gre_inside(data, base, length, captured, state, at, version, flags)


@hot
def _gre_inside(
    data: Bytes, base: Scalar, length: Scalar, captured: Scalar, state: Ints, at: Scalar, version: Scalar, flags: Scalar
) -> Scalar:
    if version == 0:
        if state[PROTO] == 0x6558:  # transparent Ethernet bridging
            lack = missing(at, 14, length, captured)
            if lack:
                return lack
            state[PROTO] = be16(data, base + at + 12)
            at += 14
    else:
        if flags & 0x0080:
            at += 4
        lack = missing(at, 4, length, captured)
        if lack:
            return lack
        inner = be16(data, base + at + 2)
        if inner == 0x21 or inner == 0x57:
            state[PROTO] = 0x0800 if inner == 0x21 else 0x86DD
        at += 4
    state[OFFSET] = at
    return AGAIN


@hot
def _ipv6_extension(data: Bytes, base: Scalar, length: Scalar, captured: Scalar, state: Ints) -> Scalar:
    at = state[OFFSET]
    if state[IP_PROTO] == 44:
        lack = missing(at, 8, length, captured)
        if lack:
            return lack
        state[OFFSET] = at + 8
        state[IP_PROTO] = data[base + at]
        state[FRAGMENT] = LATER_FRAGMENT if be32(data, base + at) & 0xFFF8 else FIRST_FRAGMENT
        return GOOD
    lack = missing(at, 2, length, captured)
    if lack:
        return lack
    state[IP_PROTO] = data[base + at]
    state[OFFSET] = at + (np.int64(data[base + at + 1]) + 1) * 8
    return IP_AGAIN


@hot
def _transport(data: Bytes, base: Scalar, length: Scalar, captured: Scalar, state: Ints) -> Scalar:
    protocol = state[IP_PROTO]
    if protocol == 47:
        return _gre(data, base, length, captured, state)
    if protocol == 0 or protocol == 43 or protocol == 44 or protocol == 60:
        return _ipv6_extension(data, base, length, captured, state) if state[PROTO] == 0x86DD else GOOD
    if protocol == 4 or protocol == 41 or protocol == 137:
        state[PROTO] = 0x0800 if protocol == 4 else 0x86DD if protocol == 41 else 0x8847
        return AGAIN
    return GOOD


@hot
def _walk(data: Bytes, base: Scalar, length: Scalar, captured: Scalar, state: Ints, row: Ints) -> Scalar:
    """Header after header until the dissector stops: GOOD, BAD or UNKNOWN."""
    headers, step = 0, AGAIN
    while True:
        if step == AGAIN:
            step = _network(data, base, length, captured, state, row)
        else:
            step = _transport(data, base, length, captured, state)
        if step == AGAIN or step == IP_AGAIN:
            headers += 1
            if headers > MAX_HEADERS:
                return GOOD
        elif step != TRANSPORT:
            return step


@hot
def payload_offset(data: Bytes, base: Scalar, length: Scalar, captured: Scalar, network: Scalar, row: Ints) -> Scalar:
    """(offset, 0) of the payload from byte 0; (0, 0) when the dissector gives up; (0, INDETERMINATE) when cut short."""
    state = np.zeros(5, dtype=np.int64)
    state[PROTO] = row[VLAN_PROTO] if row[VLAN_PRESENT] else row[PROTOCOL]
    # The walk counts from the network header, which may stand in front of byte 0 (a UDP socket).
    start = 0 if network == UNSET else network
    if base + start < 0:
        return U0, F_INDETERMINATE
    result = _walk(data, base + start, length - start, captured - start, state, row)
    if result == UNKNOWN:
        return U0, F_INDETERMINATE
    # The offset is compared as u32: one before byte 0 counts as beyond the packet.
    thoff = min((state[OFFSET] + start) & 0xFFFFFFFF, length)
    if result == BAD or thoff > 0xFFFF:
        return U0, 0
    if state[FRAGMENT] == LATER_FRAGMENT:
        return np.uint64(thoff), 0
    if state[IP_PROTO] == 6:
        lack = missing(thoff + 12, 1, length, captured)
        if lack == UNKNOWN:
            return U0, F_INDETERMINATE
        if lack:
            return np.uint64(thoff), 0
        return np.uint64(thoff + max(20, (data[base + thoff + 12] & 0xF0) >> 2)), 0
    return np.uint64(thoff + _TRANSPORT[state[IP_PROTO]]), 0
