"""The pcapng reader: sections, interfaces, clocks and all kinds of block, against python-pcapng and libpcap."""

from __future__ import annotations

import io
import struct
from fractions import Fraction

import pytest
from capture_bytes import (
    Packet,
    block,
    enhanced,
    interface,
    libpcap,
    obsolete,
    option,
    random_packets,
    read,
    section,
    simple,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pktbpf.capture.open import open_capture
from pktbpf.errors import CaptureError

ORDERS = ("<", ">")
INT64 = (1 << 63) - 1


def _rich(order: str) -> bytes:
    """One section with everything that can be in it."""
    return b"".join(
        [
            section(order, option(4, b"by hand", order) + option(0, b"", order)),
            block(0x0BAD, b"unknown!", order),
            interface(order, 1, 100, name="eth0"),
            interface(order, 101, 0, tsresol=9),
            interface(order, 276, 0, tsresol=0x8A, tsoffset=1_000),
            enhanced(b"a" * 13, 1_700_000_000_123_456, order, 0, 20, option(1, b"note", order) + option(0, b"", order)),
            enhanced(b"b" * 14, 1_700_000_000_123_456_789, order, 1),
            block(5, struct.pack(order + "III", 0, 0, 0), order),
            enhanced(b"c" * 3, (1_700_000_000 << 10) | 513, order, 2),
            simple(b"d" * 100, order, 150),
            simple(b"e" * 7, order),
            obsolete(b"f" * 5, 1_600_000_000_000_001, order, 0, 9),
            block(0x80000001, b"", order),
        ]
    )


def _expected(first: int) -> list[Packet]:
    return [
        Packet(b"a" * 13, 20, 1_700_000_000_123_456_000, first),
        Packet(b"b" * 14, 14, 1_700_000_000_123_456_789, first + 1),
        Packet(b"c" * 3, 3, 1_700_001_000_500_976_562, first + 2),
        Packet(b"d" * 100, 150, 0, first),
        Packet(b"e" * 7, 7, 0, first),
        Packet(b"f" * 5, 9, 1_600_000_000_000_001_000, first),
    ]


@pytest.mark.parametrize("orders", ["<", ">", "<>", "><<>"])
@pytest.mark.parametrize("window", [4096, 1 << 19])
def test_sections_interfaces_and_blocks(orders: str, window: int) -> None:
    data = b"".join(_rich(order) for order in orders)
    outcome = read(data, window=window)
    assert outcome.error is None
    assert outcome.packets == [packet for number in range(len(orders)) for packet in _expected(3 * number)]


def test_interfaces_are_listed_as_the_file_describes_them() -> None:
    with open_capture(_rich("<") + _rich(">")) as capture:
        assert capture.format == "pcapng"
        assert [one.linktype for one in capture.interfaces] == [1, 12, 276]
        assert capture.linktype == 1
        assert capture.nanosecond
        for _ in capture:
            pass
        assert [one.linktype for one in capture.interfaces] == [1, 12, 276] * 2
        assert [one.resolution for one in capture.interfaces[:3]] == [1_000_000, 1_000_000_000, 1024]
        assert [one.snaplen for one in capture.interfaces[:3]] == [100, 262_144, 262_144]
        assert capture.interfaces[0].name == "eth0"


@pytest.mark.parametrize("order", ORDERS)
def test_same_as_python_pcapng(order: str) -> None:
    blocks = pytest.importorskip("pcapng.blocks")
    kinds = (blocks.EnhancedPacket, blocks.SimplePacket, blocks.ObsoletePacket)
    data = _rich(order)
    theirs = [one for one in pytest.importorskip("pcapng").FileScanner(io.BytesIO(data)) if isinstance(one, kinds)]
    ours = read(data).packets
    assert [packet.data for packet in ours] == [bytes(one.packet_data) for one in theirs]
    assert [packet.wirelen for packet in ours] == [one.packet_len for one in theirs]


@pytest.mark.parametrize("order", ORDERS)
def test_same_as_libpcap(order: str) -> None:
    packets = random_packets(1)
    blocks = [enhanced(one.data, one.time // 1000, order, 0, one.wirelen) for one in packets]
    data = section(order) + interface(order) + interface(order) + b"".join(blocks) + simple(b"xyz", order)
    data += section(order) + interface(order, tsresol=3, tsoffset=50) + enhanced(b"1", 7, order) + simple(b"2", order)
    theirs, ours = libpcap(data), read(data)
    assert theirs.error is ours.error is None
    assert [(p.data, p.wirelen, p.time) for p in ours.packets] == [(p.data, p.wirelen, p.time) for p in theirs.packets]


def _exact(ticks: int, code: int, offset: int) -> int:
    units = 2 ** (code & 0x7F) if code & 0x80 else 10**code
    return int(Fraction(ticks % units * 10**9, units)) + (ticks // units + offset) * 10**9


@given(
    ticks=st.integers(0, (1 << 64) - 1) | st.integers(0, 1 << 40),
    code=st.integers(0, 19) | st.integers(0x80, 0x80 + 63),
    offset=st.sampled_from([0, 0, 1, -1, 1 << 33, -(1 << 33), -(1 << 63), (1 << 63) - 1]),
)
@example(ticks=(1 << 64) - 1, code=19, offset=0)
@example(ticks=(1 << 63), code=0, offset=-(1 << 63))
@example(ticks=INT64 // 1000, code=6, offset=0)
@example(ticks=INT64 // 1000 + 1, code=6, offset=0)
@settings(max_examples=400, deadline=None)
def test_every_clock_is_exact_to_the_nanosecond(ticks: int, code: int, offset: int) -> None:
    data = section() + interface(tsresol=code, tsoffset=offset) + enhanced(b"x", ticks)
    with open_capture(data) as capture:
        found = [int(batch.timestamp[0]) for batch in capture]
        clamped = capture.clamped
    exact = _exact(ticks, code, offset)
    if clamped:
        # Whole seconds decide, so that up to one second at the very ends counts as outside.
        assert abs(exact) > INT64 - 2 * 10**9
        assert found == [INT64 if exact > 0 else -INT64]
    else:
        assert found == [exact]


BEGIN = section() + interface(snaplen=64)
GOOD = enhanced(b"good", 5)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (struct.pack("<II", 6, 8) + bytes(8), "a block has a length of 8 bytes, fewer than the 12"),
        (struct.pack("<II", 6, 33) + bytes(40), "a block has a length of 33 bytes, not a multiple of 4"),
        (struct.pack("<II", 6, 0xFFFFFFFC) + bytes(40), "a block has a length of 4294967292 bytes, more than"),
        (struct.pack("<II", 6, 40) + bytes(36), "a block begins with the length 40 and ends with the length 0"),
        (struct.pack("<II", 6, 40) + bytes(20), "truncated: the block takes 40 bytes, there are 28"),
        (b"\6\0\0", "truncated: the block takes 8 bytes, there are 3"),
        (block(6, bytes(16)), "the enhanced packet block is too short"),
        (block(2, bytes(16)), "the packet block is too short"),
        (block(3, b""), "the simple packet block is too short"),
        (simple(b"123", wirelen=9), "the simple packet block is too short"),
        (block(6, struct.pack("<IIIII", 0, 0, 0, 9, 9) + b"12345678"), "the enhanced packet block is too short"),
        (block(6, struct.pack("<IIIII", 0, 0, 0, 0xFFFFFFFF, 9) + bytes(8)), "captured length 4294967295 is more"),
        (enhanced(bytes(65), 1), "captured length 65 is more than the interface's snapshot length 64"),
        (enhanced(b"x", 1, card=1), "a packet came in on interface 1, the section describes 1"),
        (obsolete(b"x", 1, card=0xFFFF), "a packet came in on interface 65535"),
        (block(1, bytes(4)), "the interface description is too short"),
        (block(1, bytes(8) + b"\1\0\x08\0"), "the options of an interface description are cut short"),
        (block(1, bytes(8) + option(9, b"\6\6")), "option 9 of an interface description has 2 bytes, not 1"),
        (block(1, bytes(8) + option(14, b"\6")), "option 14 of an interface description has 1 bytes, not 8"),
        (block(1, bytes(8) + option(0, b"\6")), "option 0 of an interface description has 1 bytes, not 0"),
        (block(1, bytes(8) + 2 * option(9, b"\6")), "option 9 of an interface description is there twice"),
        (interface(tsresol=20), "an interface's time resolution of 10^-20 s is too fine"),
        (interface(tsresol=0x80 + 64), "an interface's time resolution of 2^-64 s is too fine"),
        (block(0x0A0D0D0A, bytes(16)), "a section header has the byte-order magic 00000000"),
        (section()[:8] + b"\0\0\0\0" + section()[12:], "a section header has the byte-order magic 00000000"),
        (section(version=(2, 0)), "pcapng version 2.0 is not supported"),
        (section() + enhanced(b"x", 1), "a packet came in on interface 0, the section describes 0"),
        (section()[:24] + b"\0\0\0\0", "a block begins with the length 28 and ends with the length 0"),
    ],
)
def test_damage_after_a_good_packet(bad: bytes, reason: str) -> None:
    outcome = read(BEGIN + GOOD + bad)
    assert outcome.packets == [Packet(b"good", 4, 5_000)]
    assert outcome.error is not None
    assert outcome.error.startswith(reason)
    late = len(section()) if "describes 0" in reason else 0
    assert outcome.offset == len(BEGIN + GOOD) + late
    assert libpcap(BEGIN + GOOD + bad).error is not None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (section(), "there is no interface description in the file"),
        (section() + block(0xBAD, b"1234"), "there is no interface description in the file"),
        (section() + GOOD, "a packet came in on interface 0, the section describes 0"),
        (section(version=(1, 1)), "pcapng version 1.1 is not supported"),
        (section()[:11], "truncated"),
        (section()[:27], "truncated"),
        (b"\n\r\r\n" + b"a text file that begins so", "a section header has the byte-order magic"),
        (b"\n\r\r\n" + struct.pack("<II", 0x7FFFFFF0, 0x1A2B3C4D), "a section header has an invalid length"),
    ],
)
def test_refused_when_opening(data: bytes, reason: str) -> None:
    with pytest.raises(CaptureError) as caught:
        open_capture(data)
    assert caught.value.reason.startswith(reason)
    assert libpcap(data).error is not None


def test_a_version_1_2_section_is_read() -> None:
    assert read(section(version=(1, 2)) + interface() + GOOD).packets == [Packet(b"good", 4, 5_000)]


def test_many_interfaces_and_sections_stay_quick() -> None:
    data = section() + interface() * 500 + enhanced(b"x", 1, card=499)
    assert read(data * 3).packets == [Packet(b"x", 1, 1000, card) for card in (499, 999, 1499)]


def test_a_large_unknown_block_is_skipped() -> None:
    outcome = read(BEGIN + block(0xBAD, bytes(3 << 20)) + GOOD, window=4096)
    assert outcome.packets == [Packet(b"good", 4, 5_000)]
    assert outcome.error is None
