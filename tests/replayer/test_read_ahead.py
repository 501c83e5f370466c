"""Reading ahead: the same packets as plain iteration, and a batch stays whole while the next one is being read."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import pytest
from replay_bytes import ARP, pcap, pcapng

import pktbpf
from pktbpf.errors import CaptureError


def packets_of(source: bytes, *, ahead: bool, window: int) -> list[tuple[int, bytes]]:
    seen: list[tuple[int, bytes]] = []
    with pktbpf.open_capture(source, window=window) as capture:
        for batch in capture.ahead() if ahead else capture:
            if ahead:
                time.sleep(0.0005)  # time enough for the reader to overwrite what it must not
            seen += [(int(batch.timestamp[row]), batch.packet(row)) for row in range(len(batch))]
    return seen


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("window", [4096, 10_000, 1 << 19])
def test_the_same_packets(seed: int, window: int) -> None:
    chance = random.Random(seed)
    longest = chance.choice((60, 400, 9000))
    packets = [chance.randbytes(chance.randrange(longest)) for _ in range(chance.randrange(1, 1500))]
    source = pcap(packets) if seed % 2 else pcapng([(0, packet) for packet in packets], [1])
    plain = packets_of(source, ahead=False, window=window)
    assert [packet for _, packet in plain] == packets
    assert packets_of(source, ahead=True, window=window) == plain


def test_damage_comes_after_the_packets_before_it() -> None:
    source = pcap([ARP] * 3000)[:-5]
    seen: list[int] = []
    with pktbpf.open_capture(source, window=4096) as capture, pytest.raises(CaptureError, match="truncated"):
        seen.extend(len(batch) for batch in capture.ahead())
    assert sum(seen) == 2999


def test_leaving_early_leaves_no_reader_behind() -> None:
    before = threading.active_count()
    with pktbpf.open_capture(pcap([ARP] * 3000), window=4096) as capture:
        for _ in capture.ahead():
            break
    time.sleep(0.05)
    assert threading.active_count() == before


def test_a_pipe_that_goes_quiet_does_not_hold_up_what_came() -> None:
    """The first packets are judged while the reader waits for more, and a wanted count ends the replay at once."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as stream:
        os.write(writing, pcap([ARP] * 3))
        begun = time.monotonic()
        results = pktbpf.replay(stream, "arp", count=2)
        assert time.monotonic() - begun < 60
        assert (results.accepted, results.packets) == (2, 2)
        os.close(writing)


def test_a_large_file_is_read_ahead(tmp_path: Path) -> None:
    path = tmp_path / "large.pcap"
    path.write_bytes(pcap([ARP, bytes(1400)] * 4000))
    results = pktbpf.replay(path, "arp")
    assert (results.packets, results.accepted) == (8000, 4000)
    assert results.columns is not None
    assert results.columns.number.tolist() == list(range(1, 8001))
