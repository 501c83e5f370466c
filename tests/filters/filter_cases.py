"""The claims of filters/ as values: header lines of the filters, packets and captures of claims.yaml.

A packet is a whole frame plus the place of the program's byte 0 in it, found here from the attach profile without
asking pktbpf.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dpkt
import filter_oracles
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILTERS, PCAPS = ROOT / "filters", ROOT / "pcaps"
_HEADER = re.compile(r"^(?:;|#|/\*|\s\*)\s*(accepts|rejects|attach|form|idea|errno|instruction|reason):\s*(.+?)\s*$")
CLAIMS: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "claims.yaml").read_text())


def filter_files() -> list[Path]:
    """Every filter of filters/, the refused ones apart."""
    return sorted(path for path in FILTERS.iterdir() if path.is_file())


@functools.cache
def header(path: Path) -> dict[str, list[str]]:
    """The statements in a filter's first lines, by key."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        match = _HEADER.match(line)
        if match is None:
            break
        found.setdefault(match[1], []).append(match[2])
    return found


def statements(lines: list[str]) -> list[str]:
    """The single statements of claim lines: split at commas and semicolons outside of parentheses."""
    parts: list[str] = []
    for line in lines:
        depth, start = 0, 0
        for at, sign in enumerate(line):
            depth += (sign == "(") - (sign == ")")
            if sign in ",;" and not depth:
                parts.append(line[start:at].strip())
                start = at + 1
        parts.append(line[start:].strip())
    return [part for part in parts if part]


@dataclass(frozen=True)
class Packet:
    """start: index in frame of the program's byte 0. wire_len: of the packet from there on, None for all there is."""

    frame: bytes
    start: int = 0
    meta: Mapping[str, int] = field(default_factory=dict)
    wire_len: int | None = None

    @property
    def length(self) -> int:
        return len(self.frame) - self.start if self.wire_len is None else self.wire_len


@dataclass(frozen=True)
class Case:
    """One packet of claims.yaml. kept: bytes from byte 0 on, 0 for a drop."""

    says: tuple[str, ...]
    packet: Packet
    kept: int
    label: str


@functools.cache
def frames(capture: str) -> tuple[bytes, ...]:
    """The packets of a pcap file, read with dpkt."""
    with (PCAPS / capture).open("rb") as handle:
        return tuple(data for _stamp, data in dpkt.pcap.Reader(handle))


def start_of(attach: str, frame: bytes) -> int:
    """Where byte 0 of a socket's program is in an untagged Ethernet frame."""
    if attach == "udp":
        return 14 + (frame[14] & 15) * 4
    return {"packet": 0, "unix": 0, "packet-dgram": 14, "raw-ip": 14}[attach]


def _default(attach: str, frame: bytes) -> Packet:
    start = start_of(attach, frame)
    meta = {} if attach in ("packet", "unix") else {"mac_offset": -start, "network_offset": 14 - start}
    return Packet(frame, start, meta)


def _strip(_attach: str, frame: bytes) -> Packet:
    """The outer VLAN tag in metadata, as a live socket gets it."""
    if not filter_oracles.tags(frame):
        return Packet(frame, meta={"vlan_present": 0})
    proto, tci = (int.from_bytes(frame[at : at + 2], "big") for at in (12, 14))
    return Packet(frame[:12] + frame[16:], meta={"vlan_present": 1, "vlan_tci": tci, "vlan_proto": proto})


def _server(_attach: str, frame: bytes) -> Packet:
    """The packet type as the lab's server sees it."""
    if frame[6:12] == filter_oracles.SERVER:
        kind = 4
    elif frame[0] & 1:
        kind = 1 if frame[:6] == b"\xff" * 6 else 2
    else:
        kind = 0 if frame[:6] == filter_oracles.SERVER else 3
    return Packet(frame, meta={"pkt_type": kind})


def _netlink(_attach: str, frame: bytes) -> Packet:
    """The message behind the header of an nlmon capture."""
    return Packet(frame[16:])


PREPARE: dict[str, Callable[[str, bytes], Packet]] = {
    "default": _default, "strip": _strip, "server": _server, "netlink": _netlink,
}  # fmt: skip


def edited(frame: bytes, edit: Mapping[int | str, Any]) -> bytes:
    """A frame with bytes overwritten, inserted, cut off or added; offsets count in the frame as captured."""
    data = bytearray(frame)
    inserts = []
    for place, value in edit.items():
        if isinstance(place, int):
            raw = bytes.fromhex(value)
            data[place : place + len(raw)] = raw
        elif place.endswith("+"):
            inserts.append((int(place[:-1]), bytes.fromhex(value)))
    for place, raw in sorted(inserts, reverse=True):
        data[place:place] = raw
    if "cut" in edit:
        del data[edit["cut"] :]
    return bytes(data).ljust(edit.get("pad", 0), b"\0")


def _frame(entry: Mapping[str, Any]) -> bytes:
    if "hex" in entry:
        return bytes.fromhex(str(entry["hex"]))
    if "text" in entry:
        return str(entry["text"]).encode()
    capture, number = entry["from"].split()
    return edited(frames(f"{capture}.pcap")[int(number) - 1], entry.get("edit", {}))


def packet_of(entry: Mapping[str, Any], attach: str) -> Packet:
    """The packet that an entry of claims.yaml names."""
    packet = _default(attach, _frame(entry))
    return Packet(packet.frame, packet.start, {**packet.meta, **entry.get("meta", {})}, entry.get("wire_len"))


def cases(path: Path) -> list[Case]:
    """The single packets that prove a filter's statements."""
    attach = header(path)["attach"][0]
    found = []
    for number, entry in enumerate(CLAIMS[path.name].get("packets", ())):
        packet = packet_of(entry, attach)
        kept = packet.length if entry["kept"] == "all" else int(entry["kept"])
        says = (entry["says"],) if isinstance(entry["says"], str) else tuple(entry["says"])
        found.append(Case(says, packet, kept, f"packet {number}: {says[0]}"))
    return found


@dataclass(frozen=True)
class CaptureCase:
    """A capture, the packets in it that a socket of the profile gets, and how many bytes of each should be kept."""

    capture: str
    numbers: tuple[int, ...]
    packets: tuple[Packet, ...]
    kept: tuple[int, ...]
    accepted: int
    tcpdump: str | None
    prepare: str


def _kept(verdict: filter_oracles.Verdict, packet: Packet) -> int:
    """True is the whole packet, a number the filter's return value (in bytes from byte 0)."""
    if isinstance(verdict, bool):
        return packet.length if verdict else 0
    return min(verdict, packet.length)


def capture_cases(path: Path) -> list[CaptureCase]:
    """The captures that claims.yaml lists for a filter, each with the oracle's verdicts."""
    attach = header(path)["attach"][0]
    found = []
    for entry in CLAIMS[path.name].get("captures", ()):
        oracle = filter_oracles.ORACLES[entry["oracle"]]
        wanted = filter_oracles.ORACLES[entry["only"]] if "only" in entry else None
        prepare = PREPARE[entry.get("prepare", "default")]
        rows = [(n, frame) for n, frame in enumerate(frames(entry["capture"]), 1) if wanted is None or wanted(frame)]
        packets = tuple(prepare(attach, frame) for _, frame in rows)
        looked_at = [
            packet.frame if prepare is _netlink else frame for packet, (_, frame) in zip(packets, rows, strict=True)
        ]
        kept = tuple(_kept(oracle(frame), packet) for frame, packet in zip(looked_at, packets, strict=True))
        found.append(
            CaptureCase(
                entry["capture"],
                tuple(n for n, _ in rows),
                packets,
                kept,
                entry["accepted"],
                entry.get("tcpdump"),
                entry.get("prepare", "default"),
            )
        )
    return found
