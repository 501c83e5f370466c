"""A batch is a sequence of packets, too."""

from __future__ import annotations

from pathlib import Path

import pytest

import pktbpf
from pktbpf.capture.batch import batch_of


def test_iteration_gives_the_captured_bytes() -> None:
    assert list(batch_of([b"abc", b"", b"de"])) == [b"abc", b"", b"de"]


@pytest.mark.parametrize("name", ["web.pcap", "two-interfaces.pcapng"])
def test_iteration_agrees_with_packet(name: str) -> None:
    with pktbpf.open_capture(Path("pcaps") / name) as capture:
        for batch in capture:
            packets = list(batch)
            assert len(packets) == len(batch) > 0
            assert packets == [batch.packet(index) for index in range(len(batch))]
            assert [len(packet) for packet in packets] == batch.caplen.tolist()
