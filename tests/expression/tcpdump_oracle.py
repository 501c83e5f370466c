"""What the machine's tcpdump makes of an expression for a capture file of a link type."""

import functools
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from pktbpf.expression import backend

# DLT name -> LINKTYPE number in the file.
LINKTYPES = {"EN10MB": 1, "LINUX_SLL": 113, "RAW": 101, "IEEE802_11_RADIO": 127}
EXPRESSIONS = [
    line
    for line in Path(__file__).with_name("expressions.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


@functools.cache
def reason_to_skip() -> str:
    """Why tcpdump cannot judge here; empty if it can: it must use the libpcap that pktbpf uses."""
    if shutil.which("tcpdump") is None:
        return "no tcpdump on this machine"
    banner = subprocess.run(["tcpdump", "--version"], capture_output=True, text=True, check=False)
    theirs = re.search(r"libpcap version (\S+)", banner.stdout + banner.stderr)
    ours = re.search(r"libpcap version (\S+)", backend()[1])
    if theirs is None or ours is None or theirs[1] != ours[1]:
        return f"tcpdump uses {theirs and theirs[1]}, pktbpf {backend()[1]}"
    return ""


def require_tcpdump() -> None:
    if reason := reason_to_skip():
        pytest.skip(reason)


@functools.cache
def empty_capture(directory: Path, linktype: str) -> Path:
    path = directory / f"{linktype}.pcap"
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, LINKTYPES[linktype]))
    return path


def tcpdump(directory: Path, linktype: str, expression: str, *flags: str) -> tuple[str, str]:
    """Its standard output, and its error without the program's name (empty if there is none)."""
    command = ["tcpdump", "-r", str(empty_capture(directory, linktype)), *flags, "--", expression]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    error = ""
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("tcpdump: ")]
        error = lines[-1].removeprefix("tcpdump: ")
    return done.stdout, error
