"""Parity results as text and as a JSON object: summary, the first difference with both verdicts, and its bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pktbpf.parity import contents
from pktbpf.parity.compare import Comparison, Difference, Verdict

_JIT = {"0": "off", "1": "on", "2": "on, with a debug trace"}


def kernel_state() -> dict[str, str]:
    """release, machine and jit of the running kernel; jit is "unknown" where it cannot be read."""
    system = os.uname()
    try:
        jit = Path("/proc/sys/net/core/bpf_jit_enable").read_text().strip()
    except OSError:
        jit = ""
    return {"release": system.release, "machine": system.machine, "jit": _JIT.get(jit, "unknown")}


def as_text(total: Comparison, heading: list[tuple[str, str]]) -> str:
    """The summary table, then the first difference."""
    kernel = kernel_state()
    rows = [
        *heading,
        ("kernel", f"Linux {kernel['release']} {kernel['machine']}, JIT {kernel['jit']}"),
        ("pairs", f"{total.pairs:,} checked, {total.accepted:,} accepted by the kernel"),
        ("equal", f"{total.equal:,}"),
        ("differing", f"{len(total.differing):,}"),
    ]
    if total.pairs and not total.accepted:
        rows.append(("note", "nothing was accepted; --rig packet has link headers, a device and a protocol"))
    if total.undelivered:
        rows.append(("undelivered", f"{total.undelivered:,} packets that such a socket never gets"))
    if total.unpredictable:
        rows.append(
            (
                "unpredictable",
                f"{total.unpredictable:,} packets whose verdict hangs on time, chance or the kernel's memory layout",
            )
        )
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    if total.first is not None:
        lines += ["", *difference_lines(total.first)]
    lines += contents.lines(total.maps)
    return "\n".join(lines)


def difference_lines(first: Difference) -> list[str]:
    """Both verdicts and the packet as the program saw it."""
    lines = [
        f"first difference: packet {first.index + 1}, {len(first.packet)} bytes",
        f"  kernel: {first.kernel}",
        f"  pktbpf: {first.ours}, return value {first.value:#x}",
    ]
    if first.before:
        lines += ["  in front of byte 0:", *hexdump(first.before)]
    return [*lines, "  bytes:", *hexdump(first.packet)]


def hexdump(data: bytes) -> list[str]:
    """Sixteen bytes a line: offset, hex, printable ASCII."""
    lines = []
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        pairs = " ".join(row[n : n + 2].hex() for n in range(0, len(row), 2))
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in row)
        lines.append(f"    {at:#06x}:  {pairs:<39}  {text}")
    return lines


def as_object(total: Comparison, **fields: Any) -> dict[str, Any]:
    """For JSON. Packet numbers count from 1."""
    return {
        **fields,
        "kernel": kernel_state(),
        "packets": total.packets,
        "pairs": total.pairs,
        "accepted": total.accepted,
        "equal": total.equal,
        "differing": len(total.differing),
        "undelivered": total.undelivered,
        "unpredictable": total.unpredictable,
        "differing_packets": [row + 1 for row in total.differing[:1000]],
        "first": None if total.first is None else _difference(total.first),
        "maps": contents.as_objects(total.maps),
    }


def _difference(first: Difference) -> dict[str, Any]:
    return {
        "packet": first.index + 1,
        "kernel": _verdict(first.kernel),
        "pktbpf": {**_verdict(first.ours), "fault": first.ours.fault or None, "value": first.value},
        "before": first.before.hex(),
        "bytes": first.packet.hex(),
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {"accepted": verdict.accepted, "kept": verdict.kept}
