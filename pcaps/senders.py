"""Small senders of traffic that no everyday client makes: TCP behind IP options, UDP to port 80, and so on.

Run as `senders.py NAME [ARGUMENTS]` inside a namespace of the recording lab. Each sends a fixed number of packets to
addresses of that lab and ends by itself.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Callable

SENDERS: dict[str, Callable[..., None]] = {}


def sender(function: Callable[..., None]) -> Callable[..., None]:
    """Register a function under its name with dashes."""
    SENDERS[function.__name__.replace("_", "-")] = function
    return function


def _get(sock: socket.socket, host: str) -> None:
    sock.settimeout(5)
    sock.connect((host, 80))
    sock.sendall(b"GET / HTTP/1.0\r\nHost: www.example.test\r\n\r\n")
    while sock.recv(4096):
        continue


@sender
def http_ip_options(host: str) -> None:
    """One HTTP request whose IPv4 headers carry four bytes of options (three NOPs and an end of list)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01\x01\x01\x00")
        _get(sock, host)


@sender
def http_destination_options(host: str) -> None:
    """One HTTP request behind an IPv6 destination options header (one PadN option)."""
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, b"\x00\x00\x01\x04\x00\x00\x00\x00")
        _get(sock, host)


@sender
def udp(host: str, port: str, size: str = "32", count: str = "1") -> None:
    """`count` UDP datagrams of `size` bytes; a size above the link's MTU makes the kernel fragment."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        for number in range(int(count)):
            sock.sendto(bytes((number + i) & 0xFF for i in range(int(size))), (host, int(port)))


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of data."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@sender
def ping(host: str, ident: str, count: str = "2") -> None:
    """ICMP echo requests with a chosen ident, each answered before the next."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.settimeout(2)
        for sequence in range(int(count)):
            head = struct.pack("!BBHHH", 8, 0, 0, int(ident, 0), sequence)
            body = bytes(range(24))
            message = head[:2] + struct.pack("!H", checksum(head + body)) + head[4:] + body
            sock.sendto(message, (host, 0))
            sock.recv(2048)


@sender
def syn(host: str, port: str, window: str, options: str = "") -> None:
    """One bare SYN with a given window and options in hex, as scanners send; the kernel answers the reply with RST."""
    source = "192.0.2.10"
    choices = bytes.fromhex(options)
    head = (
        struct.pack("!HHIIBBHHH", 40000, int(port), 1, 0, (5 + len(choices) // 4) << 4, 2, int(window), 0, 0) + choices
    )
    pseudo = socket.inet_aton(source) + socket.inet_aton(host) + struct.pack("!HH", 6, len(head))
    segment = head[:16] + struct.pack("!H", checksum(pseudo + head)) + head[18:]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as sock:
        sock.sendto(segment, (host, 0))
        time.sleep(0.05)


@sender
def dns_tcp(host: str, name: str) -> None:
    """One DNS query over TCP (type A)."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
    query = struct.pack("!HHHHHH", 0x2B1D, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!HH", 1, 1)
    with socket.create_connection((host, 53), timeout=5) as sock:
        sock.sendall(struct.pack("!H", len(query)) + query)
        sock.recv(512)


@sender
def dns_edns(host: str, name: str, qtype: str) -> None:
    """One DNS query over UDP with an EDNS(0) record, any type, name in mixed case as given."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
    query = struct.pack("!HHHHHH", 0x3C2A, 0x0100, 1, 0, 0, 1) + labels + struct.pack("!HH", int(qtype), 1)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.sendto(query + b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0), (host, 53))
        sock.recv(2048)


SOURCE = bytes.fromhex("02000000000a")


def _send_frames(device: str, frames: list[bytes]) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((device, 0))
        for frame in frames:
            sock.send(frame.ljust(60, b"\0"))
            time.sleep(0.01)


def _snap(destination: str, oui_pid: str, payload: bytes) -> bytes:
    """An 802.3 frame with LLC AA-AA-03 and a SNAP header."""
    body = bytes.fromhex("aaaa03" + oui_pid) + payload
    return bytes.fromhex(destination) + SOURCE + struct.pack("!H", len(body)) + body


@sender
def discovery(device: str) -> None:
    """LLDP to each of its three group addresses, then CDP, VTP, FDP, EDP, SONMP, IS-IS hello, and LLDP sent unicast."""
    tlvs = bytes.fromhex("0207 04 02000000000a 0405 05 65746830 0602 0078 0a06 737769746368 0e04 0014 0004 0000")
    lldp = [
        bytes.fromhex(group) + SOURCE + b"\x88\xcc" + tlvs for group in ("0180c200000e", "0180c2000003", "0180c2000000")
    ]
    cdp = bytes.fromhex("02b40000 0001000a 737769746368 00020011 00000001 0101cc0004 c000020a")
    isis = bytes.fromhex("0180c2000014") + SOURCE + struct.pack("!H", 30) + bytes.fromhex("fefe03 831b0100 0f010000")
    others = [
        _snap("01000ccccccc", "00000c2000", cdp),
        _snap("01000ccccccc", "00000c2003", b"\x01" + bytes(40)),
        _snap("01e052cccccc", "00e0522000", cdp),
        _snap("00e02b000000", "00e02b00bb", b"\x01" + bytes(40)),
        _snap("010081000100", "00008101a2", bytes.fromhex("c000020a 00000012 0c02")),
        isis,
        bytes.fromhex("02000000000b") + SOURCE + b"\x88\xcc" + tlvs,
    ]
    _send_frames(device, lldp + others)


def _ptp(kind: int, version: int = 2, major: int = 0) -> bytes:
    """A PTP message: 34 bytes of common header and a body of the type's length (IEEE 1588-2008, 13.3)."""
    bodies = {0: 10, 1: 10, 2: 20, 3: 20, 8: 10, 9: 20, 0xA: 20, 0xB: 30, 0xC: 14, 0xD: 10}
    length = 34 + bodies[kind]
    clock = bytes.fromhex("020000fffe00000a")
    head = struct.pack("!BBHBBHq4x", major << 4 | kind, version, length, 0, 0, 0x0200, 0)
    return head + clock + struct.pack("!HHBb", 1, 7, min(kind, 5), 0) + bytes(bodies[kind])


@sender
def ptp(device: str, group: str) -> None:
    """Every PTP type over UDP (event 319, general 320) and over Ethernet, untagged, tagged and double tagged."""
    kinds = (0, 1, 2, 3, 8, 9, 0xA, 0xB, 0xC, 0xD)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("192.0.2.10"))
        for kind in kinds:
            sock.sendto(_ptp(kind), (group, 319 if kind < 8 else 320))
    groups = {kind: bytes.fromhex("0180c200000e" if kind in (2, 3, 0xA) else "011b19000000") for kind in kinds}
    plain = [groups[kind] + SOURCE + b"\x88\xf7" + _ptp(kind) for kind in kinds]
    tagged = [frame[:12] + bytes.fromhex("81006005") + frame[12:] for frame in plain]
    double = [frame[:12] + bytes.fromhex("88a80064") + frame[12:] for frame in tagged[:2]]
    stray = [
        groups[0] + SOURCE + b"\x88\xf7" + _ptp(0, version=1),
        bytes.fromhex("011b19000000") + SOURCE + b"\x88\xf8" + _ptp(0),
    ]
    own = [groups[0] + bytes.fromhex("020000000099") + b"\x88\xf7" + _ptp(0)]
    _send_frames(device, plain + tagged + double + stray + own)


if __name__ == "__main__":
    SENDERS[sys.argv[1]](*sys.argv[2:])
