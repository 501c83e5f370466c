"""Random and realistic packets, from a seed: Ethernet with IPv4, IPv6, TCP, UDP, ICMP, ARP, VLAN tags; netlink bytes.

Checksums and lengths are right unless a packet is damaged on purpose (cut short, bytes changed), so that an IP stack
delivers the rest. `bytes_of` gives payloads of no protocol.
"""

from __future__ import annotations

import random
import struct

from pktbpf.kernel.namespace import MAC

_OTHER_TYPES = (
    0x88CC, 0x8863, 0x8864, 0x8864, 0x8847, 0x8848, 0x88F7, 0x9000, 0x88CA, 0x8906, 0x8902, 0x8035, 0x4305, 0x88FB,
    0x892F,
)  # fmt: skip


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


class PacketMaker:
    """Seeded source of packets. mac: the destination of frames meant for the host. deliverable: only IP packets that a
    stack is likely to hand to a socket (untagged, whole, no noise), UDP mostly."""

    def __init__(self, seed: int, mac: bytes = MAC, *, deliverable: bool = False):
        self._deliverable = deliverable
        self._depth = 0
        self.random = random.Random(seed)
        self.mac = mac

    def bytes_of(self, longest: int = 200) -> bytes:
        """Any bytes, often short."""
        size = self.random.choice(
            (0, 1, 2, 3, 4, 5, 13, 14, 20, self.random.randrange(64), self.random.randrange(longest))
        )
        return self.random.randbytes(size)

    def any(self) -> bytes:
        """A frame, netlink bytes or noise; one in six damaged."""
        if self._deliverable:
            return self.frame() if self.random.random() < 0.95 else self.damaged(self.frame())
        packet = self.random.choices((self.frame, self.netlink, self.bytes_of), (8, 1, 2))[0]()
        return self.damaged(packet) if self.random.random() < 0.16 else packet

    def damaged(self, packet: bytes) -> bytes:
        """Cut short, or with some bytes changed."""
        r = self.random
        if r.random() < 0.6:
            return packet[: r.randrange(len(packet) + 1)]
        changed = bytearray(packet)
        for _ in range(r.randrange(1, 5)):
            if changed:
                changed[r.randrange(len(changed))] = r.randrange(256)
        return bytes(changed)

    def frame(self) -> bytes:
        """An Ethernet frame with something plausible inside."""
        kind, body = self.random.choices((self.ipv4, self.ipv6, self.arp, self.llc, self.other), (10, 5, 2, 1, 1))[0]()
        r = self.random
        if self._deliverable:
            kind, body = self.ipv6() if r.random() < 0.25 else self.ipv4()
            return self.mac + b"\x02" + r.randbytes(5) + struct.pack("!H", kind) + body
        destination = r.choices(
            (self.mac, b"\xff" * 6, b"\x01\x00\x5e" + r.randbytes(3), b"\x02" + r.randbytes(5)), (6, 1, 1, 2)
        )[0]
        tags = r.choices((0, 1, 2), (8, 2, 1))[0]
        for _ in range(tags):
            body = struct.pack("!HH", r.getrandbits(16), kind) + body
            kind = r.choice((0x8100, 0x8100, 0x88A8))
        return destination + b"\x02" + r.randbytes(5) + struct.pack("!H", kind) + body

    def ipv4(self) -> tuple[int, bytes]:
        """(EtherType, IPv4 packet)."""
        r = self.random
        source, target = self._address(4), self._address(4)
        protocol, payload = self._transport(source + target, 4)
        options = b"\x01" * (4 * r.choices((0, 1, 5, 10), (12, 1, 1, 1))[0])
        fragment = r.choices((0, 0x4000, 0x2000, r.getrandbits(13), 0x2000 | r.getrandbits(13)), (8, 4, 1, 1, 1))[0]
        size = 20 + len(options)
        header = struct.pack(
            "!BBHHHBBH4s4s", 0x40 | size // 4, r.choice((0, 0, 0x10, 0xB8)), size + len(payload), r.getrandbits(16),
            fragment, r.choice((1, 64, 128, 255)), protocol, 0, source, target,
        )  # fmt: skip
        header += options
        header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
        padding = b"\0" * r.choice((0, 0, 0, 6, 18))
        return 0x0800, header + payload + padding

    def ipv6(self) -> tuple[int, bytes]:
        """(EtherType, IPv6 packet), sometimes with extension headers."""
        r = self.random
        source, target = self._address(16), self._address(16)
        protocol, payload = self._transport(source + target, 6)
        for kind in r.choices(((), (0,), (60,), (43,), (44,), (0, 60)), (8, 1, 1, 1, 1, 1))[0]:
            if kind == 44:
                payload = struct.pack("!BBHI", protocol, 0, r.choice((0, 1, 8)), r.getrandbits(32)) + payload
            else:
                payload = struct.pack("!BBBB4x", protocol, 0, 1, 4) + payload
            protocol = kind
        header = struct.pack("!IHBB", 6 << 28 | r.getrandbits(28), len(payload), protocol, r.choice((1, 64, 255)))
        return 0x86DD, header + source + target + payload

    def _address(self, size: int) -> bytes:
        if size == 4:
            return self.random.choice((b"\x0a\x00\x00", b"\xc0\xa8\x01", b"\x08\x08\x08")) + bytes(
                [self.random.randrange(1, 255)]
            )
        return bytes.fromhex("20010db8000000000000000000") + self.random.randbytes(3)

    def _transport(self, addresses: bytes, version: int) -> tuple[int, bytes]:
        r = self.random
        weights = (1, 12, 1, 1) if self._deliverable else (6, 5, 2, 1)
        kind = r.choices(("tcp", "udp", "icmp", "other"), weights)[0]
        payload = r.randbytes(r.choice((0, 0, 1, 4, 12, 40, 100)))
        ports = struct.pack(
            "!HH",
            r.choice((80, 443, 53, 1234, r.randrange(1, 0x10000))),
            r.choice((80, 53, 22, r.randrange(1, 0x10000))),
        )
        if kind == "tcp":
            options = b"\x01" * (4 * r.choice((0, 0, 3, 5, 10)))
            flags = r.choice((2, 0x12, 0x10, 0x18, 4, 0x11))
            body = ports + struct.pack(
                "!IIBBHHH", r.getrandbits(32), r.getrandbits(32), (20 + len(options)) // 4 << 4, flags, 512, 0, 0
            )
            return 6, _sealed(addresses, 6, body + options + payload, 16)
        if kind == "udp":
            return 17, _sealed(addresses, 17, ports + struct.pack("!HH", 8 + len(payload), 0) + payload, 6)
        if kind == "icmp":
            body = struct.pack("!BBHHH", r.choice((0, 3, 8, 11, 128, 129, 135)), 0, 0, r.getrandbits(16), 1) + payload
            if version == 6:
                return 58, _sealed(addresses, 58, body, 2)
            return 1, body[:2] + struct.pack("!H", checksum(body)) + body[4:]
        if r.random() < 0.6 and not self._deliverable:
            return self._tunnel()
        return r.choice((2, 47, 50, 51, 89, 132, 136, 33, 253)), r.randbytes(r.randrange(40))

    def arp(self) -> tuple[int, bytes]:
        """(EtherType, ARP packet with padding)."""
        r = self.random
        body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, r.choice((1, 2)))
        return 0x0806, body + r.randbytes(6) + self._address(4) + r.randbytes(6) + self._address(4) + b"\0" * r.choice(
            (0, 18)
        )

    def llc(self) -> tuple[int, bytes]:
        """(length field, IEEE 802.3 frame)."""
        body = self.random.choice(
            (b"\x42\x42\x03", b"\xaa\xaa\x03\x00\x00\x0c\x20\x00", b"\xff\xff")
        ) + self.random.randbytes(35)
        return len(body), body

    def other(self) -> tuple[int, bytes]:
        """(EtherType of another protocol, bytes): discovery, MPLS, PPPoE, PTP, HSR, batman-adv, TIPC, FCoE, noise."""
        r = self.random
        kind = r.choice((*_OTHER_TYPES, r.getrandbits(16)))
        body = r.randbytes(r.randrange(80))
        if r.random() < 0.3:
            return kind, body
        inner, packet = self.ipv4() if r.random() < 0.6 else self.ipv6()
        if kind == 0x8864:
            ppp = r.choice((0x21, 0x57, 0x281, 0x283, 0xC021, r.getrandbits(16)))
            return kind, struct.pack("!BBHHH", r.choice((0x11, 0x11, 0x12)), r.choice((0, 0, 9)), 1, 0, ppp) + packet
        if kind in (0x88FB, 0x892F):
            return kind, r.randbytes(4) + struct.pack("!H", inner) + packet
        if kind == 0x4305:
            return kind, bytes([r.choice((0x40, 0x40, 0x01)), 15]) + r.randbytes(20) + struct.pack("!H", inner) + packet
        return kind, body

    def _tunnel(self) -> tuple[int, bytes]:
        """(IP protocol, body): a packet inside a packet, or GRE with any of its optional fields."""
        r = self.random
        if self._depth >= 3:
            return 253, b""
        self._depth += 1
        inner, packet = self.ipv4() if r.random() < 0.6 else self.ipv6()
        self._depth -= 1
        protocol = r.choice((4, 41, 47, 47, 47, 137))
        if protocol != 47:
            return (4 if inner == 0x0800 else 41) if r.random() < 0.9 else protocol, packet
        flags = r.choice((0, 0x8000, 0x2000, 0x1000, 0xB000, 0x2001, 0x3001, 0x2081, 0x3081, 0x4000, 2))
        optional = r.randbytes(4 * ((flags >> 15 & 1) + (flags >> 13 & 1) + (flags >> 12 & 1) + (flags >> 7 & 1)))
        if flags & 7 == 1:
            inner, packet = (
                r.choice((0x880B, 0x880B, inner)),
                struct.pack("!HH", 0xFF03, r.choice((0x21, 0x57, 9))) + packet,
            )
        elif r.random() < 0.3:
            inner, packet = 0x6558, r.randbytes(12) + struct.pack("!H", inner) + packet
        return 47, struct.pack("!HH", flags, inner) + optional + packet

    def netlink(self) -> bytes:
        """Netlink attributes, some of them nested, after a header of 0, 4, 16 or 20 bytes (host byte order)."""
        r = self.random
        out = r.randbytes(r.choice((0, 4, 16, 20)))
        for _ in range(r.randrange(1, 6)):
            body = r.randbytes(r.choice((0, 1, 4, 4, 8, 9)))
            if r.random() < 0.4:
                body = b"".join(
                    _attribute(r.randrange(8), r.randbytes(r.choice((0, 4, 5)))) for _ in range(r.randrange(1, 4))
                )
            out += _attribute(r.randrange(8) | (0x8000 if r.random() < 0.1 else 0), body)
        return out


def _attribute(kind: int, body: bytes) -> bytes:
    raw = struct.pack("=HH", 4 + len(body), kind) + body
    return raw + b"\0" * (-len(raw) % 4)


def _sealed(addresses: bytes, protocol: int, segment: bytes, at: int) -> bytes:
    """`segment` with the checksum at `at` computed over the pseudo header of either IP version."""
    pseudo = addresses + struct.pack("!II", len(segment), protocol)
    value = checksum(pseudo + segment) or 0xFFFF
    return segment[:at] + struct.pack("!H", value) + segment[at + 2 :]
