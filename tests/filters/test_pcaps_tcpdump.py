"""Replaying the captures writes byte for byte what tcpdump writes for the same expression, for every link type here."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import pytest
from filter_cases import PCAPS

import pktbpf

pytestmark = pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed")
EXPRESSIONS = ("tcp port 80", "ip", "ip6 or arp", "greater 100", "udp and not port 53", "ip[6:2] & 0x3fff != 0", "vlan")
# Their link type takes no pcap-filter expressions, or the file has two of them, which tcpdump refuses.
WITHOUT_EXPRESSIONS = ("netlink.pcap",)
FILES = sorted(path for path in PCAPS.glob("*.pcap") if path.name not in WITHOUT_EXPRESSIONS)


def by_tcpdump(path: Path, expression: str) -> subprocess.CompletedProcess[bytes]:
    precision = "nano" if path.name == "nanosecond.pcap" else "micro"
    command = ["tcpdump", f"--time-stamp-precision={precision}", "-r", str(path), "-w", "-", expression]
    return subprocess.run(command, capture_output=True, timeout=20, check=False)


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_same_bytes(path: Path, expression: str) -> None:
    theirs = by_tcpdump(path, expression)
    if theirs.returncode:
        with pytest.raises(pktbpf.ExpressionError) as caught:
            pktbpf.replay(path, expression)
        assert str(caught.value) in theirs.stderr.decode()
        return
    ours = io.BytesIO()
    pktbpf.replay(path, expression, write=ours)
    assert ours.getvalue() == theirs.stdout


def test_refused_where_libpcap_refuses() -> None:
    with pytest.raises(pktbpf.ExpressionError, match="netlink"):
        pktbpf.replay(PCAPS / "netlink.pcap", "tcp")
