"""One line about a packet, in the spirit of tcpdump's: who sends to whom, and what it is.

dpkt dissects Ethernet, cooked, raw IP and BSD loopback frames; other link types go to scapy, which is imported only
then. Bytes that cannot be dissected are said to be malformed or cut; nothing here ever fails on what a packet holds.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any

import dpkt

from pktbpf.capture import linktypes

_TCP_FLAGS = ((0x02, "S"), (0x01, "F"), (0x04, "R"), (0x08, "P"), (0x20, "U"), (0x40, "E"), (0x80, "W"), (0x10, "."))
_ICMP = {0: "echo reply", 3: "unreachable", 5: "redirect", 8: "echo request", 11: "time exceeded"}
_ICMP6 = {
    1: "unreachable", 2: "packet too big", 3: "time exceeded", 128: "echo request", 129: "echo reply",
    133: "router solicitation", 134: "router advertisement", 135: "neighbor solicitation",
    136: "neighbor advertisement", 143: "multicast listener report v2",
}  # fmt: skip
_ARP = {1: "Request", 2: "Reply", 3: "Reverse Request", 4: "Reverse Reply"}
_ETHERTYPES = {
    0x8035: "RARP", 0x8100: "802.1Q", 0x8847: "MPLS", 0x8863: "PPPoE D", 0x8864: "PPPoE S", 0x888E: "EAPOL",
    0x88A8: "802.1ad", 0x88CC: "LLDP", 0x88E5: "MACsec", 0x88F7: "PTP",
}  # fmt: skip
_TAGS = (0x8100, 0x88A8, 0x9100)


def describe(linktype: int, packet: bytes, wirelen: int) -> str:
    """The line about the captured bytes of a packet that was `wirelen` bytes long."""
    dissector = _DISSECTORS.get(linktype)
    try:
        if dissector is not None:
            return dissector(packet)
        from pktbpf.report import scapy_summary

        return scapy_summary.summary(linktype, packet)
    except Exception:
        # dpkt and scapy let struct.error, IndexError and more escape on hostile bytes; the line says so and goes on.
        why = "cut short" if wirelen > len(packet) else "malformed"
        return f"{linktypes.name_of(linktype)} [{why}]"


def _ethernet(packet: bytes) -> str:
    kind = int.from_bytes(packet[12:14], "big")
    at, tags = 14, ""
    while kind in _TAGS and len(packet) >= at + 4:
        tags += f"vlan {int.from_bytes(packet[at : at + 2], 'big') & 0xFFF}, "
        kind = int.from_bytes(packet[at + 2 : at + 4], "big")
        at += 4
    if len(packet) < at:
        raise ValueError("no room for the Ethernet header")
    if kind <= 1500:
        return f"{tags}{_mac(packet[6:12])} > {_mac(packet[0:6])}: {_llc(packet[at:])}, length {kind}"
    body = _ethertype(kind, packet[at:])
    if body is None:
        name = _ETHERTYPES.get(kind, f"ethertype 0x{kind:04x}")
        return f"{tags}{_mac(packet[6:12])} > {_mac(packet[0:6])}: {name}, length {len(packet) - at}"
    return tags + body


def _llc(payload: bytes) -> str:
    if payload[:3] == b"\x42\x42\x03":
        return "STP 802.1d"
    if payload[:3] == b"\xaa\xaa\x03" and len(payload) >= 8:
        if payload[3:8] == b"\x00\x00\x0c\x20\x00":
            return "CDP"
        return f"SNAP oui {payload[3:6].hex()} ethertype 0x{payload[6:8].hex()}"
    return f"802.3 LLC dsap 0x{payload[0]:02x} ssap 0x{payload[1]:02x}" if len(payload) > 1 else "802.3"


def _ethertype(kind: int, payload: bytes) -> str | None:
    if kind == 0x0800:
        return _ipv4(payload)
    if kind == 0x86DD:
        return _ipv6(payload)
    return _arp(payload) if kind == 0x0806 else None


def _cooked(packet: bytes) -> str:
    kind, payload = int.from_bytes(packet[14:16], "big"), packet[16:]
    return _ethertype(kind, payload) or f"ethertype 0x{kind:04x}, length {len(payload)}"


def _cooked2(packet: bytes) -> str:
    kind, payload = int.from_bytes(packet[0:2], "big"), packet[20:]
    return _ethertype(kind, payload) or f"ethertype 0x{kind:04x}, length {len(payload)}"


def _raw(packet: bytes) -> str:
    return _ipv6(packet) if packet[0] >> 4 == 6 else _ipv4(packet)


def _loopback(packet: bytes) -> str:
    return _raw(packet[4:])


def _arp(payload: bytes) -> str:
    arp = dpkt.arp.ARP(payload)
    kind = _ARP.get(arp.op, f"operation {arp.op}")
    sender, target = socket.inet_ntoa(arp.spa), socket.inet_ntoa(arp.tpa)
    if arp.op == 2:
        return f"ARP, {kind} {sender} is-at {_mac(arp.sha)}, length {len(payload)}"
    return f"ARP, {kind} who-has {target} tell {sender}, length {len(payload)}"


def _ipv4(payload: bytes) -> str:
    ip = dpkt.ip.IP(payload)
    source, target = socket.inet_ntoa(ip.src), socket.inet_ntoa(ip.dst)
    if ip.offset:
        return f"IP {source} > {target}: {_protocol(ip.p)}, fragment at {ip.offset}, length {len(ip.data)}"
    return _transport("IP", source, target, ip.p, ip.data, ip.len - 4 * ip.hl, more=bool(ip.mf))


def _ipv6(payload: bytes) -> str:
    ip = dpkt.ip6.IP6(payload)
    source, target = (socket.inet_ntop(socket.AF_INET6, address) for address in (ip.src, ip.dst))
    fragment = ip.extension_hdrs.get(44)
    if fragment is not None and fragment.frag_off:
        return f"IP6 {source} > {target}: {_protocol(fragment.nxt)}, fragment at {8 * fragment.frag_off}"
    extensions = sum(len(header) for header in ip.all_extension_headers)
    return _transport("IP6", source, target, ip.p, ip.data, ip.plen - extensions, more=False)


def _transport(family: str, source: str, target: str, protocol: int, data: Any, length: int, *, more: bool) -> str:
    """length: of the IP payload, by its header."""
    tail = ", first fragment" if more else ""
    if isinstance(data, dpkt.tcp.TCP):
        return f"{family} {source}.{data.sport} > {target}.{data.dport}: {_tcp(data, length)}{tail}"
    if isinstance(data, dpkt.udp.UDP):
        return f"{family} {source}.{data.sport} > {target}.{data.dport}: {_udp(data)}{tail}"
    if isinstance(data, dpkt.icmp.ICMP):
        return f"{family} {source} > {target}: ICMP {_icmp(_ICMP, bytes(data))}, length {length}{tail}"
    if isinstance(data, dpkt.icmp6.ICMP6):
        return f"{family} {source} > {target}: ICMP6 {_icmp(_ICMP6, bytes(data))}, length {length}{tail}"
    return f"{family} {source} > {target}: {_protocol(protocol)}, length {length}{tail}"


def _tcp(tcp: Any, length: int) -> str:
    flags = "".join(letter for bit, letter in _TCP_FLAGS if tcp.flags & bit) or "none"
    ack = f", ack {tcp.ack}" if tcp.flags & 0x10 else ""
    return f"Flags [{flags}], seq {tcp.seq}{ack}, win {tcp.win}, length {max(length - 4 * tcp.off, 0)}"


def _udp(udp: Any) -> str:
    length = max(udp.ulen - 8, 0)
    if 53 in (udp.sport, udp.dport):
        return f"{_dns(udp.data)}, length {length}"
    if {udp.sport, udp.dport} <= {67, 68}:
        return f"DHCP {'Request' if udp.dport == 67 else 'Reply'}, length {length}"
    return f"UDP, length {length}"


def _dns(data: Any) -> str:
    try:
        dns = dpkt.dns.DNS(bytes(data))
    except (dpkt.Error, struct.error, IndexError, UnicodeDecodeError):
        return "UDP"  # port 53 proves nothing
    kind = "answer" if dns.qr else "query"
    asked = " ".join(f"{question.name}/{question.type}" for question in dns.qd[:1])
    shown = "".join(c if c.isprintable() else "?" for c in asked)
    return f"DNS {kind} {shown}".rstrip() + (f", {len(dns.an)} records" if dns.qr else "")


def _icmp(names: dict[int, str], message: bytes) -> str:
    kind, code = message[0], message[1]
    text = names.get(kind, f"type {kind} code {code}")
    if text.startswith("echo") and len(message) >= 8:
        number, sequence = struct.unpack_from(">HH", message, 4)
        text += f", id {number}, seq {sequence}"
    return text


def _protocol(number: int) -> str:
    return {1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP", 47: "GRE", 50: "ESP", 51: "AH", 58: "ICMP6", 89: "OSPF",
            132: "SCTP"}.get(number, f"protocol {number}")  # fmt: skip


def _mac(address: bytes) -> str:
    return address.hex(":")


_DISSECTORS: dict[int, Callable[[bytes], str]] = {
    linktypes.by_name("EN10MB"): _ethernet,
    linktypes.by_name("LINUX_SLL"): _cooked,
    linktypes.by_name("LINUX_SLL2"): _cooked2,
    linktypes.by_name("RAW"): _raw,
    linktypes.by_name("IPV4"): _raw,
    linktypes.by_name("IPV6"): _raw,
    linktypes.by_name("NULL"): _loopback,
    linktypes.by_name("LOOP"): _loopback,
}
