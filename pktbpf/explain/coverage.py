"""Coverage: how often each instruction of each program ran and which way its branches went.

Collected by counters in the compiled core (CountingEngine stands in for the interpreter). Classic programs are counted
per classic instruction, derived from the extended ones that stand for it; extended programs per slot. Counts of the
same program under the same name add up, over runs too (pktbpf.explain.coverage_data).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pktbpf.asm.extended_print import format_insn, map_names, targets_of
from pktbpf.engine.base import Env, Outcome, Skbs
from pktbpf.engine.interpreter import ENGINE, Interpreted
from pktbpf.explain.classic_trace import classic_text
from pktbpf.isa import extended
from pktbpf.isa.extended import Kind
from pktbpf.program import ClassicProgram, Program, Verified

Counts = NDArray[np.int64]


class Line(NamedTuple):
    """One instruction. executed: times it was begun. true, false: times its branch went that way, None for no branch.
    reachable: False for what no packet can reach in a classic program, which counts for nothing."""

    number: int
    text: str
    executed: int
    true: int | None
    false: int | None
    reachable: bool = True


@dataclass(slots=True)
class ProgramCoverage:
    """Counts of one program. counts: int64[n, 3], executions and the two directions (0 for what is no branch).

    source: path of the text it came from, "" for none. lines: instruction -> source line as the program knows it, a
    number for classic text, `file:line: text` from debug information. maps: slot -> name of the map it refers to.
    """

    name: str
    program: ClassicProgram | Program
    counts: Counts
    source: str = ""
    lines: dict[int, str] = field(default_factory=dict)
    maps: dict[int, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, bytes]:
        """Counts with the same key add up."""
        return self.name, self.program.to_bytes()

    def rows(self) -> Iterator[Line]:
        """All instructions in order."""
        if isinstance(self.program, ClassicProgram):
            yield from self._classic_rows(self.program)
            return
        insns, targets = self.program.insns, targets_of(self.program)
        for slot, insn, _ in extended.walk(insns):
            second = insns[slot + 1] if extended.is_wide(insn) and slot + 1 < len(insns) else None
            target = f"insn {targets[slot]}" if slot in targets else None
            text = format_insn(insn, second, map_name=self.maps.get(slot), target=target,
                               kfunc=self.program.kfuncs.get(slot))  # fmt: skip
            yield self._line(slot, text, insn.row is not None and insn.row.kind is Kind.BRANCH, True)

    def _classic_rows(self, program: ClassicProgram) -> Iterator[Line]:
        from pktbpf.translator.translate import reachable

        for number, (insn, alive) in enumerate(zip(program.insns, reachable(program.insns), strict=True)):
            branch = insn.row is not None and insn.row.branch and insn.jt != insn.jf
            yield self._line(number, classic_text(insn, number), branch, alive)

    def _line(self, number: int, text: str, branch: bool, alive: bool) -> Line:
        executed, true, false = (int(value) for value in self.counts[number])
        return Line(number, text, executed, true if branch else None, false if branch else None, alive)

    def totals(self) -> Totals:
        """How much of it ran."""
        rows = [row for row in self.rows() if row.reachable]
        ways = [way for row in rows for way in (row.true, row.false) if way is not None]
        return Totals(len(rows), sum(row.executed > 0 for row in rows), len(ways), sum(way > 0 for way in ways))


class Totals(NamedTuple):
    """Instructions and branch directions: how many there are, how many ran."""

    instructions: int = 0
    executed: int = 0
    directions: int = 0
    taken: int = 0

    def plus(self, other: Totals) -> Totals:
        """The sum of both."""
        return Totals(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def percent(self) -> float:
        """Instructions and directions together, 0 to 100; 100 where there is nothing to run."""
        whole = self.instructions + self.directions
        return 100.0 * (self.executed + self.taken) / whole if whole else 100.0


class Coverage:
    """Counts of any number of programs, in the order in which they were met."""

    def __init__(self, programs: Iterable[ProgramCoverage] = ()):
        self._programs: dict[tuple[str, bytes], ProgramCoverage] = {}
        for one in programs:
            self.add(one)

    @property
    def programs(self) -> list[ProgramCoverage]:
        """The programs met."""
        return list(self._programs.values())

    def add(self, one: ProgramCoverage) -> None:
        """Add the counts of a program to those of the same one."""
        known = self._programs.get(one.key)
        if known is None:
            self._programs[one.key] = ProgramCoverage(
                one.name, one.program, one.counts.copy(), one.source, dict(one.lines), dict(one.maps)
            )
        else:
            known.counts += one.counts

    def merge(self, other: Coverage) -> None:
        """Add everything that another one has."""
        for one in other.programs:
            self.add(one)

    def totals(self) -> Totals:
        """All programs together."""
        total = Totals()
        for one in self.programs:
            total = total.plus(one.totals())
        return total


def of_program(name: str, program: Program, counts: Counts) -> ProgramCoverage:
    """Coverage of one program from counters per slot, int64[slots, 2] of executions and taken branches."""
    if program.classic is not None:
        classic = program.classic
        lines = {number: str(line) for number, line in classic.lines.items()}
        source = classic.origin if classic.origin and Path(classic.origin).is_file() else ""
        return ProgramCoverage(name, classic, classic_counts(program, counts), source, lines)
    table = np.zeros((len(program.insns), 3), dtype=np.int64)
    table[:, 0] = counts[: len(table), 0]
    branches = [slot for slot, insn in enumerate(program.insns) if insn.row and insn.row.kind is Kind.BRANCH]
    table[branches, 1] = counts[branches, 1]
    table[branches, 2] = counts[branches, 0] - counts[branches, 1]
    bare = Program(program.insns, name=program.name, license=program.license)
    maps = map_names({slot: getattr(one, "spec", one) for slot, one in program.maps.items()})
    return ProgramCoverage(name, bare, table, "", dict(program.lines), maps)


def classic_counts(program: Program, counts: Counts) -> Counts:
    """int64[n, 3] per classic instruction from counters per slot of its translation."""
    classic = program.classic
    assert classic is not None
    table = np.zeros((len(classic.insns), 3), dtype=np.int64)
    starts = [start for start in program.starts if start >= 0]
    ends = dict(zip(starts, [*starts[1:], len(program.insns)], strict=True))
    for number, (insn, start) in enumerate(zip(classic.insns, program.starts, strict=True)):
        if start < 0:
            continue
        table[number, 0] = counts[start, 0]
        if insn.row is None or not insn.row.branch or insn.jt == insn.jf:
            continue
        # The conditional jump of the group: an immediate above s32 is put into a register in front of it. It is
        # turned round (JEQ into JNE, ...) where the true direction falls through and no JA follows.
        at = next(slot for slot in range(start, ends[start]) if program.insns[slot].code & 0x07 == 0x05)
        taken, rest = counts[at, 1], counts[at, 0] - counts[at, 1]
        inverted = insn.jt == 0 and insn.jf != 0 and ends[start] == at + 1
        table[number, 1:] = (rest, taken) if inverted else (taken, rest)
    return table


@dataclass(slots=True)
class CountingRunner:
    """The interpreter's runner with counters that are folded into a Coverage when asked."""

    name: str
    inner: Interpreted
    words: Any = None
    done: Coverage = field(default_factory=Coverage)

    @property
    def needs_meta(self) -> bool:
        """As the interpreter's."""
        return self.inner.needs_meta

    def run(self, skbs: Skbs) -> Outcome:
        """Run over all packets, counting."""
        if self.inner.linked.arrays:
            self.inner.linked.table()  # links anew when a program array has changed: then slots are others
        if self.words is not self.inner.linked.words:
            self._flush()
        return self.inner.run(skbs)

    def _flush(self) -> None:
        """Keep what was counted so far, and make counters for the image as it is now."""
        if self.words is not None:
            self.done = self.coverage()
        self.words = self.inner.linked.words
        self._layout = (list(self.inner.linked.programs), dict(self.inner.linked.bases))
        self.inner.counts = np.zeros((len(self.words), 2), dtype=np.uint64)

    _layout: tuple[list[Program], dict[int, int]] = field(default_factory=lambda: ([], {}))

    def coverage(self) -> Coverage:
        """Everything counted so far."""
        found = Coverage(self.done.programs)
        if self.inner.counts is None or self.words is None:
            return found
        counts = self.inner.counts.astype(np.int64)
        programs, bases = self._layout
        for index, program in enumerate(programs):
            base = bases[id(program)]
            part = counts[base : base + len(program.insns)]
            name = self.name if not index else f"{self.name}, {program.name or f'program {index}'}"
            found.add(of_program(name, program, part))
        return found


class CountingEngine:
    """The interpreter, counting. Every program that it prepares is remembered under `title` or its own origin."""

    name = "interpreter"

    def __init__(self, title: str = ""):
        self.title = title
        self.runners: list[CountingRunner] = []

    def prepare(self, verified: Verified, env: Env) -> CountingRunner:
        """As the interpreter does, with counters."""
        program = verified.program
        runner = CountingRunner(shown(self.title or _name(program)), ENGINE.prepare(verified, env, coverage=True))
        self.runners.append(runner)
        return runner

    def coverage(self) -> Coverage:
        """What all its programs ran."""
        found = Coverage()
        for runner in self.runners:
            found.merge(runner.coverage())
        return found


def _name(program: Program) -> str:
    """Where it came from, and which program it is of an object that may have several."""
    if program.classic is None and program.origin and program.name:
        return f"{program.origin}:{program.name}"
    return program.origin or program.name or f"program of {len(program)} instructions"


def shown(name: str) -> str:
    """A path as reports call it: from the working directory where it lies below it."""
    path = Path(name)
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    return name
