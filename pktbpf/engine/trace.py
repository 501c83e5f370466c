"""Lines of bpf_trace_printk, read out of the compiled core's buffer and worded as the kernel's trace pipe does."""

from __future__ import annotations

import struct
from typing import NamedTuple

from pktbpf.engine.groups import RareState
from pktbpf.engine.rare_text import HEADER, T_LOST, T_USED


class TraceRecord(NamedTuple):
    """One call. time: nanoseconds since 1970 of the packet (or of the timer). cpu: processor number. text: what was
    formatted, at most 1,023 bytes. lost: True where lines had no room instead; text is how many, in decimal."""

    time: int
    cpu: int
    text: bytes
    lost: bool = False


def take(state: RareState) -> list[TraceRecord]:
    """All records in order; the buffer is empty then."""
    if state.text is None or state.traces is None:
        return []
    used, lost = int(state.text[int(T_USED) // 8]), int(state.text[int(T_LOST) // 8])
    raw, header, at = state.traces[:used].tobytes(), int(HEADER), 0
    found: list[TraceRecord] = []
    while at < used:
        size, cpu, time = struct.unpack_from("<IIQ", raw, at)
        text = raw[at + header : at + header + size]
        found.append(TraceRecord(time, cpu, text.split(b"\0")[0]))
        at += header + (size + 7) // 8 * 8
    if lost:
        found.append(TraceRecord(found[-1].time if found else 0, 0, str(lost).encode(), lost=True))
    state.text[int(T_USED) // 8] = state.text[int(T_LOST) // 8] = 0
    return found


def line(record: TraceRecord, boot_time: int = 0, comm: str = "<idle>", pid: int = 0, flags: str = "..s2.") -> str:
    """The record as /sys/kernel/tracing/trace_pipe prints it, without the newline at its end.

    boot_time: nanoseconds since 1970 that the line's seconds count from. comm, pid: the task that was interrupted; the
    idle one by default; flags: its state, as the kernel abbreviates it (here: in a softirq). Bytes
    that are no UTF-8 come out as surrogate escapes.
    """
    if record.lost:
        return f"CPU:{record.cpu} [LOST {record.text.decode()} EVENTS]"
    microseconds = (record.time - boot_time) // 1000
    seconds, rest = divmod(microseconds, 1_000_000)
    head = f"{comm:>16s}-{pid:<7d} [{record.cpu:03d}] {flags} {seconds:5d}.{rest:06d}: bpf_trace_printk: "
    return head + record.text.decode(errors="surrogateescape")
