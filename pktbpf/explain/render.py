"""Traces as text and as plain values for JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pktbpf.explain.steps import Step, Trace
from pktbpf.explain.why import deciding_line, reason, sentence

PATH = 24  # instructions of a path that a failed assertion shows


def explanation(trace: Trace, name: str) -> list[str]:
    """What a failed assertion shows: packet, reason, path, deciding instruction."""
    lines = [f"  {line}" for line in trace.dissection.lines()]
    lines.append(f"{name}: {sentence(trace)}")
    lines.append(f"verdict: {trace.verdict_text}")
    if trace.steps:
        lines.append("path taken:")
        lines += [f"  {line}" for line in path(trace)]
        lines.append(f"decided by {deciding_line(trace)}")
    return lines


def path(trace: Trace, most: int = PATH) -> list[str]:
    """One line per executed instruction, the middle of a long path left out."""
    steps = trace.steps
    if len(steps) <= most:
        return [path_line(trace, step) for step in steps]
    head, tail = steps[: most // 3], steps[-(most - most // 3) :]
    left_out = f"... {len(steps) - len(head) - len(tail)} instructions ..."
    return [path_line(trace, s) for s in head] + [left_out] + [path_line(trace, s) for s in tail]


def path_line(trace: Trace, step: Step) -> str:
    """ "  8 jeq #0x6 jt 9 jf 15      ip.proto = 1, not 6  -> 15"."""
    said = findings(trace, step)
    return f"{step.slot:4} {step.text:<32} {said}".rstrip()


def findings(trace: Trace, step: Step) -> str:
    """What a step read, tested, or did otherwise."""
    parts = [read.text for read in step.reads]
    if step.condition is not None:
        arrow = f" -> {step.target}" if step.target is not None else ""
        parts.append(f"{step.condition.text(trace.dissection)}{arrow}")
    if step.note:
        parts.append(step.note)
    return "; ".join(parts)


def text(trace: Trace, *, backwards: bool = False) -> Iterator[str]:
    """The whole trace, line by line."""
    yield from trace.dissection.lines()
    yield ""
    steps = list(reversed(trace.steps)) if backwards else trace.steps
    if backwards:
        yield f"{trace.verdict_text}"
        yield ""
    writers = _writers(trace) if backwards else {}
    said_line = ""
    for step in steps:
        if step.line and step.line != said_line and not trace.classic:
            yield f"; {' '.join(step.line.split())}"
            said_line = step.line
        yield from _step_lines(trace, step, writers)
    if trace.omitted:
        yield f"... {trace.omitted} more instructions, see --limit"
    if not backwards:
        yield ""
        yield trace.verdict_text
    yield sentence(trace)


def _step_lines(trace: Trace, step: Step, writers: dict[tuple[int, str], int]) -> Iterator[str]:
    changed = ", ".join(f"{name} = {trace.show(name, value)}" for name, value in step.changed.items())
    said = findings(trace, step)
    inside = f"{step.program}:" if len(trace.programs) > 1 else ""
    columns = f"{step.number:>5}  {inside}{step.slot:>4}  {step.text:<34} {changed:<26} {said}".rstrip()
    yield columns
    uses = [f"{name} from step {writers[step.number, name]}" for name in used(trace, step)
            if (step.number, name) in writers]  # fmt: skip
    if uses:
        yield f"{'':>13}{', '.join(uses)}"


def used(trace: Trace, step: Step) -> list[str]:
    """Registers that an instruction reads."""
    program = trace.programs[step.program]
    if program.classic is not None:
        return _used_classic(trace, step)
    insn = program.insns[step.slot]
    row = insn.row
    if row is None:
        return []
    names = []
    if "{dst}" in row.syntax and row.kind.name not in ("LOAD", "LOAD_IMM64") and row.operation != "MOV":
        names.append(f"r{insn.dst}")
    if "{src}" in row.syntax:
        names.append(f"r{insn.src}")
    if row.kind.name == "EXIT":
        names.append("r0")
    return [name for name in dict.fromkeys(names) if name != "r10"]


def _used_classic(trace: Trace, step: Step) -> list[str]:
    classic = trace.program.classic
    assert classic is not None
    insn = classic.insns[step.slot]
    row = insn.row
    assert row is not None
    stem, _, operand = row.name.partition("_")
    names = []
    if (insn.code & 7 in (4, 5) and stem != "JA") or row.name in ("ST", "TAX", "RET_A"):
        names.append("A")
    if operand == "X" or row.name in ("STX", "TXA") or row.name.startswith("LD_IND"):
        names.append("X")
    if row.name in ("LD_MEM", "LDX_MEM"):
        names.append(f"M[{insn.k}]")
    return names


def _writers(trace: Trace) -> dict[tuple[int, str], int]:
    """(step number, register) -> number of the step that gave it its value."""
    latest: dict[str, int] = {}
    out = {}
    for step in trace.steps:
        for name, number in latest.items():
            out[step.number, name] = number
        for name in step.changed:
            latest[name] = step.number
        for name in written(trace, step):
            latest[name] = step.number
    return out


def written(trace: Trace, step: Step) -> list[str]:
    """Registers that an instruction sets, even to the value they have."""
    program = trace.programs[step.program]
    if program.classic is None:
        insn = program.insns[step.slot]
        row = insn.row
        if row is None or row.kind.name not in ("ALU", "SWAP", "LOAD", "LOAD_IMM64", "PACKET", "CALL"):
            return []
        return ["r0" if row.kind.name in ("PACKET", "CALL") else f"r{insn.dst}"]
    insn_classic = program.classic.insns[step.slot]
    row_classic = insn_classic.row
    assert row_classic is not None
    name = row_classic.name
    if name.startswith("LDX") or name == "TAX":
        return ["X"]
    if name in ("ST", "STX"):
        return [f"M[{insn_classic.k}]"]
    return ["A"] if insn_classic.code & 7 in (0, 4) or name == "TXA" else []


def as_object(trace: Trace) -> dict[str, Any]:
    """The trace as plain values. Registers are numbers, packet positions count from the start of the frame."""
    found = reason(trace)
    return {
        "verdict": trace.verdict,
        "accepted": trace.accepted,
        "kept": trace.kept,
        "length": trace.packet.length,
        "fault": trace.fault.name.lower() if trace.fault else None,
        "ending": trace.ending or None,
        "why": sentence(trace),
        "deciding": [step.number for step in found.deciding],
        "commit": found.commit.number if found.commit is not None else None,
        "omitted": trace.omitted,
        "fields": [
            {"name": f.name, "offset": f.offset, "size": f.size, "value": trace.dissection.value(f)}
            for f in trace.dissection.fields
            if not f.mask
        ],
        "steps": [_step_object(trace, step) for step in trace.steps],
    }


def _step_object(trace: Trace, step: Step) -> dict[str, Any]:
    return {
        "step": step.number,
        "program": step.program,
        "instruction": step.slot,
        "text": step.text,
        "line": step.line or None,
        "changed": step.changed,
        "reads": [
            {"name": r.name, "offset": r.at, "size": r.size, "value": r.value, "text": r.text} for r in step.reads
        ],
        "test": step.condition.text(trace.dissection) if step.condition is not None else None,
        "taken": step.taken,
        "target": step.target,
        "note": step.note or None,
    }
