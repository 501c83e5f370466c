"""The usual packets, built from keywords: whole Ethernet frames with right lengths and checksums.

Addresses are text; the family of `src` and `dst` decides between IPv4 and IPv6. `vlan` puts one or more tags in front.
`link=False` leaves the Ethernet header out, for profiles whose byte 0 is the network header.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from typing import Any

from pktbpf.errors import UsageError

ETH_SRC, ETH_DST = "02:00:00:00:00:01", "02:00:00:00:00:02"
IP_SRC, IP_DST = "192.0.2.1", "192.0.2.2"
IP6_SRC, IP6_DST = "2001:db8::1", "2001:db8::2"
_FLAGS = {"F": 0x01, "S": 0x02, "R": 0x04, "P": 0x08, "A": 0x10, ".": 0x10, "U": 0x20, "E": 0x40, "C": 0x80}
_QTYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33, "ANY": 255}
KINDS = ("eth", "vlan", "arp", "ip", "ip6", "tcp", "udp", "icmp", "icmp6", "dns")


def mac(text: str) -> bytes:
    """Six octets from "02:00:00:00:00:01"."""
    address = bytes.fromhex(text.replace(":", "").replace("-", ""))
    if len(address) != 6:
        raise UsageError(f"{text!r} is not a link address of six octets")
    return address


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class PacketBuilder:
    """One method per kind of packet; each returns bytes."""

    def build(self, kind: str, **fields: Any) -> bytes:
        """The packet of a kind by name, as test files without Python state it."""
        if kind not in KINDS:
            raise UsageError(f"unknown kind of packet {kind!r}; there are {', '.join(KINDS)}")
        try:
            packet: bytes = getattr(self, kind)(**fields)
        except TypeError as error:
            raise UsageError(f"packet {kind}: {str(error).split(') ', 1)[-1].split('() ', 1)[-1]}") from None
        return packet

    def eth(
        self, payload: bytes | str = b"", *, type: int = 0x0800, src: str = ETH_SRC, dst: str = ETH_DST,
        vlan: int | Sequence[int] | None = None, pad: int = 0,
    ) -> bytes:  # fmt: skip
        """An Ethernet frame. pad: fill with zeros up to so many bytes."""
        tags = [] if vlan is None else [vlan] if isinstance(vlan, int) else list(vlan)
        header = mac(dst) + mac(src)
        for number, tag in enumerate(tags):
            outer = 0x88A8 if number + 1 < len(tags) else 0x8100
            header += struct.pack(">HH", outer, tag)
        return (header + struct.pack(">H", type) + _payload(payload)).ljust(pad, b"\0")

    def vlan(self, payload: bytes | str = b"", *, vid: int = 1, pcp: int = 0, type: int = 0x0800, **eth: Any) -> bytes:
        """A tagged frame with a payload of its own; the other methods take `vlan=` instead."""
        return self.eth(payload, type=type, vlan=pcp << 13 | vid, **eth)

    def arp(
        self, *, op: int = 1, sha: str = ETH_SRC, spa: str = IP_SRC, tha: str = "00:00:00:00:00:00", tpa: str = IP_DST,
        link: bool = True, eth_dst: str = "ff:ff:ff:ff:ff:ff", vlan: int | Sequence[int] | None = None, pad: int = 0,
    ) -> bytes:  # fmt: skip
        """An ARP request (op 1) or reply (op 2)."""
        body = struct.pack(">HHBBH", 1, 0x0800, 6, 4, op)
        body += mac(sha) + ipaddress.IPv4Address(spa).packed + mac(tha) + ipaddress.IPv4Address(tpa).packed
        return self.eth(body, type=0x0806, src=sha, dst=eth_dst, vlan=vlan, pad=pad) if link else body

    def ip(
        self, payload: bytes | str = b"", *, proto: int = 255, src: str = IP_SRC, dst: str = IP_DST, ttl: int = 64,
        tos: int = 0, id: int = 1, frag_offset: int = 0, mf: bool = False, df: bool = False, options: bytes | str = b"",
        link: bool = True, eth_src: str = ETH_SRC, eth_dst: str = ETH_DST, vlan: int | Sequence[int] | None = None,
        pad: int = 0,
    ) -> bytes:  # fmt: skip
        """An IPv4 packet. frag_offset: in units of 8 bytes. options: padded to whole words."""
        extra = _payload(options)
        extra += bytes(-len(extra) % 4)
        body, words = _payload(payload), 5 + len(extra) // 4
        header = struct.pack(
            ">BBHHHBBH4s4s", 0x40 | words, tos, 4 * words + len(body), id,
            frag_offset | (0x2000 if mf else 0) | (0x4000 if df else 0), ttl, proto, 0,
            ipaddress.IPv4Address(src).packed, ipaddress.IPv4Address(dst).packed,
        ) + extra  # fmt: skip
        header = header[:10] + struct.pack(">H", checksum(header)) + header[12:]
        packet = header + body
        return self.eth(packet, type=0x0800, src=eth_src, dst=eth_dst, vlan=vlan, pad=pad) if link else packet

    def ip6(
        self, payload: bytes | str = b"", *, nxt: int = 59, src: str = IP6_SRC, dst: str = IP6_DST, hlim: int = 64,
        link: bool = True, eth_src: str = ETH_SRC, eth_dst: str = ETH_DST, vlan: int | Sequence[int] | None = None,
        pad: int = 0,
    ) -> bytes:  # fmt: skip
        """An IPv6 packet."""
        body = _payload(payload)
        packet = struct.pack(
            ">IHBB16s16s", 6 << 28, len(body), nxt, hlim, ipaddress.IPv6Address(src).packed,
            ipaddress.IPv6Address(dst).packed,
        ) + body  # fmt: skip
        return self.eth(packet, type=0x86DD, src=eth_src, dst=eth_dst, vlan=vlan, pad=pad) if link else packet

    def tcp(
        self, payload: bytes | str = b"", *, dport: int = 80, sport: int = 40000, flags: str | int = "S", seq: int = 0,
        ack: int = 0, window: int = 65535, options: bytes | str = b"", **ip: Any,
    ) -> bytes:  # fmt: skip
        """A TCP segment over IPv4 or IPv6. flags: letters of FSRPAUEC, or a number."""
        extra = _payload(options)
        extra += bytes(-len(extra) % 4)
        bits = flags if isinstance(flags, int) else sum(_flag(letter) for letter in flags)
        header = struct.pack(">HHIIBBHHH", sport, dport, seq, ack, (5 + len(extra) // 4) << 4, bits, window, 0, 0)
        return self._transport(6, header + extra + _payload(payload), 16, ip)

    def udp(self, payload: bytes | str = b"", *, dport: int = 9, sport: int = 40000, **ip: Any) -> bytes:
        """A UDP datagram over IPv4 or IPv6."""
        body = _payload(payload)
        return self._transport(17, struct.pack(">HHHH", sport, dport, 8 + len(body), 0) + body, 6, ip)

    def icmp(
        self, payload: bytes | str = b"", *, type: int = 8, code: int = 0, id: int = 1, seq: int = 1, **ip: Any
    ) -> bytes:  # fmt: skip
        """An ICMP message, by default an echo request."""
        message = struct.pack(">BBHHH", type, code, 0, id, seq) + _payload(payload)
        message = message[:2] + struct.pack(">H", checksum(message)) + message[4:]
        return self.ip(message, proto=1, **ip)

    def icmp6(
        self, payload: bytes | str = b"", *, type: int = 128, code: int = 0, id: int = 1, seq: int = 1, **ip: Any
    ) -> bytes:  # fmt: skip
        """An ICMPv6 message, by default an echo request."""
        message = struct.pack(">BBHHH", type, code, 0, id, seq) + _payload(payload)
        return self._transport(58, message, 2, {"src": IP6_SRC, "dst": IP6_DST, **ip})

    def dns(
        self, name: str = "example.com", *, qtype: str | int = "A", id: int = 1, answer: bool = False,
        dport: int | None = None, sport: int | None = None, **ip: Any,
    ) -> bytes:  # fmt: skip
        """A DNS query, or an answer without records."""
        labels = b"".join(bytes([len(part)]) + part.encode() for part in name.rstrip(".").split(".") if part)
        number = _QTYPES[qtype] if isinstance(qtype, str) else qtype
        message = struct.pack(">6H", id, 0x8180 if answer else 0x0100, 1, 0, 0, 0) + labels + b"\0"
        message += struct.pack(">HH", number, 1)
        ports = (53, 40000) if answer else (40000, 53)
        return self.udp(
            message, sport=ports[0] if sport is None else sport, dport=ports[1] if dport is None else dport, **ip
        )

    def _transport(self, proto: int, segment: bytes, at: int, ip: dict[str, Any]) -> bytes:
        """Put the checksum into a segment at `at`, and IPv4 or IPv6 in front of it."""
        source = str(ip.get("src", ip.get("dst", IP_SRC)))
        if ":" in source:
            ip = {"src": IP6_SRC, "dst": IP6_DST, **ip}
            pseudo = ipaddress.IPv6Address(ip["src"]).packed + ipaddress.IPv6Address(ip["dst"]).packed
            pseudo += struct.pack(">II", len(segment), proto)
        else:
            ip = {"src": IP_SRC, "dst": IP_DST, **ip}
            pseudo = ipaddress.IPv4Address(ip["src"]).packed + ipaddress.IPv4Address(ip["dst"]).packed
            pseudo += struct.pack(">HH", proto, len(segment))
        total = checksum(pseudo + segment) or (0xFFFF if proto == 17 else 0)
        segment = segment[:at] + struct.pack(">H", total) + segment[at + 2 :]
        return self.ip6(segment, nxt=proto, **ip) if ":" in source else self.ip(segment, proto=proto, **ip)


def _payload(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def _flag(letter: str) -> int:
    if letter.upper() not in _FLAGS:
        raise UsageError(f"unknown TCP flag {letter!r}; there are {''.join(_FLAGS)}")
    return _FLAGS[letter.upper()]
