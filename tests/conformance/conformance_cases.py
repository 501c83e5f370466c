"""Reads tests/cases/conformance: `== title`, assembly, then `mem: HEX`, `not on the kernel: WHY`, and `= R0` in hex.

`= error` stands for a program that cannot come to its end. The first line of a file says what it is about.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pktbpf.asm.extended_text import assemble
from pktbpf.program import Program

FOLDER = Path(__file__).parent.parent / "cases" / "conformance"
MARKS = ("mem: ", "not on the kernel: ", "not on the engines: ")


@dataclass(frozen=True)
class Case:
    title: str
    program: Program
    memory: bytes
    result: int | None
    kernel: bool
    engines: bool


def cases() -> list[Case]:
    """Every case of every file."""
    found: list[Case] = []
    for path in sorted(FOLDER.glob("*.cases")):
        head, *blocks = path.read_text().split("\n== ")
        assert head.startswith("# "), f"{path.name}: the first line says what it is about"
        found += [_case(f"{path.stem}: {block.splitlines()[0]}", block.splitlines()[1:]) for block in blocks]
    return found


def _case(title: str, lines: list[str]) -> Case:
    code = [line for line in lines if not line.startswith(("= ", *MARKS))]
    marks = {mark: line[len(mark) :] for line in lines for mark in MARKS if line.startswith(mark)}
    results = [line[2:] for line in lines if line.startswith("= ")]
    assert len(results) == 1, f"{title}: one result"
    result = None if results[0] == "error" else int(results[0], 16)
    return Case(
        title, assemble("\n".join(code), source=title), bytes.fromhex(marks.get("mem: ", "")), result,
        "not on the kernel: " not in marks, "not on the engines: " not in marks,
    )  # fmt: skip
