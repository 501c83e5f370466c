"""Both sides of a translation: every classic instruction, and beneath it the extended ones that it became."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pktbpf.asm import extended_print, listing
from pktbpf.isa.extended import is_wide
from pktbpf.program import INTERNAL_NAMES, Program

UNREACHABLE = "cannot be reached, left out"
INTERNAL = "internal to the kernel, cannot be loaded from user space"


@dataclass(frozen=True, slots=True)
class Part:
    """number: of the classic instruction, None for the prologue. slots: the extended ones as (slot, text, note)."""

    number: int | None
    text: str
    slots: tuple[tuple[int, str, str], ...]


def parts(program: Program) -> Iterator[Part]:
    """The prologue, then one part per classic instruction. `program` must be what `translate` returned."""
    assert program.classic is not None
    starts = [start for start in program.starts if start >= 0]
    ends = dict(zip(starts, [*starts[1:], len(program)], strict=True))
    yield Part(None, "prologue", _slots(program, 0, starts[0]))
    for number, insn in enumerate(program.classic.insns):
        text = listing.image(insn, number).expandtabs()
        start = program.starts[number]
        yield Part(number, text, _slots(program, start, ends[start]) if start >= 0 else ())


def render(program: Program) -> str:
    """The listing as text, then one line about its size and about what user space cannot load."""
    lines = []
    for part in parts(program):
        lines.append(part.text if part.number is None or part.slots else f"{part.text.rstrip()}   ; {UNREACHABLE}")
        for slot, text, note in part.slots:
            lines.append(f"      {slot:4}: {text}" + (f"   ; {note}" if note else ""))
    lines.append("")
    lines.append(total(program))
    return "\n".join(lines)


def as_object(program: Program) -> dict[str, Any]:
    """The same as plain values for JSON; bytes of the instructions in hexadecimal."""
    assert program.classic is not None
    return {
        "origin": program.origin,
        "classic": len(program.classic),
        "extended": len(program),
        "tag": program.tag,
        "loadable": not program.internal_calls,
        "internal_calls": list(program.internal_calls),
        "instructions": [
            {
                "number": part.number,
                "classic": part.text.split(") ", 1)[1] if part.number is not None else None,
                "extended": [
                    {"slot": slot, "bytes": program.insns[slot].encode().hex(), "text": text, "note": note}
                    for slot, text, note in part.slots
                ],
            }
            for part in parts(program)
        ],
    }


def _slots(program: Program, begin: int, end: int) -> tuple[tuple[int, str, str], ...]:
    rows = []
    slot = begin
    while slot < end:
        insn = program.insns[slot]
        wide = is_wide(insn) and slot + 1 < end
        text = extended_print.format_insn(insn, program.insns[slot + 1] if wide else None)
        note = INTERNAL if slot in program.internal_calls else ""
        rows.append((slot, text, note))
        slot += 2 if wide else 1
    return tuple(rows)


def total(program: Program) -> str:
    """One line about the sizes, and a second one about calls that user space cannot load."""
    assert program.classic is not None
    text = f"{len(program.classic)} classic instructions became {len(program)} extended ones, tag {program.tag}"
    names = sorted({INTERNAL_NAMES[program.insns[slot].imm] for slot in program.internal_calls})
    if names:
        text += f"\nnot loadable from user space: calls {', '.join(names)}, which only the kernel's own translation can"
    return text
