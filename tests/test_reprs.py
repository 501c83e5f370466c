"""What a Python prompt shows of large values, and what it says to a packet that is none."""

from __future__ import annotations

import pytest

import pktbpf
from pktbpf.errors import UsageError


def test_reprs_are_one_short_line() -> None:
    results = pktbpf.replay("pcaps/web.pcap", ["arp", "udp"])
    assert repr(results).startswith("<Results of 210 packets, 'arp': 2 accepted, 'udp': ")
    assert len(repr(results)) < 80
    verified = pktbpf.verify(pktbpf.load("filters/ebpf/rate_limit.o"))
    assert "93 instructions" in repr(verified)
    assert len(repr(verified)) < 80


@pytest.mark.parametrize("packet", ["abc", None, 5, [1, 2]])
def test_a_packet_that_is_no_bytes_is_named(packet: object) -> None:
    one = pktbpf.Filter("ret #1")
    with pytest.raises(UsageError, match=f"a packet is bytes, not {type(packet).__name__}"):
        one.run(packet)  # type: ignore[arg-type]
