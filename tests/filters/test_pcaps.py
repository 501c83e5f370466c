"""The captures are what PROVENANCE.md says: counts, sizes, link types, addresses; tcpdump and dpkt read the same."""

from __future__ import annotations

import hashlib
import io
import ipaddress
import json
import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import dpkt
import filter_cases
import filter_oracles
import pytest
from filter_cases import PCAPS, frames

import pktbpf
from pktbpf import engine
from pktbpf.engine.base import Fault

ENTRIES: dict[str, Any] = json.loads((PCAPS / "provenance.json").read_text())
FACTS: dict[str, dict[str, Any]] = {name: facts for entry in ENTRIES.values() for name, facts in entry["files"].items()}
FILES = sorted(path for path in PCAPS.iterdir() if path.suffix in (".pcap", ".pcapng"))
ETHERNET = [path for path in FILES if FACTS[path.name]["linktype"] == "EN10MB"]
each_file = pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
LINKTYPES = {"NULL": 0, "EN10MB": 1, "RAW": 101, "LINUX_SLL": 113, "NETLINK": 253, "LINUX_SLL2": 276}
DOCUMENTATION = [
    ipaddress.ip_network(text)
    for text in (
        "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "127.0.0.0/8", "224.0.0.0/4", "0.0.0.0/32",
        "255.255.255.255/32", "2001:db8::/32", "fe80::/10", "ff00::/8", "::/127",
    )
]  # fmt: skip


def test_every_file_has_its_provenance() -> None:
    assert {path.name for path in FILES} == set(FACTS)
    assert sum(path.stat().st_size for path in FILES) < 1_000_000


@each_file
def test_facts(path: Path) -> None:
    data = path.read_bytes()
    facts = FACTS[path.name]
    assert len(data) == facts["bytes"] < 60_000
    assert hashlib.sha256(data).hexdigest() == facts["sha256"]
    line = f"| {path.name} | {facts['form']} | {facts['linktype']} | {facts['packets']} | {facts['bytes']} |"
    assert line in (PCAPS / "PROVENANCE.md").read_text().splitlines()


@each_file
def test_commands_are_stated(path: Path) -> None:
    text = (PCAPS / "PROVENANCE.md").read_text()
    entry = next(entry for entry in ENTRIES.values() if path.name in entry["files"])
    assert entry["commands"]
    assert all(command in text for command in entry["commands"])


@pytest.mark.parametrize("path", [p for p in FILES if p.suffix == ".pcap"], ids=lambda path: path.name)
def test_count_by_dpkt(path: Path) -> None:
    with path.open("rb") as handle:
        reader = dpkt.pcap.Reader(handle)
        assert reader.datalink() == LINKTYPES[FACTS[path.name]["linktype"]]
        assert sum(1 for _ in reader) == FACTS[path.name]["packets"]


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed")
@pytest.mark.parametrize("path", [p for p in FILES if p.suffix == ".pcap"], ids=lambda path: path.name)
def test_count_by_tcpdump(path: Path) -> None:
    done = subprocess.run(["tcpdump", "-n", "-r", str(path), "-w", "-"], capture_output=True, check=True, timeout=20)
    assert sum(1 for _ in dpkt.pcap.Reader(io.BytesIO(done.stdout))) == FACTS[path.name]["packets"]


@each_file
def test_count_by_pktbpf(path: Path) -> None:
    with pktbpf.open_capture(path) as capture:
        assert sum(len(batch) for batch in capture) == FACTS[path.name]["packets"]


def test_pcapng_by_python_pcapng() -> None:
    scanner = pytest.importorskip("pcapng.scanner")
    with (PCAPS / "two-interfaces.pcapng").open("rb") as handle:
        blocks = list(scanner.FileScanner(handle))
    packets = [block for block in blocks if type(block).__name__ == "EnhancedPacket"]
    assert len(packets) == FACTS["two-interfaces.pcapng"]["packets"]
    assert {packet.interface.link_type for packet in packets} == {1, 101}


@pytest.mark.parametrize("path", ETHERNET, ids=lambda path: path.name)
def test_addresses_are_nobodys(path: Path) -> None:
    for frame in frames(path.name):
        packet = filter_oracles.view(frame)
        size = {4: 4, 6: 16}.get(packet.version)
        assert frame[6] & 2 or frame[6:12] == bytes(6), "the sender's hardware address is not locally administered"
        if size is None:
            continue
        at = 12 if size == 4 else 8
        for raw in (packet.ip[at : at + size], packet.ip[at + size : at + 2 * size]):
            address = ipaddress.ip_address(raw)
            assert any(address in net for net in DOCUMENTATION if net.version == address.version), address


def test_commands_target_the_lab_alone() -> None:
    for entry in ENTRIES.values():
        for found in re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", "\n".join(entry["commands"])):
            assert any(ipaddress.ip_address(found) in net for net in DOCUMENTATION if net.version == 4), found


def records(path: Path) -> list[tuple[bytes, int]]:
    """The packets of a little-endian pcap with their wire lengths."""
    data, at, found = path.read_bytes(), 24, []
    while at < len(data):
        _sec, _frac, caplen, length = struct.unpack_from("<IIII", data, at)
        found.append((data[at + 16 : at + 16 + caplen], length))
        at += 16 + caplen
    return found


def _asks_for_cut_bytes(data: bytes, length: int) -> bool:
    """Whether the payload test of http-get.bpf needs bytes that are on the wire but not in the file."""
    packet = filter_oracles.view(data)
    if packet.version != 4 or not filter_oracles.first(packet, 6):
        return False
    end = 14 + (packet.ip[0] & 15) * 4 + (packet.l4[12] >> 4) * 4 + 4
    return len(data) < end <= length


@pytest.mark.parametrize("name", engine.NAMES)
def test_snapshot_length_leaves_packets_undecided(name: str) -> None:
    get = pktbpf.Filter(filter_cases.FILTERS / "http-get.bpf", engine=name)
    ports = pktbpf.Filter(filter_cases.FILTERS / "tcp-port-80.bpf", engine=name)
    undecided = 0
    for data, length in records(PCAPS / "snaplen.pcap"):
        assert len(data) == length or len(data) == 58 < length
        cut = _asks_for_cut_bytes(data, length)
        undecided += cut
        outcome = get.outcome(data, length)
        assert int(outcome.verdict[0]) == 0
        assert int(outcome.fault[0]) == (Fault.INDETERMINATE if cut else Fault.NONE)
        assert bool(ports.run(data, length)) == filter_oracles.tcp_port_80(data)
    assert undecided >= 5
