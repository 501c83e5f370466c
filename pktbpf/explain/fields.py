"""Names for the bytes of a packet: which header field lies at an offset, and how its value is written.

In: the bytes of a frame and what stands at its beginning. Out: a Dissection, the fields found (from tables, one row per
field), which names any run of bytes ("ip.proto", "ip6.src[0:4]", "tcp.payload[0:4]") and formats values. Total: bytes
that make no sense end the dissection, they never raise.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple


class Row(NamedTuple):
    """name, offset in the header, size in bytes, form of the value; mask: of a part of these bytes, 0 for all."""

    name: str
    offset: int
    size: int
    form: str = "dec"
    mask: int = 0


HEADERS: dict[str, tuple[Row, ...]] = {
    "ether": (Row("dst", 0, 6, "mac"), Row("src", 6, 6, "mac"), Row("type", 12, 2, "hex")),
    "vlan": (
        Row("tci", 0, 2, "hex"), Row("vid", 0, 2, "dec", 0x0FFF), Row("pcp", 0, 2, "dec", 0xE000),
        Row("type", 2, 2, "hex"),
    ),
    "sll": (
        Row("pkttype", 0, 2), Row("hatype", 2, 2), Row("halen", 4, 2), Row("addr", 6, 8, "hex"),
        Row("proto", 14, 2, "hex"),
    ),
    "sll2": (
        Row("proto", 0, 2, "hex"), Row("ifindex", 4, 4), Row("hatype", 8, 2), Row("pkttype", 10, 1),
        Row("halen", 11, 1), Row("addr", 12, 8, "hex"),
    ),
    "null": (Row("family", 0, 4, "hex"),),
    "arp": (
        Row("hrd", 0, 2), Row("pro", 2, 2, "hex"), Row("hln", 4, 1), Row("pln", 5, 1), Row("op", 6, 2),
        Row("sha", 8, 6, "mac"), Row("spa", 14, 4, "ip"), Row("tha", 18, 6, "mac"), Row("tpa", 24, 4, "ip"),
    ),
    "ip": (
        Row("version_ihl", 0, 1, "hex"), Row("version", 0, 1, "dec", 0xF0), Row("ihl", 0, 1, "dec", 0x0F),
        Row("tos", 1, 1, "hex"), Row("len", 2, 2), Row("id", 4, 2, "hex"), Row("frag", 6, 2, "hex"),
        Row("frag_offset", 6, 2, "dec", 0x1FFF), Row("mf", 6, 2, "dec", 0x2000), Row("df", 6, 2, "dec", 0x4000),
        Row("mf_or_offset", 6, 2, "hex", 0x3FFF), Row("mf", 6, 1, "dec", 0x20), Row("df", 6, 1, "dec", 0x40),
        Row("ttl", 8, 1), Row("proto", 9, 1), Row("checksum", 10, 2, "hex"), Row("src", 12, 4, "ip"),
        Row("dst", 16, 4, "ip"),
    ),
    "ip6": (
        Row("version_class_flow", 0, 4, "hex"), Row("version", 0, 1, "dec", 0xF0), Row("len", 4, 2), Row("nxt", 6, 1),
        Row("hlim", 7, 1), Row("src", 8, 16, "ip6"), Row("dst", 24, 16, "ip6"),
    ),
    "tcp": (
        Row("srcport", 0, 2), Row("dstport", 2, 2), Row("seq", 4, 4), Row("ack", 8, 4), Row("offset", 12, 1, "hex"),
        Row("offset", 12, 1, "dec", 0xF0), Row("flags", 13, 1, "hex"), Row("fin", 13, 1, "dec", 0x01),
        Row("syn", 13, 1, "dec", 0x02), Row("rst", 13, 1, "dec", 0x04), Row("psh", 13, 1, "dec", 0x08),
        Row("ackflag", 13, 1, "dec", 0x10), Row("urg", 13, 1, "dec", 0x20), Row("window", 14, 2),
        Row("checksum", 16, 2, "hex"), Row("urgptr", 18, 2),
    ),
    "udp": (Row("srcport", 0, 2), Row("dstport", 2, 2), Row("len", 4, 2), Row("checksum", 6, 2, "hex")),
    "icmp": (
        Row("type", 0, 1), Row("code", 1, 1), Row("checksum", 2, 2, "hex"), Row("id", 4, 2), Row("seq", 6, 2),
    ),
    "icmp6": (
        Row("type", 0, 1), Row("code", 1, 1), Row("checksum", 2, 2, "hex"), Row("id", 4, 2), Row("seq", 6, 2),
    ),
    "dns": (
        Row("id", 0, 2, "hex"), Row("flags", 2, 2, "hex"), Row("qr", 2, 2, "dec", 0x8000), Row("qr", 2, 1, "dec", 0x80),
        Row("qdcount", 4, 2), Row("ancount", 6, 2), Row("nscount", 8, 2), Row("arcount", 10, 2),
    ),
}  # fmt: skip

# Link type (DLT) -> first header; raw IP is told by its version nibble.
_FIRST = {1: "ether", 113: "sll", 276: "sll2", 0: "null", 108: "null", 12: "raw", 101: "raw", 14: "raw", 228: "ip",
          229: "ip6"}  # fmt: skip
_BY_ETHERTYPE = {0x0800: "ip", 0x86DD: "ip6", 0x0806: "arp", 0x8100: "vlan", 0x88A8: "vlan", 0x9100: "vlan"}
_BY_PROTOCOL = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}


class Field(NamedTuple):
    """A field in a packet; offset counts from the beginning of the frame."""

    name: str
    offset: int
    size: int
    form: str
    mask: int


@dataclass(slots=True)
class Dissection:
    """fields in order of offset. headers: (name, offset). payload: (name, offset) of what no header explains."""

    data: bytes
    fields: list[Field] = field(default_factory=list)
    headers: list[tuple[str, int]] = field(default_factory=list)
    payload: tuple[str, int] = ("packet", 0)

    def find(self, offset: int, size: int, mask: int = 0) -> Field | None:
        """The field of exactly these bytes and bits."""
        return next((f for f in self.fields if (f.offset, f.size, f.mask) == (offset, size, mask)), None)

    def name(self, offset: int, size: int) -> str:
        """A name for a run of bytes; bytes outside of all headers are `packet[offset:size]` or a payload's."""
        found = self.find(offset, size)
        if found is not None:
            return found.name
        touched = [f for f in self.fields if not f.mask and f.offset < offset + size and offset < f.offset + f.size]
        if len(touched) == 1 and touched[0].offset <= offset and offset + size <= touched[0].offset + touched[0].size:
            return f"{touched[0].name}[{offset - touched[0].offset}:{size}]"
        if touched and touched[0].offset == offset and touched[-1].offset + touched[-1].size == offset + size:
            return "+".join(f.name for f in touched)
        title, begin = self.payload
        if offset >= begin:
            return f"{title}[{offset - begin}:{size}]"
        header, at = next(((h, at) for h, at in reversed(self.headers) if at <= offset), ("packet", 0))
        return f"{header}[{offset - at}:{size}]"

    def value(self, one: Field) -> int:
        """The value of a field, a masked one shifted down."""
        raw = int.from_bytes(self.data[one.offset : one.offset + one.size], "big")
        return raw if not one.mask else (raw & one.mask) >> low_bit(one.mask)

    def lines(self) -> list[str]:
        """One line per header: its whole fields with their values."""
        out = []
        for name, at in self.headers:
            ends = {row.name for row in HEADERS[name] if not row.mask}
            mine = [
                f for f in self.fields
                if not f.mask and f.name.startswith(f"{name}.") and f.name.split(".", 1)[1] in ends
                and at <= f.offset < at + 60
            ]  # fmt: skip
            shown = ", ".join(f"{f.name.split('.', 1)[1]} {format_value(self.value(f), f.form, f.size)}" for f in mine)
            out.append(f"{name:<5} {shown}")
        title, begin = self.payload
        if begin < len(self.data):
            rest = self.data[begin : begin + 16]
            text = "".join(chr(b) if 32 <= b < 127 else "." for b in rest)
            more = " ..." if len(self.data) > begin + 16 else ""
            out.append(f"{title}: {len(self.data) - begin} bytes, {rest.hex(' ')}{more}  {text}")
        return out


def low_bit(mask: int) -> int:
    """Number of the lowest bit that is set."""
    return (mask & -mask).bit_length() - 1


def format_value(value: int, form: str, size: int) -> str:
    """A field's value as people write it; size in bytes."""
    if form == "hex":
        return f"0x{value:0{2 * size}x}"
    if form == "ip" and size == 4:
        return socket.inet_ntoa(value.to_bytes(4, "big"))
    if form == "ip6" and size == 16:
        return socket.inet_ntop(socket.AF_INET6, value.to_bytes(16, "big"))
    if form == "mac" and size == 6:
        return value.to_bytes(6, "big").hex(":")
    return f"0x{value:0{2 * size}x}" if form in ("ip", "ip6", "mac") else str(value)


def dissect(data: bytes, first: str | int = 1, offset: int = 0) -> Dissection:
    """Dissect a frame.

    first: link type (DLT number), or the name of the header at `offset` (`ip`, `udp`, ..., `raw` for IPv4 or IPv6 by
    its version, `payload` for none).
    """
    found = Dissection(data)
    found.payload = ("packet", offset)
    header: str | None = _FIRST.get(first) if isinstance(first, int) else first
    while header is not None and header != "payload":
        if header == "raw":
            header = {4: "ip", 6: "ip6"}.get(data[offset] >> 4) if offset < len(data) else None
            continue
        header, offset = _take(found, header, offset)
    return found


def _take(found: Dissection, header: str, at: int) -> tuple[str | None, int]:
    """Enter one header; which follows, and where."""
    end = len(found.data)
    if at >= end:
        return None, at
    rows = [row for row in HEADERS[header] if at + row.offset + row.size <= end]
    found.headers.append((header, at))
    found.fields += [Field(f"{header}.{r.name}", at + r.offset, r.size, r.form, r.mask) for r in rows]
    size = max(row.offset + row.size for row in HEADERS[header])
    following, length = _NEXT[header](found.data, at) if at + size <= end else (None, end - at)
    found.payload = (f"{header}.payload", at + length)
    return following, at + length


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def _ip(data: bytes, at: int) -> tuple[str | None, int]:
    length = max(4 * (data[at] & 15), 20)
    later_fragment = _u16(data, at + 6) & 0x1FFF
    return (None if later_fragment else _BY_PROTOCOL.get(data[at + 9])), length


def _ip6(data: bytes, at: int) -> tuple[str | None, int]:
    following, length = data[at + 6], 40
    while following in (0, 43, 60) and at + length + 8 <= len(data):  # hop-by-hop, routing, destination options
        following, length = data[at + length], length + 8 * (data[at + length + 1] + 1)
    return _BY_PROTOCOL.get(following), length


def _udp(data: bytes, at: int) -> tuple[str | None, int]:
    return ("dns" if 53 in (_u16(data, at), _u16(data, at + 2)) else None), 8


_NEXT: dict[str, Callable[[bytes, int], tuple[str | None, int]]] = {
    "ether": lambda data, at: (_BY_ETHERTYPE.get(_u16(data, at + 12)), 14),
    "vlan": lambda data, at: (_BY_ETHERTYPE.get(_u16(data, at + 2)), 4),
    "sll": lambda data, at: (_BY_ETHERTYPE.get(_u16(data, at + 14)), 16),
    "sll2": lambda data, at: (_BY_ETHERTYPE.get(_u16(data, at)), 20),
    "null": lambda data, at: ("raw", 4),
    "arp": lambda data, at: (None, 28),
    "ip": _ip,
    "ip6": _ip6,
    "tcp": lambda data, at: (None, max(4 * (data[at + 12] >> 4), 20)),
    "udp": _udp,
    "icmp": lambda data, at: (None, 8),
    "icmp6": lambda data, at: (None, 8),
    "dns": lambda data, at: (None, 12),
}
