"""A seeded generator of big, realistic captures for benchmarks and tests; the same arguments give the same bytes.

    python bench/generate.py --packets 2000000 --bytes 700000000 OUT.pcap [--format pcapng] [--nanosecond] [--seed N]

Traffic of 20,000 flows: HTTP and TLS over IPv4 and IPv6, QUIC, DNS, VLAN, ICMP, ARP and fragments, with right lengths
and checksums. The share of full-size packets is chosen so that the file comes out close to --bytes.
"""

from __future__ import annotations

import argparse
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]

CHUNK = 40_000
FLOWS = 20_000
EPOCH_NS = 1_700_000_000_000_000_000
MEAN_GAP_NS = 20_000
FULL_PAYLOAD = 1_448
ACK_SHARE = 0.3  # of packets with a free payload: none at all
SMALL_PAYLOAD = (20, 400)

_ETHER = bytes.fromhex("020000000001 020000000002")
_IP4 = bytes.fromhex("4500 0000 0000 4000 40 00 0000 00000000 00000000")
_IP6 = bytes.fromhex("60000000 0000 00 40") + bytes(32)
_TCP = bytes.fromhex("0000 0000 00000000 00000000 8010 01f6 0000 0000 0101080a 00000000 00000000")
_UDP = bytes(8)
_QUERY = bytes.fromhex("0000 0100 0001 0000 0000 0000 03777777 08") + b"a" * 8 + b"\x07example\x03org\0\0\x01\0\x01"
_ARP = bytes.fromhex("0001 0800 06 04 0001") + bytes(20) + bytes(18)  # with the padding to 60 bytes


@dataclass(frozen=True)
class Kind:
    """One kind of packet: its share, the bytes every packet of it begins with, and where its headers are."""

    name: str
    share: float
    template: bytes
    ip: int
    protocol: int
    port: int = 0
    free: bool = True  # whether a payload of free length follows

    @property
    def version(self) -> int:
        """4, 6, or 0 for what is not IP."""
        return self.template[self.ip] >> 4 if self.ip else 0

    @property
    def transport(self) -> int:
        """Offset of the transport header."""
        return self.ip + (20 if self.version == 4 else 40)


def _kind(
    name: str, share: float, ether_type: str, network: bytes, rest: bytes, protocol: int, port: int = 0,
    *, free: bool = True,
) -> Kind:  # fmt: skip
    link = _ETHER + bytes.fromhex(ether_type)
    body = bytearray(network)
    if network:
        body[9 if network[0] >> 4 == 4 else 6] = protocol
    return Kind(name, share, link + bytes(body) + rest, len(link) if network else 0, protocol, port, free)


KINDS: tuple[Kind, ...] = (
    _kind("http", 0.20, "0800", _IP4, _TCP, 6, 80),
    _kind("tls", 0.33, "0800", _IP4, _TCP, 6, 443),
    _kind("tls6", 0.13, "86dd", _IP6, _TCP, 6, 443),
    _kind("vlan-http", 0.06, "8100 0064 0800", _IP4, _TCP, 6, 80),
    _kind("quic", 0.06, "0800", _IP4, _UDP, 17, 443),
    _kind("dns", 0.08, "0800", _IP4, _UDP + _QUERY, 17, 53, free=False),
    _kind("dns6", 0.03, "86dd", _IP6, _UDP + _QUERY, 17, 53, free=False),
    _kind("fragment", 0.04, "0800", _IP4, _UDP, 17, 5004),
    _kind("ping", 0.03, "0800", _IP4, bytes.fromhex("0800 0000 0000 0000") + bytes(range(48)), 1, free=False),
    _kind("ping6", 0.02, "86dd", _IP6, bytes.fromhex("8000 0000 0000 0000") + bytes(range(48)), 58, free=False),
    _kind("arp", 0.02, "0806", b"", _ARP, 0, free=False),
)
FRAGMENT_PAYLOAD = 1_480 - len(_UDP)
FRAGMENT_REST = 600


def _put(rows: U8, at: int, width: int, values: I64) -> None:
    """Write big-endian fields of `width` bytes into column `at` of header rows."""
    for index in range(width):
        rows[:, at + index] = (values >> (8 * (width - 1 - index))) & 0xFF


def _words(rows: U8, begin: int, end: int) -> I64:
    """Sum of the big-endian 16-bit words in columns begin:end of each row."""
    total: I64 = rows[:, begin:end:2].astype(np.int64).sum(axis=1) * 256
    total += rows[:, begin + 1 : end : 2].astype(np.int64).sum(axis=1)
    return total


def _fold(total: I64) -> I64:
    """The Internet checksum of sums of words."""
    for _ in range(3):
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Traffic:
    """Draws chunks of packets; all randomness comes from one seeded source."""

    def __init__(self, seed: int, full_share: float, empty_share: float):
        self.random = np.random.default_rng(seed)
        self.full_share = full_share
        self.empty_share = empty_share * (1 - full_share)
        self.clock = EPOCH_NS
        self.client = self.random.integers(0x0A000000, 0x0AFFFFFF, FLOWS)
        self.server = self.random.integers(0xC6120000, 0xC613FFFF, FLOWS)
        self.port = self.random.integers(32_768, 61_000, FLOWS)
        self.noise = self.random.integers(0, 256, 1 << 20, dtype=np.uint8)

    def payloads(self, kinds: NDArray[np.intp]) -> I64:
        """Lengths of what follows the template of each packet."""
        count = len(kinds)
        draw = self.random.random(count)
        size = self.random.integers(*SMALL_PAYLOAD, count)
        size[draw < self.full_share] = FULL_PAYLOAD
        size[draw >= 1 - self.empty_share] = 0
        size[~np.array([kind.free for kind in KINDS])[kinds]] = 0
        fragments = np.flatnonzero(kinds == [kind.name for kind in KINDS].index("fragment"))
        size[fragments[0::2]] = FRAGMENT_PAYLOAD
        size[fragments[1::2]] = FRAGMENT_REST
        return size

    def times(self, count: int) -> I64:
        """Time stamps in ns, going on from the last chunk."""
        stamps: I64 = self.clock + np.cumsum(self.random.exponential(MEAN_GAP_NS, count)).astype(np.int64)
        self.clock = int(stamps[-1])
        return stamps

    def headers(self, kind: Kind, length: I64) -> tuple[U8, I64]:
        """Header rows of packets of one kind, frame lengths given; with the sums of their pseudo headers."""
        count = len(length)
        rows: U8 = np.tile(np.frombuffer(kind.template, dtype=np.uint8), (count, 1))
        flow = np.minimum(self.random.pareto(0.6, count) * 40, FLOWS - 1).astype(np.int64)
        back = self.random.random(count) < 0.5
        if kind.name == "fragment":
            flow[1::2], back[1::2] = flow[: count // 2 * 2 : 2], back[: count // 2 * 2 : 2]
        source = np.where(back, self.server[flow], self.client[flow])
        target = np.where(back, self.client[flow], self.server[flow])
        rows[:, 5], rows[:, 11] = np.where(back, 2, 1), np.where(back, 1, 2)
        if not kind.version:
            _put(rows, 28, 4, source)
            _put(rows, 38, 4, target)
            return rows, np.zeros(count, dtype=np.int64)
        pseudo = self._network(kind, rows, length, source, target)
        if kind.port:
            near, far = self.port[flow], np.full(count, kind.port)
            _put(rows, kind.transport, 2, np.where(back, far, near))
            _put(rows, kind.transport + 2, 2, np.where(back, near, far))
        self._transport(kind, rows, length)
        if kind.name == "fragment":
            self._fragment(kind, rows)
        if kind.version == 4:
            _put(rows, kind.ip + 10, 2, _fold(_words(rows, kind.ip, kind.ip + 20)))
        return rows, pseudo

    def _network(self, kind: Kind, rows: U8, length: I64, source: I64, target: I64) -> I64:
        at = kind.ip
        inner = length - kind.transport
        if kind.version == 4:
            _put(rows, at + 2, 2, length - at)
            _put(rows, at + 4, 2, self.random.integers(0, 65_536, len(length)))
            _put(rows, at + 12, 4, source)
            _put(rows, at + 16, 4, target)
            return _words(rows, at + 12, at + 20) + kind.protocol + inner
        _put(rows, at + 4, 2, inner)
        for place, address in ((8, source), (24, target)):
            _put(rows, at + place, 4, np.full(len(length), 0x20010DB8))
            _put(rows, at + place + 12, 4, address)
        return _words(rows, at + 8, at + 40) + kind.protocol + inner

    def _transport(self, kind: Kind, rows: U8, length: I64) -> None:
        at = kind.transport
        if kind.protocol == 6:
            _put(rows, at + 4, 4, self.random.integers(0, 1 << 32, len(length)))
            _put(rows, at + 8, 4, self.random.integers(0, 1 << 32, len(length)))
            rows[:, at + 13] = np.where(length == len(kind.template), 0x10, 0x18)
            return
        if kind.protocol == 17:
            _put(rows, at + 4, 2, length - at)
        if kind.port == 53:
            _put(rows, at + 8, 2, self.random.integers(0, 65_536, len(length)))
            rows[:, at + 10 : at + 12] = np.where(rows[:, 5:6] == 2, (0x81, 0x80), (0x01, 0x00))  # answers come back
            rows[:, at + 25 : at + 33] = self.random.integers(97, 123, (len(length), 8), dtype=np.uint8)
        elif kind.protocol in (1, 58):
            _put(rows, at + 6, 2, np.arange(len(length), dtype=np.int64))

    @staticmethod
    def _fragment(kind: Kind, rows: U8) -> None:
        """Even rows become first fragments, odd ones the rest of the row before."""
        rest = len(rows) // 2 * 2
        rows[1::2, kind.ip + 4 : kind.ip + 6] = rows[:rest:2, kind.ip + 4 : kind.ip + 6]
        rows[0::2, kind.ip + 6], rows[1::2, kind.ip + 6] = 0x20, 0
        _put(rows[1::2], kind.ip + 6, 2, np.full(len(rows) // 2, 1_480 // 8))
        _put(rows[0::2], kind.transport + 4, 2, np.full((len(rows) + 1) // 2, 1_480 + FRAGMENT_REST + len(_UDP)))


def _checksums(data: U8, begin: I64, end: I64, pseudo: I64, field: I64) -> None:
    """Store the transport checksums of packets data[begin:end] at `field`; the fields hold 0 before."""
    even = np.concatenate(([0], np.cumsum(data[0::2], dtype=np.uint32))).astype(np.int64)
    odd = np.concatenate(([0], np.cumsum(data[1::2], dtype=np.uint32))).astype(np.int64)
    evens = even[(end + 1) // 2] - even[(begin + 1) // 2]
    odds = odd[end // 2] - odd[begin // 2]
    total = np.where(begin % 2 == 0, evens * 256 + odds, odds * 256 + evens) + pseudo
    value = _fold(total)
    value[value == 0] = 0xFFFF
    data[field] = value >> 8
    data[field + 1] = value & 0xFF


def _chunk(traffic: Traffic, count: int, ng: bool, unit: int) -> bytes:
    """The file bytes of `count` packets."""
    kinds = traffic.random.choice(len(KINDS), count, p=[kind.share for kind in KINDS])
    template = np.array([len(kind.template) for kind in KINDS])
    length = template[kinds] + traffic.payloads(kinds)
    head, tail = (28, 4) if ng else (16, 0)
    size = head + tail + ((length + 3) // 4 * 4 if ng else length)
    end = np.cumsum(size)
    start = end - size + head
    data = np.resize(traffic.noise, int(end[-1]))
    sums: list[tuple[I64, I64, I64, I64]] = []
    for index, kind in enumerate(KINDS):
        rows = np.flatnonzero(kinds == index)
        headers, pseudo = traffic.headers(kind, length[rows])
        data[start[rows][:, None] + np.arange(headers.shape[1])] = headers
        if kind.protocol and kind.name != "fragment":
            begin = start[rows] + kind.transport
            field = begin + {6: 16, 17: 6, 1: 2, 58: 2}[kind.protocol]
            sums.append((begin, start[rows] + length[rows], pseudo if kind.protocol != 1 else 0 * pseudo, field))
    begins, ends, pseudos, fields = (np.concatenate(column) for column in zip(*sums, strict=True))
    _checksums(data, begins, ends, pseudos, fields)
    record = _enhanced if ng else _records
    record(data, start, length, size, traffic.times(count) // (1_000_000_000 // unit), unit)
    return data.tobytes()


def _store(data: U8, at: I64, fields: I64) -> None:
    """Write rows of little-endian 32-bit fields, int64[n, k], at data[at]."""
    raw = np.ascontiguousarray(fields.astype("<u4")).view(np.uint8).reshape(len(at), -1)
    data[at[:, None] + np.arange(raw.shape[1])] = raw


def _records(data: U8, start: I64, length: I64, size: I64, ticks: I64, unit: int) -> None:
    _store(data, start - 16, np.stack([ticks // unit, ticks % unit, length, length], axis=1))


def _enhanced(data: U8, start: I64, length: I64, size: I64, ticks: I64, unit: int) -> None:
    zero = np.zeros_like(length)
    fields = [zero + 6, size, zero, ticks >> 32, ticks & 0xFFFFFFFF, length, length]
    _store(data, start - 28, np.stack(fields, axis=1))
    for pad in range(3):
        inside = start + length + pad
        data[inside[pad < (-length) % 4]] = 0
    _store(data, start - 28 + size - 4, size[:, None])


def _file_header(ng: bool, unit: int) -> bytes:
    if not ng:
        magic = 0xA1B23C4D if unit == 1_000_000_000 else 0xA1B2C3D4
        return struct.pack("<IHHiIII", magic, 2, 4, 0, 0, 262_144, 1)
    section = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
    digits = 9 if unit == 1_000_000_000 else 6
    options = struct.pack("<HHBxxxHH", 9, 1, digits, 0, 0)
    total = 20 + len(options)
    return section + struct.pack("<IIHHI", 1, total, 1, 0, 262_144) + options + struct.pack("<I", total)


def shares(packets: int, size: int, ng: bool) -> tuple[float, float]:
    """The shares of full-size and of empty packets, among those of free length, for a file of about `size` bytes."""
    free = sum(kind.share for kind in KINDS if kind.free and kind.name != "fragment")
    fragment = next(kind.share for kind in KINDS if kind.name == "fragment")
    fixed = sum(kind.share * len(kind.template) for kind in KINDS) + (33.5 if ng else 16)
    fixed += fragment * (FRAGMENT_PAYLOAD + FRAGMENT_REST) / 2
    wanted = (size / packets - fixed) / free
    middle = (SMALL_PAYLOAD[0] + SMALL_PAYLOAD[1] - 1) / 2
    small = middle * (1 - ACK_SHARE)
    if wanted < small:
        return 0.0, float(min(1 - wanted / middle, 1.0))
    return float(min((wanted - small) / (FULL_PAYLOAD - small), 1.0)), ACK_SHARE


def write(
    file: BinaryIO, *, packets: int, size: int, seed: int = 1, format: str = "pcap", nanosecond: bool = False
) -> int:
    """Write a capture of `packets` packets and about `size` bytes; the bytes written."""
    ng = format == "pcapng"
    unit = 1_000_000_000 if nanosecond else 1_000_000
    traffic = Traffic(seed, *shares(packets, size, ng))
    written = file.write(_file_header(ng, unit))
    for done in range(0, packets, CHUNK):
        written += file.write(_chunk(traffic, min(CHUNK, packets - done), ng, unit))
    return written


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--packets", type=int, default=2_000_000)
    parser.add_argument("--bytes", type=int, default=700_000_000, help="approximate size of the file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--format", choices=("pcap", "pcapng"), default="pcap")
    parser.add_argument("--nanosecond", action="store_true")
    options = parser.parse_args()
    with options.out.open("wb") as file:
        written = write(
            file, packets=options.packets, size=options.bytes, seed=options.seed, format=options.format,
            nanosecond=options.nanosecond,
        )  # fmt: skip
    print(f"{options.out}: {options.packets} packets, {written} bytes")


if __name__ == "__main__":
    main()
