"""What each filter should say, by looking at the packet in plain Python: the independent side of the claims.

`ORACLES[name](frame)` takes a whole frame (or payload, for filters on unix sockets) and gives False for a drop, True
for the whole packet, or the filter's return value as an int. Nothing here knows pktbpf; dpkt reads DNS and BOOTP.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

import dpkt

CLIENT, SERVER = bytes.fromhex("02000000000a"), bytes.fromhex("02000000000b")
Verdict = bool | int
ORACLES: dict[str, Callable[[bytes], Verdict]] = {}


def oracle(function: Callable[[bytes], Verdict]) -> Callable[[bytes], Verdict]:
    """Register an oracle under its function's name."""
    ORACLES[function.__name__] = function
    return function


@dataclass(frozen=True)
class View:
    """An Ethernet frame taken apart. protocol: of the header right behind IPv4 or the fixed IPv6 header, -1 for no IP.
    offset: of an IPv4 fragment, in bytes. l4: what stands behind the IP header (padding included)."""

    kind: int
    version: int
    protocol: int
    offset: int
    more: bool
    ip: bytes
    l4: bytes

    @property
    def ports(self) -> tuple[int, int]:
        return struct.unpack("!HH", self.l4[:4])  # type: ignore[return-value]


def view(frame: bytes) -> View:
    kind = int.from_bytes(frame[12:14], "big")
    ip = frame[14:]
    if kind == 0x0800:
        field = int.from_bytes(ip[6:8], "big")
        return View(kind, 4, ip[9], (field & 0x1FFF) * 8, bool(field & 0x2000), ip, ip[(ip[0] & 15) * 4 :])
    if kind == 0x86DD:
        return View(kind, 6, ip[6], 0, False, ip, ip[40:])
    return View(kind, 0, -1, 0, False, ip, b"")


def first(packet: View, protocol: int) -> bool:
    """IP of that protocol, with the transport header in the packet."""
    return packet.protocol == protocol and packet.offset == 0


@oracle
def tcp_port_80(frame: bytes) -> Verdict:
    packet = view(frame)
    return first(packet, 6) and packet.ports[1] == 80


@oracle
def tcp_port_80_either_side(frame: bytes) -> Verdict:
    packet = view(frame)
    return first(packet, 6) and 80 in packet.ports


@oracle
def dhcp_reply(frame: bytes) -> Verdict:
    packet = view(frame)
    if packet.version != 4 or packet.ip[0] != 0x45 or packet.protocol != 17 or packet.more or packet.offset:
        return False
    if len(packet.ip) < 268 or packet.ports[1] != 68:
        return False
    message = dpkt.dhcp.DHCP(packet.l4[8:])
    return message.op == 2 and message.hrd == 1 and message.hln == 6 and message.magic == 0x63825363


@oracle
def udp_to_68(frame: bytes) -> Verdict:
    packet = view(frame)
    return packet.version == 4 and first(packet, 17) and packet.ports[1] == 68


@oracle
def arp_request_or_reply(frame: bytes) -> Verdict:
    packet = view(frame)
    return (
        42
        if packet.kind == 0x0806 and packet.ip[:6] == b"\0\1\x08\0\6\4" and packet.ip[6:8] in (b"\0\1", b"\0\2")
        else 0
    )


@oracle
def arp_conflict(frame: bytes) -> Verdict:
    if frame[12:14] != b"\x08\x06":
        return False
    arp = dpkt.arp.ARP(frame[14:])
    mine = bytes([192, 0, 2, 10])
    if (arp.hrd, arp.pro) != (1, 0x0800) or arp.sha == CLIENT:
        return False
    return arp.spa == mine or (arp.spa == bytes(4) and arp.tpa == mine)


@oracle
def link_discovery(frame: bytes) -> Verdict:
    destination, kind, snap = frame[:6].hex(), frame[12:14].hex(), frame[20:22].hex()
    if destination in ("0180c200000e", "0180c2000003", "0180c2000000"):
        return kind == "88cc"
    groups = {"01000ccccccc": "2000", "01e052cccccc": "2000", "00e02b000000": "00bb", "010081000100": "01a2"}
    return groups.get(destination) == snap


@oracle
def ping_reply(frame: bytes) -> Verdict:
    packet = view(frame)
    if packet.protocol != 1 or packet.offset or packet.l4[0] == 8:
        return False
    return packet.l4[0] != 0 or packet.l4[4:6] == b"\x12\x34"


def _dns(packet: View) -> dpkt.dns.DNS | None:
    if not first(packet, 17) or packet.ports[1] != 53:
        return None
    size = int.from_bytes(packet.l4[4:6], "big")
    try:
        return dpkt.dns.DNS(packet.l4[8:size])
    except dpkt.UnpackError:
        return None


@oracle
def dns_query(frame: bytes) -> Verdict:
    packet = view(frame)
    return first(packet, 17) and packet.ports[1] == 53 and packet.l4[10] & 0xF8 == 0


@oracle
def dns_name(frame: bytes) -> Verdict:
    packet = view(frame)
    message = _dns(packet) if packet.version == 4 else None
    if message is None or message.qr == dpkt.dns.DNS_R or not message.qd:
        return 0
    return int(message.qd[0].name.lower() == "www.example.test")


@oracle
def linux_syn(frame: bytes) -> Verdict:
    packet = view(frame)
    if packet.version != 4 or packet.ip[0] != 0x45 or packet.protocol != 6 or packet.ip[6:8] != b"\x40\0":
        return False
    if int.from_bytes(packet.ip[2:4], "big") != 60 or packet.ip[8] > 64 or packet.l4[12:14] != b"\xa0\x02":
        return False
    return re.match(rb"\x02\x04..\x04\x02\x08\x0a.{8}\x01\x03\x03.", packet.l4[20:40], re.DOTALL) is not None


@oracle
def scanner_syn(frame: bytes) -> Verdict:
    packet = view(frame)
    return packet.version == 4 and first(packet, 6) and packet.l4[13] == 2 and packet.l4[14:16] == b"\4\0"


@oracle
def any_fragment(frame: bytes) -> Verdict:
    packet = view(frame)
    return packet.more or packet.offset > 0 or (packet.version == 6 and packet.protocol == 44)


@oracle
def udp_to_80_with_header(frame: bytes) -> Verdict:
    packet = view(frame)
    return packet.version == 4 and first(packet, 17) and packet.ports[1] == 80


def tags(frame: bytes) -> list[tuple[int, int]]:
    """The (TPID, VLAN) pairs in front of the EtherType, outermost first."""
    found, at = [], 12
    while int.from_bytes(frame[at : at + 2], "big") in (0x8100, 0x88A8, 0x9100):
        tpid, tci = struct.unpack("!HH", frame[at : at + 4])
        found.append((tpid, tci & 0xFFF))
        at += 4
    return found


@oracle
def vlan_10_in_bytes(frame: bytes) -> Verdict:
    stack = tags(frame)
    inner = stack[1:] if stack and stack[0][0] in (0x88A8, 0x9100) else stack
    return bool(inner) and inner[0] == (0x8100, 10)


@oracle
def outer_tag_is_vlan_10(frame: bytes) -> Verdict:
    return bool(tags(frame)) and tags(frame)[0][1] == 10


@oracle
def ptp(frame: bytes) -> Verdict:
    stack = tags(frame)
    if len(stack) > 1 or frame[6:12] == bytes.fromhex("020000000099"):
        return False
    packet = view(frame)
    if packet.version == 4:
        return first(packet, 17) and packet.l4[9] & 15 == 2 and packet.ports[1] == 319 + (packet.l4[8] >> 3 & 1)
    at = 16 if stack else 12
    return (not stack or stack[0][0] == 0x8100) and frame[at : at + 2] == b"\x88\xf7" and frame[at + 3] & 15 == 2


@oracle
def icmp(frame: bytes) -> Verdict:
    packet = view(frame)
    return packet.version == 4 and packet.protocol == 1


@oracle
def to_the_server(frame: bytes) -> Verdict:
    return frame[:6] == SERVER


@oracle
def link_messages(message: bytes) -> Verdict:
    _length, kind, _flags, _sequence, port = struct.unpack("=IHHII", message[:16])
    return port != 4242 and kind in (2, 3, 16, 17)


@oracle
def router_advertisement(frame: bytes) -> Verdict:
    packet = view(frame)
    link_local = packet.ip[8:10] >= b"\xfe\x80" and packet.ip[8:10] <= b"\xfe\xbf"
    return (
        packet.version == 6
        and packet.protocol == 58
        and packet.ip[7] == 255
        and link_local
        and packet.l4[:2] == b"\x86\0"
    )


def tcp_payload(packet: View) -> bytes:
    return packet.l4[(packet.l4[12] >> 4) * 4 :]


@oracle
def http_get(frame: bytes) -> Verdict:
    packet = view(frame)
    return packet.version == 4 and first(packet, 6) and tcp_payload(packet)[:4] == b"GET "


@oracle
def over_1000(frame: bytes) -> Verdict:
    return 96 if len(frame) > 1000 else 0


@oracle
def resolver_answer(frame: bytes) -> Verdict:
    packet = view(frame)
    return packet.ip[12:16] == bytes([192, 0, 2, 1]) and packet.ports[0] == 53 and packet.l4[10] >> 7 == 1


@oracle
def isis(frame: bytes) -> Verdict:
    return frame[14:18] == b"\xfe\xfe\x03\x83"


@oracle
def tcp_headers(frame: bytes) -> Verdict:
    packet = view(frame)
    if packet.version != 4 or not first(packet, 6):
        return 0
    return 14 + (packet.ip[0] & 15) * 4 + (packet.l4[12] >> 4) * 4


def _behind_extensions(packet: View) -> tuple[int, int, bool]:
    """Protocol and place (from the IP header on) behind IPv6 extension headers, and whether it is a later fragment."""
    protocol, at = packet.protocol, 40
    while protocol in (0, 43, 44, 60):
        size = 8 if protocol == 44 else 8 + packet.ip[at + 1] * 8
        if protocol == 44 and int.from_bytes(packet.ip[at + 2 : at + 4], "big") & 0xFFF8:
            return packet.ip[at], at + size, True
        protocol, at = packet.ip[at], at + size
    return protocol, at, False


@oracle
def headers(frame: bytes) -> Verdict:
    packet = view(frame)
    if packet.version == 4:
        protocol, at, later = packet.protocol, (packet.ip[0] & 15) * 4, packet.offset > 0
    elif packet.version == 6:
        protocol, at, later = _behind_extensions(packet)
    else:
        return {0x0806: 14, 0x88F7: 14 + 34}.get(packet.kind, 0)
    sizes = {1: 8, 58: 8, 17: 8, 6: 0 if later else (packet.ip[at + 12] >> 4) * 4}
    return 14 + at + (0 if later else sizes[protocol])


@oracle
def untagged(frame: bytes) -> Verdict:
    return view(frame).kind not in (0x8100, 0x88A8)


@oracle
def link_message_of_eth0(message: bytes) -> Verdict:
    length, kind = struct.unpack("=IH", message[:6])
    if kind not in (16, 17):
        return False
    at = 32
    while at + 4 <= length:
        size, number = struct.unpack("=HH", message[at : at + 4])
        if number == 3:
            return message[at + 4 : at + size] == b"eth0\0"
        at += (size + 3) & ~3
    return False


@oracle
def syslog_error(datagram: bytes) -> Verdict:
    found = re.match(rb"<([0-9]{1,3})>", datagram)
    return found is not None and int(found[1]) % 8 <= 3


@oracle
def client_hello(frame: bytes) -> Verdict:
    packet = view(frame)
    if packet.version != 4 or not first(packet, 6) or packet.ports[1] != 443:
        return False
    payload = tcp_payload(packet)
    return payload[:1] == b"\x16" and payload[5:6] == b"\1"


@oracle
def nothing(_frame: bytes) -> Verdict:
    return False


@oracle
def not_icmp(frame: bytes) -> Verdict:
    return not icmp(frame)


@oracle
def ipv4(frame: bytes) -> Verdict:
    return view(frame).version == 4


@oracle
def udp4(frame: bytes) -> Verdict:
    packet = view(frame)
    return packet.version == 4 and first(packet, 17)
