"""A verdict of the checks as something a person reads: what was refused, where, why, and what to do about it.

In: a program and what the checks said. Out: text (colour only when asked for) or plain data for JSON.
"""

from __future__ import annotations

from typing import Any

from pktbpf.errors import ProgramRefused, errno_name
from pktbpf.program import ClassicProgram, Program, Verified, program_tag
from pktbpf.report import explained
from pktbpf.verifier import VerifierRefused

WIDTH = 100  # of the page where there is no terminal
CONTEXT = 3  # instructions shown before and behind the refused one
_RED, _GREEN, _BOLD, _PLAIN = "\x1b[31m", "\x1b[32m", "\x1b[1m", "\x1b[0m"


def _lines(program: ClassicProgram | Program) -> list[str]:
    """One line per instruction or slot, numbered as the checks number them."""
    if isinstance(program, ClassicProgram):
        from pktbpf.asm.listing import image

        return [image(insn, number) for number, insn in enumerate(program.insns)]
    lines, second, shown = [], False, None
    for number, insn in enumerate(program.insns):
        source = program.lines.get(number)
        text = "" if second else f"{number:5}: ({insn.code:02x}) {explained.insn_line(program, number)}"
        fresh = source is not None and source != shown and bool(text)
        lines.append(f"       ; {explained.short(source or '')}\n{text}" if fresh else text)
        shown = source if fresh else shown
        second = not second and insn.code == 0x18
    return lines


def excerpt(program: ClassicProgram | Program, insn: int, *, colour: bool = False, width: int = WIDTH) -> str:
    """The instructions around number `insn`, that one marked."""
    out = []
    for number, line in enumerate(_lines(program)):
        if abs(number - insn) <= CONTEXT and line:
            if number == insn:
                head, _, last = line.rpartition("\n")
                marked = f"> {last}"
                above = f"{explained.cut(f'  {head}', width)}\n" if head else ""
                out.append(above + (f"{_RED}{marked}{_PLAIN}" if colour else marked))
            else:
                out.append("\n".join(explained.cut(f"  {part}", width) for part in line.split("\n")))
    return "\n".join(out)


def accepted(
    program: ClassicProgram | Program, verified: Verified, *, colour: bool = False, digest: str = "sha256"
) -> str:
    """One line for a program that the checks let through. digest: what the kernel makes tags of, sha1 before 6.18."""
    made = verified.program
    if isinstance(program, ClassicProgram):
        size = f"{len(program)} classic instructions, {len(made)} after translation"
    else:
        size = f"{len(program)} instructions, tag {program_tag(made.insns, digest)}"
    word = f"{_GREEN}accepted{_PLAIN}" if colour else "accepted"
    return f"{word}: {size}"


def refused(
    program: ClassicProgram | Program, error: ProgramRefused, *, colour: bool = False, width: int = WIDTH
) -> str:
    """What was refused, its surroundings, the reason; for an extended program why, for a classic one a hint."""
    word = f"{_RED}refused{_PLAIN}" if colour else "refused"
    place = f" at instruction {error.insn}" if error.insn is not None else ""
    parts = [f"{word}{place}: {error.reason} ({errno_name(error.errno)})"]
    if error.insn is not None and error.insn < len(program):
        parts.append(excerpt(program, error.insn, colour=colour, width=width))
    if isinstance(program, Program) and isinstance(error, VerifierRefused):
        parts += explained.sections(program, error.explanation, width=width, colour=colour)
    elif error.hint:
        parts.append(f"{_BOLD}hint{_PLAIN}: {error.hint}" if colour else f"hint: {error.hint}")
    return "\n\n".join(parts)


def as_object(program: ClassicProgram | Program, verdict: Verified | ProgramRefused) -> dict[str, Any]:
    """The same as plain data; errno 0 for accepted."""
    found: dict[str, Any] = {
        "program": program.origin,
        "kind": "classic" if isinstance(program, ClassicProgram) else "extended",
        "instructions": len(program),
        "accepted": isinstance(verdict, Verified),
        "errno": 0,
    }
    if isinstance(verdict, Verified):
        return {**found, "translated": len(verdict.program), "log": verdict.log}
    found |= {
        "errno": verdict.errno, "errno_name": errno_name(verdict.errno), "insn": verdict.insn,
        "reason": verdict.reason, "hint": verdict.hint, "log": verdict.log,
    }  # fmt: skip
    if isinstance(program, Program) and isinstance(verdict, VerifierRefused):
        found["explanation"] = explained.as_object(program, verdict.explanation)
    return found
