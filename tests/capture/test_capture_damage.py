"""Damaged captures: every whole packet before the damage, then CaptureError; as libpcap, over cuts and mutations."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator

import pytest
from capture_bytes import (
    KUZNETZOV,
    MICRO,
    NANO,
    Outcome,
    block,
    enhanced,
    interface,
    libpcap,
    mutate,
    obsolete,
    option,
    pcap,
    random_packets,
    read,
    section,
    simple,
)

# What libpcap cannot do and pktbpf can (version 1.2 only older ones refuse); up to there the packets are the same.
LIBPCAP_LIMITS = ("different from the type", "different byte orders", "savefile version 1.2")


def _corpus() -> Iterator[bytes]:
    for order in "<>":
        for magic in (MICRO, NANO, KUZNETZOV):
            for version in ((2, 4), (2, 3), (2, 2)):
                yield pcap(random_packets(7, 6, 40), order, magic, version)
        yield pcap(random_packets(9, 6, 40), order, snaplen=20)
        note = option(1, b"note", order) + option(0, b"", order)
        packets = [enhanced(one.data, one.time // 1000, order, 0, one.wirelen) for one in random_packets(1, 4, 40)]
        yield b"".join(
            [section(order), interface(order), *packets, simple(b"abcde", order), obsolete(b"xyz", 5, order),
             block(5, b"statistics..", order), enhanced(b"q" * 9, 77, order, options=note)]
        )  # fmt: skip
        yield b"".join(
            [section(order), interface(order, 1, 64, 9, 3, "eth0"), interface(order, 1, 64, 0x8A),
             block(0xBAD, b"unknown!", order), enhanced(bytes(64), 1_700_000_000_123_456_789, order),
             simple(b"1" * 64, order, 90), enhanced(b"123", 1_700_000_000 << 10 | 5, order, 1),
             section(order), interface(order, 1, 64), enhanced(b"22222", 9, order)]
        )  # fmt: skip


CORPUS = list(_corpus())


def _bytes(outcome: Outcome) -> list[tuple[bytes, int]]:
    return [(packet.data, packet.wirelen) for packet in outcome.packets]


def _check(data: bytes) -> None:
    """pktbpf and libpcap see the same packets and both or neither see damage."""
    theirs, ours = libpcap(data), read(data, window=4096)
    if theirs.error and any(limit in theirs.error for limit in LIBPCAP_LIMITS):
        assert _bytes(ours)[: len(theirs.packets)] == _bytes(theirs)
        return
    assert _bytes(ours) == _bytes(theirs)
    assert (ours.error is None) == (theirs.error is None), (ours.error, theirs.error)


@pytest.mark.parametrize("number", range(len(CORPUS)))
def test_cut_at_every_byte(number: int) -> None:
    data = CORPUS[number]
    whole = read(data).packets
    assert whole
    for size in range(len(data)):
        outcome = read(data[:size])
        assert outcome.packets == whole[: len(outcome.packets)]
        _check(data[:size])
        if outcome.error is not None:
            assert outcome.offset is not None
            assert outcome.offset <= size


@pytest.mark.parametrize("seed", range(4))
def test_mutations_as_libpcap_sees_them(seed: int) -> None:
    source = random.Random(seed)
    for _ in range(2_500):
        _check(mutate(source.choice(CORPUS), source))


@pytest.mark.long
def test_many_mutations_as_libpcap_sees_them() -> None:
    source = random.Random(99)
    for _ in range(300_000):
        _check(mutate(source.choice(CORPUS), source))


def test_mutations_of_sections_of_both_byte_orders() -> None:
    source = random.Random(5)
    mixed = b"".join(data for data in CORPUS if data.startswith(b"\n"))
    assert read(mixed).error is None
    for _ in range(2_000):
        data = mutate(mixed, source)
        assert read(data, window=4096).packets == read(data).packets


@pytest.mark.parametrize("kind", ["pcap", "pcapng"])
def test_a_huge_length_makes_no_huge_allocation(kind: str) -> None:
    huge = 127 << 20
    if kind == "pcap":
        data = pcap([], linktype=231, snaplen=0) + b"".join(n.to_bytes(4, "little") for n in (0, 0, huge, huge))
    else:
        data = section() + interface(linktype=231) + (6).to_bytes(4, "little") + huge.to_bytes(4, "little")
    read(data)
    tracemalloc.start()
    outcome = read(data + bytes(100_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "truncated" in (outcome.error or "")
    assert peak < 8 << 20
