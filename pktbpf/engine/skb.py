"""Captured packets as a socket's program sees them: where byte 0 is, how long the skb is, and its metadata.

view() turns a Batch into Skbs for an attach profile. With `strip_vlan` the outer tag is taken out of the reader's
buffer in place, as the kernel does (skb_vlan_untag), and put back when the view is left; so use it as a context.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pktbpf.abi.context import COLUMN, COLUMNS, RANGES, UNSET
from pktbpf.capture.batch import Batch
from pktbpf.engine import link
from pktbpf.engine.base import AttachProfile, Env, Layer, Skbs
from pktbpf.errors import UsageError
from pktbpf.hot import Bytes, Ints, Scalar, borrowed, hot

_LAYER = {Layer.LINK: 0, Layer.NETWORK: 1, Layer.UDP: 2, Layer.PAYLOAD: 3, Layer.IP: 4}
_EMPTY = np.zeros((0, len(COLUMNS)), dtype=np.int64)

PROTOCOL, PKT_TYPE, IFINDEX, HATYPE = (COLUMN[c] for c in ("protocol", "pkt_type", "ifindex", "hatype"))
VLAN_PRESENT, VLAN_TCI, VLAN_PROTO = (COLUMN[c] for c in ("vlan_present", "vlan_tci", "vlan_proto"))
MAC_OFFSET, NETWORK_OFFSET, TIMESTAMP = (COLUMN[c] for c in ("mac_offset", "network_offset", "timestamp"))
INGRESS, CPU = COLUMN["ingress_ifindex"], COLUMN["cpu"]


@contextmanager
def view(batch: Batch, profile: AttachProfile, env: Env, *, meta: bool) -> Iterator[Skbs]:
    """The packets of a batch as the profile's socket sees them.

    meta: fill the metadata columns (a program asked for them). While the context is open and env.strip_vlan is set,
    batch.data is changed; it is restored at the end. Raises UsageError for an unknown metadata column in env.
    """
    fixed = _fixed_header(batch, profile)
    if not meta and not env.strip_vlan and not env.metadata and fixed is not None:
        zeros, ones = _constants(len(batch))
        yield Skbs(batch.data, batch.start, batch.wirelen, batch.caplen, zeros, _EMPTY, ones, *fixed)
        return
    skbs, tags = _locate(batch, profile, env)
    try:
        override(skbs, env)
        yield skbs
    finally:
        if env.strip_vlan:
            _put_back(batch.data, batch.start, tags)


@functools.lru_cache(maxsize=8)
def _blocks(size: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    return np.zeros(size, dtype=np.int64), np.ones(size, dtype=np.bool_)


def _constants(count: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """int64[count] of 0 and bool[count] of True, shared, so not to be written; making them anew costs 20 ns a packet.

    Not marked read-only: that is another type to numba, and the loop would be compiled twice.
    """
    zeros, ones = _blocks(1 << max(count - 1, 0).bit_length())
    return zeros[:count], ones[:count]


def _fixed_header(batch: Batch, profile: AttachProfile) -> tuple[int, int] | None:
    """(mac_offset, network_offset) where they are the same for all packets, else None."""
    linktype = batch.single_linktype()
    if profile.layer is Layer.PAYLOAD:
        return (UNSET, 0) if linktype != link.NETLINK else None
    header = link.FIXED_HEADER.get(-1 if linktype is None else linktype)
    return (0, header) if profile.layer is Layer.LINK and header is not None else None


def given(batch: Batch, profile: AttachProfile, env: Env, start: int) -> Skbs:
    """Packets that begin `start` bytes into each packet of the batch, as the profile's program sees them.

    Unlike view() nothing is searched for: the caller says where byte 0 is. Metadata defaults: for `packet` what the
    link header at byte 0 says; for the IP profiles the version nibble; offsets where the headers in front of byte 0
    are plain IPv4 or IPv6 and Ethernet, else unset.
    """
    count = len(batch)
    meta = np.zeros((count, len(COLUMNS)), dtype=np.int64)
    skbs = Skbs(
        batch.data, batch.start + start, batch.wirelen - start, batch.caplen - start,
        np.full(count, start, dtype=np.int64), meta, np.ones(count, dtype=np.bool_),
    )  # fmt: skip
    meta[:, TIMESTAMP] = batch.timestamp
    meta[:, IFINDEX] = meta[:, INGRESS] = 1 if profile.device else 0
    if profile.layer is Layer.PAYLOAD:
        meta[:, MAC_OFFSET] = UNSET
    else:
        mac = int.from_bytes(env.mac, "big") if env.mac is not None else -1
        _describe(skbs.data, skbs.base, skbs.captured, start, batch.linktype(0) if count else 1, mac,
                  _LAYER[profile.layer], meta)  # fmt: skip
    override(skbs, env)
    return skbs


@hot
def _describe(
    data: Bytes, base: Ints, captured: Ints, start: Scalar, linktype: Scalar, mac: Scalar, layer: Scalar, meta: Ints
) -> None:
    out = np.zeros(5, dtype=np.int64)
    for number in range(len(base)):
        row, at = borrowed(meta, number), base[number]
        end = at + captured[number]
        if layer == 0:
            link.link_header(data, at, end, linktype, mac, out)
            row[PROTOCOL], row[PKT_TYPE], row[HATYPE] = out[link.PROTOCOL], out[link.PKT_TYPE], out[link.HATYPE]
            row[NETWORK_OFFSET] = out[link.HEADER]
            continue
        network = np.int64(0)
        if layer == 2:
            network = np.int64(UNSET)
            if start >= 40 and data[at - 40] >> 4 == 6:
                network = np.int64(-40)
            if start >= 20 and data[at - 20] == 0x45:
                network = np.int64(-20)
        row[NETWORK_OFFSET], row[MAC_OFFSET], row[HATYPE] = network, UNSET, link.ARPHRD_ETHER
        if network != UNSET:
            row[PROTOCOL] = link.ip_protocol(data, at + network, end)
            if start + network >= 14:
                row[MAC_OFFSET] = network - 14


def metadatum(name: str, value: object) -> int:
    """The value of a metadata column as engines have it: an int or bool in the column's range, None for unset.

    Raises UsageError that names the column.
    """
    if name not in COLUMN:
        raise UsageError(f"unknown metadata {name!r}; there are {', '.join(COLUMNS)}")
    if value is None:
        return UNSET
    lowest, highest = RANGES[name]
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise UsageError(f"metadata {name} is a whole number, not {value!r}") from None
    if number != UNSET and not lowest <= number <= highest:
        raise UsageError(f"metadata {name}={number} is out of range; it goes from {lowest} to {highest}")
    return number


def override(skbs: Skbs, env: Env) -> None:
    """Put the values that env states in the place of derived ones. Raises UsageError for what no column can be."""
    skbs.meta[:, CPU] = env.cpu
    for name, given in env.metadata.items():
        value = metadatum(name, given)
        skbs.meta[:, COLUMN[name]] = value
        if name == "ifindex":
            skbs.meta[:, INGRESS] = value


def _column(count: int) -> NDArray[np.int64]:
    return np.empty(count, dtype=np.int64)


def _locate(batch: Batch, profile: AttachProfile, env: Env) -> tuple[Skbs, NDArray[np.int64]]:
    count = len(batch)
    skbs = Skbs(
        batch.data, _column(count), _column(count), _column(count), _column(count),
        np.empty((count, len(COLUMNS)), dtype=np.int64), np.ones(count, dtype=np.bool_),
    )  # fmt: skip
    tags = np.full(count, -1, dtype=np.int64)
    kinds = np.array([i.linktype for i in batch.interfaces] or [1], dtype=np.int64)
    _fill(
        batch.data, batch.start, batch.caplen, batch.wirelen, batch.timestamp, kinds[batch.interface],
        int.from_bytes(env.mac, "big") if env.mac is not None else -1, _LAYER[profile.layer], profile.device,
        env.strip_vlan, skbs.base, skbs.length, skbs.captured, skbs.head, skbs.meta, skbs.delivered, tags,
    )  # fmt: skip
    return skbs, tags


@hot
def _strip(data: Bytes, at: Scalar, end: Scalar, out: Ints, row: Ints) -> Scalar:
    """Move one VLAN tag out of an Ethernet frame at `at`; returns the tag as 32 bits, -1 when there is none."""
    protocol = out[link.PROTOCOL]
    if (protocol != link.ETH_P_8021Q and protocol != link.ETH_P_8021AD) or end - at < 18:
        return np.int64(-1)
    tag = link.be32(data, at + 12)
    row[VLAN_PRESENT], row[VLAN_TCI], row[VLAN_PROTO] = 1, tag & 0xFFFF, protocol
    for index in range(11, -1, -1):
        data[at + 4 + index] = data[at + index]
    out[link.PROTOCOL] = link.ether_protocol(data, at + 16, end)
    return tag


@hot
def _put_back(data: Bytes, start: Ints, tags: Ints) -> None:
    for number in range(len(tags)):
        tag, at = tags[number], start[number]
        if tag >= 0:
            for index in range(12):
                data[at + index] = data[at + 4 + index]
            for index in range(4):
                data[at + 12 + index] = tag >> (24 - 8 * index) & 0xFF


@hot
def _shift(
    data: Bytes, at: Scalar, header: Scalar, captured: Scalar, length: Scalar, layer: Scalar, protocol: Scalar
) -> Scalar:
    """(bytes from the link header to byte 0, skb->len) for a layer above the link; -1 when it is never delivered."""
    network, end = at + header, at + captured
    if layer == 1:
        return header, length - header
    is_ipv4, is_ipv6 = protocol == link.ETH_P_IP, protocol == link.ETH_P_IPV6
    stated = link.ip_total_length(data, network, end)
    if stated == UNSET or stated > length - header or not (is_ipv4 or (is_ipv6 and layer == 2)):
        return np.int64(-1), np.int64(0)
    if layer == 4:
        fragment = link.be16(data, network + 6) & 0x3FFF
        return (np.int64(-1), np.int64(0)) if fragment else (header, stated)
    offset = link.udp_offset(data, network, end)
    if offset == UNSET or stated < offset + 8 or network + offset + 8 > end:
        return np.int64(-1), np.int64(0)
    datagram = link.be16(data, network + offset + 4)
    if datagram < 8 or datagram > stated - offset:
        return np.int64(-1), np.int64(0)
    return header + offset, datagram


@hot
def _fill(
    data: Bytes,
    start: Ints,
    caplen: Ints,
    wirelen: Ints,
    timestamp: Ints,
    linktype: Ints,
    mac: Scalar,
    layer: Scalar,
    device: Scalar,
    strip: Scalar,
    base: Ints,
    length: Ints,
    captured: Ints,
    head: Ints,
    meta: Ints,
    delivered: Any,
    tags: Ints,
) -> None:
    out = np.zeros(5, dtype=np.int64)
    for number in range(len(start)):
        row = borrowed(meta, number)
        row[:] = 0
        at, have, wire = start[number], caplen[number], wirelen[number]
        row[TIMESTAMP] = timestamp[number]
        if layer == 3:
            # A netlink socket sees the message; the cooked header in front of it is the capture's.
            skip = min(np.int64(16), have) if linktype[number] == link.NETLINK else np.int64(0)
            base[number], length[number], captured[number], head[number] = at + skip, wire - skip, have - skip, 0
            row[MAC_OFFSET] = UNSET
            continue
        link.link_header(data, at, at + have, linktype[number], mac, out)
        removed = np.int64(0)
        if strip and linktype[number] == link.EN10MB:
            tags[number] = _strip(data, at, at + have, out, row)
            if tags[number] >= 0:
                removed = np.int64(4)
        at, have, wire = at + removed, have - removed, wire - removed
        header = out[link.HEADER]
        row[PROTOCOL], row[PKT_TYPE], row[HATYPE] = out[link.PROTOCOL], out[link.PKT_TYPE], out[link.HATYPE]
        row[IFINDEX] = out[link.IFINDEX] if out[link.IFINDEX] >= 0 else (1 if device else 0)
        row[INGRESS] = row[IFINDEX]
        ahead, size = np.int64(0), wire
        if layer != 0:
            ahead, size = _shift(data, at, header, have, wire, layer, row[PROTOCOL])
            if ahead < 0:
                delivered[number] = False
                ahead = np.int64(0)
        base[number], length[number] = at + ahead, size
        captured[number] = min(have - ahead, size)
        head[number] = ahead
        row[MAC_OFFSET], row[NETWORK_OFFSET] = -ahead, header - ahead
