"""What is known of each capture: how it was recorded, its link type, its packet count.

`note` adds one scenario to provenance.json, `write` makes PROVENANCE.md of that file. Counting reads the record headers
only, so that it is independent of the readers under test.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

_LINKTYPES = {0: "NULL", 1: "EN10MB", 101: "RAW", 113: "LINUX_SLL", 253: "NETLINK", 276: "LINUX_SLL2"}

_HEAD = """# Where the captures come from

Every file here was recorded on the machine named below, between two network namespaces joined by a veth pair (or a pair
of TUN devices) or on a namespace's loopback device, from real clients and servers. Addresses are documentation ranges
(192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24, 2001:db8::/32), loopback and link-local; hardware addresses are locally
administered; keys were thrown away. `python pcaps/record.py [NAME]` records again (root, iproute2, tcpdump, curl,
openssl, dnsmasq, dhclient and busybox needed).

Lab: `client` has eth0 02:00:00:00:00:0a, 192.0.2.10, 2001:db8::10; `server` has eth0 02:00:00:00:00:0b, 192.0.2.1,
2001:db8::1. Offloads are switched off on both ends, so that checksums and segment sizes are those of a wire. tcpdump
ran with `-Z root -U --immediate-mode -n -s 0` besides the options shown. Commands are given with their namespace in
front.

This file is written by `pcaps/provenance.py` from `provenance.json`. tests/filters/claims.yaml names packets by their
numbers, so a new recording has to be followed there.
"""


def stamps(directory: Path) -> dict[str, int]:
    """Modification time of each capture in a directory."""
    return {path.name: path.stat().st_mtime_ns for path in sorted(directory.glob("*.pcap*"))}


def describe(path: Path) -> dict[str, Any]:
    """Link types, packet count, size and digest of a capture."""
    data = path.read_bytes()
    linktypes, packets, form = _pcapng(data) if data[:4] == b"\x0a\x0d\x0d\x0a" else _pcap(data)
    names = [_LINKTYPES[number] for number in linktypes]
    return {
        "form": form,
        "linktype": ", ".join(names),
        "packets": packets,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def _pcap(data: bytes) -> tuple[list[int], int, str]:
    """A little-endian pcap, which is what is recorded here."""
    magic, _major, _minor, _zone, _sigfigs, _snaplen, linktype = struct.unpack_from("<IHHiIII", data)
    form = {0xA1B2C3D4: "pcap", 0xA1B23C4D: "pcap, nanoseconds"}[magic]
    at, packets = 24, 0
    while at < len(data):
        at += 16 + int(struct.unpack_from("<I", data, at + 8)[0])
        packets += 1
    if at != len(data):
        raise ValueError("the last record is cut")
    return [linktype], packets, form


def _pcapng(data: bytes) -> tuple[list[int], int, str]:
    linktypes: list[int] = []
    at, packets = 0, 0
    while at < len(data):
        kind, total = struct.unpack_from("<II", data, at)
        if kind == 1:
            linktypes.append(struct.unpack_from("<H", data, at + 8)[0])
        packets += kind == 6
        at += total
    return linktypes, packets, "pcapng"


def load(directory: Path) -> dict[str, Any]:
    """The content of provenance.json, empty where there is none."""
    path = directory / "provenance.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def note(directory: Path, name: str, about: str, files: list[str], commands: list[str]) -> None:
    """Add or replace one scenario in provenance.json."""
    tcpdump = subprocess.run(["tcpdump", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()
    entries = load(directory)
    entries[name] = {
        "about": " ".join(about.split()),
        "recorded": time.strftime("%Y-%m-%d", time.gmtime()),
        "kernel": platform.release().split("-")[0],
        "tcpdump": ", ".join(tcpdump[:2]),
        "files": {file: describe(directory / file) for file in files},
        "commands": commands,
    }
    text = json.dumps(entries, indent=1, sort_keys=True)
    temporary = directory / f".provenance-{os.getpid()}"
    temporary.write_text(text + "\n")
    temporary.replace(directory / "provenance.json")


def write(directory: Path) -> None:
    """Write PROVENANCE.md."""
    entries = load(directory)
    lines = [_HEAD, "| file | form | link type | packets | bytes |", "|---|---|---|---|---|"]
    for name in sorted(entries):
        for file, facts in sorted(entries[name]["files"].items()):
            lines.append(f"| {file} | {facts['form']} | {facts['linktype']} | {facts['packets']} | {facts['bytes']} |")
    for name in sorted(entries):
        entry = entries[name]
        lines += ["", f"## {', '.join(sorted(entry['files']))}", "", entry["about"], ""]
        lines += [f"Recorded {entry['recorded']} on Linux {entry['kernel']} with {entry['tcpdump']}.", "", "```"]
        lines += [*entry["commands"], "```"]
    (directory / "PROVENANCE.md").write_text("\n".join(lines) + "\n")
