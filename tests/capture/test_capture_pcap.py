"""The pcap reader: every variant of the format, against dpkt, libpcap and what was written."""

from __future__ import annotations

import io
import itertools
import struct

import pytest
from capture_bytes import KUZNETZOV, MICRO, NANO, Packet, libpcap, pcap, pcap_header, pcap_record, random_packets, read

from pktbpf.capture.open import open_capture
from pktbpf.errors import CaptureError, UsageError

ORDERS = ("<", ">")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("magic", [MICRO, NANO, KUZNETZOV])
@pytest.mark.parametrize("version", [(2, 4), (2, 3), (2, 2), (2, 0), (543, 0)])
def test_every_variant_gives_the_packets_written(order: str, magic: int, version: tuple[int, int]) -> None:
    packets = random_packets(1, unit=1 if magic == NANO else 1000)
    outcome = read(pcap(packets, order, magic, version))
    assert outcome.error is None
    assert outcome.packets == packets


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("magic", [MICRO, NANO])
def test_same_as_dpkt(order: str, magic: int) -> None:
    dpkt = pytest.importorskip("dpkt")
    data = pcap(random_packets(2, count=200, longest=1500), order, magic)
    theirs = list(dpkt.pcap.Reader(io.BytesIO(data)))
    ours = read(data).packets
    assert [packet.data for packet in ours] == [bytes(buffer) for _, buffer in theirs]
    assert [packet.time / 1e9 for packet in ours] == pytest.approx([float(time) for time, _ in theirs], abs=1e-6)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("snaplen", [0, 1, 50, 65_535, 0x80000000, 0xFFFFFFFF])
def test_longer_than_the_snapshot_length_is_cut_as_libpcap_cuts(order: str, snaplen: int) -> None:
    data = pcap(random_packets(3), order, snaplen=snaplen)
    theirs, ours = libpcap(data), read(data)
    assert theirs.error is None
    assert ours.packets == theirs.packets


def test_lengths_of_version_2_3_may_be_in_either_order() -> None:
    packet = Packet(b"abc", 9)
    data = pcap_header(version=(2, 3)) + pcap_record(packet) + pcap_record(packet, wire_first=True)
    assert read(data).packets == [packet, packet]


@pytest.mark.parametrize(
    ("stored", "linktype"), [(1, 1), (12, 12), (14, 14), (100, 11), (101, 12), (102, 15), (103, 16), (106, 19)]
)
def test_link_type_values_of_files_become_dlt_values(stored: int, linktype: int) -> None:
    with open_capture(pcap_header(linktype=stored)) as capture:
        assert capture.linktype == linktype


def test_upper_bits_of_the_link_type_field_are_kept_apart() -> None:
    with open_capture(pcap_header(linktype=0x24000001)) as capture:
        assert capture.linktype == 1
        assert capture.class_bits == 0x24000000
        assert capture.interfaces[0].fcs == 4


def test_attributes() -> None:
    data = pcap(random_packets(4), magic=NANO, snaplen=0)
    with open_capture(data) as capture:
        assert (capture.format, capture.path, capture.size) == ("pcap", "<bytes>", len(data))
        assert capture.nanosecond
        assert capture.snaplen == 262_144
        assert sum(len(batch) for batch in capture) == capture.packets == 20
        assert capture.position == len(data)
        assert capture.read() is None


def test_times_after_2038_are_unsigned() -> None:
    late = Packet(b"x", 1, 0xFFFFFFFF * 1_000_000_000 + 999_999_000)
    assert read(pcap([late])).packets == [late]


@pytest.mark.parametrize(
    ("data", "reason", "offset"),
    [
        (b"", "the file is empty", 0),
        (b"\xd4", "not a capture", 0),
        (b"GIF89a, certainly no capture", "not a capture", 0),
        (pcap_header()[:23], "truncated: the file header takes 24 bytes, there are 23", 0),
        (pcap_header(version=(1, 2)), "pcap version 1.2 is not supported", 4),
        (pcap_header(version=(2, 5)), "pcap version 2.5 is not supported", 4),
        (pcap_header(version=(543, 1)), "pcap version 543.1 is not supported", 4),
    ],
)
def test_what_is_no_capture_is_refused_when_opening(data: bytes, reason: str, offset: int) -> None:
    with pytest.raises(CaptureError) as caught:
        open_capture(data)
    assert caught.value.reason.startswith(reason)
    assert caught.value.offset == offset
    assert libpcap(data).error is not None


@pytest.mark.parametrize(("linktype", "most"), [(1, 262_144), (231, 128 << 20), (279, 8 << 20)])
def test_a_captured_length_beyond_the_link_type_is_damage(linktype: int, most: int) -> None:
    good = pcap([Packet(b"good", 4)], linktype=linktype, snaplen=0)
    outcome = read(good + struct.pack("<IIII", 0, 0, most + 1, most + 1))
    assert outcome.packets == [Packet(b"good", 4)]
    assert outcome.offset == len(good)
    assert f"captured length {most + 1}" in (outcome.error or "")
    longest = read(good + struct.pack("<IIII", 0, 0, most, most))
    assert "truncated" in (longest.error or "")


def test_the_error_comes_again_at_every_later_call() -> None:
    with open_capture(pcap([Packet(b"good", 4)]) + b"12345") as capture:
        assert len(capture.read() or ()) == 1
        for _ in range(2):
            with pytest.raises(CaptureError, match="truncated"):
                capture.read()


def test_an_expected_link_type_that_differs_is_an_error() -> None:
    with pytest.raises(UsageError, match="the link type is RAW, not EN10MB"):
        open_capture(pcap_header(linktype=101), linktype=1)
    open_capture(pcap_header(linktype=101), linktype=12).close()


def test_numbers_go_on_from_first() -> None:
    with open_capture(pcap(random_packets(5, count=600, longest=40)), window=4096, first=11) as capture:
        firsts = [(batch.first, len(batch)) for batch in capture]
    assert len(firsts) > 1
    assert firsts[0][0] == 11
    assert all(before + count == after for (before, count), (after, _) in itertools.pairwise(firsts))


def _usb(mapped: bool) -> bytes:
    raw = bytearray(range(112))
    raw[9] = 0  # isochronous
    raw[60:64] = struct.pack(">I", 3 if mapped else 0)
    return bytes(raw)


@pytest.mark.parametrize(
    ("linktype", "packet"),
    [
        (113, bytes(14) + b"\0\x0c" + b"\1\2\3\4" + bytes(12)),
        (113, bytes(14) + b"\x08\0" + b"\1\2\3\4" + bytes(12)),
        (189, _usb(False)),
        (220, _usb(True)),
        (239, b"\2\0\0\0" + b"\0\x05\0\1" + b"abcd" + b"\0\x08\0\2" + b"efgh"),
    ],
)
def test_pseudo_headers_of_the_other_byte_order_are_turned_as_libpcap_turns_them(linktype: int, packet: bytes) -> None:
    packets = [Packet(packet[:size], len(packet)) for size in range(len(packet) + 1)]
    data = pcap(packets, ">", linktype=linktype)
    theirs = libpcap(data)
    assert theirs.error is None
    assert [one.data for one in read(data).packets] == [one.data for one in theirs.packets]
    same = pcap(packets, "<", linktype=linktype)
    assert read(same).packets == packets
