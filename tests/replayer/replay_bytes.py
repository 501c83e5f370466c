"""Small captures in memory for replay tests."""

from __future__ import annotations

import struct
from collections.abc import Sequence

TCP_80 = bytes.fromhex(
    "020000000001 020000000002 0800 4500002c00010000400600000a0000010a000002 04d20050000000010000000250100040"
    "00000000 61626364"
)
ARP = bytes.fromhex("ffffffffffff 020000000002 0806 0001080006040001") + bytes(20)
UDP_53 = bytes.fromhex(
    "020000000001 020000000002 0800 4500002000010000401100000a0000010a000002 04d20035000c0000 61626364"
)
VLAN_ARP = ARP[:12] + bytes.fromhex("8100000a") + ARP[12:]


def pcap(
    packets: Sequence[bytes], *, linktype: int = 1, wirelens: Sequence[int] | None = None, nano: bool = False
) -> bytes:
    """A little-endian pcap file; packet n has the time 1000 + n seconds and n ticks."""
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    out = struct.pack("<IHHiIII", magic, 2, 4, 0, 0, 262144, linktype)
    for number, packet in enumerate(packets):
        wirelen = wirelens[number] if wirelens is not None else len(packet)
        out += struct.pack("<IIII", 1000 + number, number, len(packet), wirelen) + packet
    return out


def pcapng(packets: Sequence[tuple[int, bytes]], linktypes: Sequence[int]) -> bytes:
    """A pcapng file with an interface per link type; packets are (interface, bytes)."""
    out = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
    for linktype in linktypes:
        out += struct.pack("<IIHHII", 1, 20, linktype, 0, 0, 20)
    for interface, packet in packets:
        padded = packet + bytes(-len(packet) % 4)
        total = 32 + len(padded)
        out += struct.pack("<7I", 6, total, interface, 0, 5, len(packet), len(packet)) + padded
        out += struct.pack("<I", total)
    return out
