"""One line per packet: what it says of real traffic, and that hostile bytes never break it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import pktbpf
from pktbpf.capture import linktypes
from pktbpf.report import oneline
from pktbpf.report.printer import clock
from pktbpf.report.records import seconds

ETHER = "020000000001020000000002"


def line(text: str, linktype: int = 1) -> str:
    packet = bytes.fromhex(text)
    return oneline.describe(linktype, packet, len(packet))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{ETHER}88cc0207040200", "02:00:00:00:00:02 > 02:00:00:00:00:01: LLDP, length 5"),
        (f"{ETHER}0026424203000000", "02:00:00:00:00:02 > 02:00:00:00:00:01: STP 802.1d, length 38"),
        (f"{ETHER}9999ffff", "02:00:00:00:00:02 > 02:00:00:00:00:01: ethertype 0x9999, length 2"),
        (
            f"{ETHER}8100000a08060001080006040001 020000000002 0a000001 000000000000 0a000002",
            "vlan 10, ARP, Request who-has 10.0.0.2 tell 10.0.0.1, length 28",
        ),
        (f"{ETHER}0806", "EN10MB [malformed]"),
        ("0200", "EN10MB [malformed]"),
    ],
)
def test_link_layer(text: str, said: str) -> None:
    assert line(text) == said


@pytest.mark.parametrize(
    ("capture", "linktype", "said"),
    [
        ("icmp.pcap", 1, "ICMP echo request, id"),
        ("icmpv6.pcap", 1, "ICMP6 neighbor solicitation"),
        ("dns.pcap", 1, "DNS query www.example.test/1"),
        ("dhcp.pcap", 1, "DHCP Request, length"),
        ("vlan.pcap", 1, "vlan 10, "),
        ("fragments.pcap", 1, ", fragment at "),
        ("any-sll.pcap", 113, "IP 127.0.0.1."),
        ("any-sll2.pcap", 276, "IP 127.0.0.1."),
        ("null.pcap", 0, "Flags [S], seq"),
        ("raw.pcap", 12, "Flags [S], seq"),
        ("discovery.pcap", 1, ": LLDP, length"),
    ],
)
def test_real_traffic(capture: str, linktype: int, said: str) -> None:
    lines = []
    with pktbpf.open_capture(Path("pcaps") / capture) as packets:
        for batch in packets:
            assert batch.single_linktype() == linktype
            lines += [oneline.describe(linktype, batch.packet(n), int(batch.wirelen[n])) for n in range(len(batch))]
    assert any(said in line for line in lines), lines[:10]
    assert not any("malformed" in line for line in lines)


def test_hostile_bytes_give_a_line() -> None:
    chance = random.Random(5)
    with pktbpf.open_capture("pcaps/web.pcap") as packets:
        whole = [batch.packet(n) for batch in packets for n in range(len(batch))]
    for number in range(4000):
        packet = bytearray(chance.choice(whole)[14:] if number % 2 else chance.choice(whole))
        for _ in range(chance.randrange(1, 6)):
            packet[chance.randrange(min(len(packet), 60))] = chance.randrange(256)
        packet = packet[: chance.randrange(len(packet) + 1)]
        said = oneline.describe(chance.choice((0, 1, 12, 113, 276)), bytes(packet), 1500)
        assert said
        assert said.isprintable()


def test_other_link_types_go_to_scapy() -> None:
    radio = bytes.fromhex("000008000000000080000000ffffffffffff0200000000010200000000010000") + bytes(20)
    assert "802.11" in oneline.describe(linktypes.by_name("IEEE802_11_RADIO"), radio, len(radio))
    assert oneline.describe(147, b"abc", 3) == f"{linktypes.name_of(147)}, length 3"


def test_times_are_exact() -> None:
    assert clock(1_700_000_000_123_456_000) == "2023-11-14 22:13:20.123456"
    assert clock(1_700_000_000_123_456_789) == "2023-11-14 22:13:20.123456789"
    assert clock(-1_000) == "1969-12-31 23:59:59.999999"
    assert seconds(1_700_000_000_000_000_001) == "1700000000.000000001"
    assert seconds(-1) == "-0.000000001"
