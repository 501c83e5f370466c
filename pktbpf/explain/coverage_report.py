"""Coverage as people and other tools read it: summary, annotated listing, JSON, LCOV."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pktbpf.explain.coverage import Coverage, Line, ProgramCoverage, Totals
from pktbpf.program import ClassicProgram

_PLACE = re.compile(r"(?P<file>.+?):(?P<line>\d+):(?: (?P<text>.*))?$", re.DOTALL)


def summary(coverage: Coverage) -> str:
    """One line per program, and the total."""
    rows = [(one.name, one.totals()) for one in coverage.programs]
    width = max((len(name) for name, _ in rows), default=0)
    lines = [f"{name:<{width}}  {_said(totals)}" for name, totals in rows]
    if len(rows) != 1:
        lines.append(f"{'total':<{width}}  {_said(coverage.totals())}" if rows else "no filter ran")
    return "\n".join(lines)


def _said(totals: Totals) -> str:
    return (
        f"{totals.percent:5.1f} %  {totals.executed} of {totals.instructions} instructions,"
        f" {totals.taken} of {totals.directions} branch directions"
    )


def annotate(coverage: Coverage) -> str:
    """The listing of every program with its counts; `!` marks what never ran, `?` a branch that went one way only."""
    return "\n".join(line for one in coverage.programs for line in _listing(one))


def _listing(one: ProgramCoverage) -> Iterator[str]:
    yield f"{one.name}: {_said(one.totals()).strip()}"
    said = ""
    for row in one.rows():
        line = one.lines.get(row.number, "")
        if line and line != said and not isinstance(one.program, ClassicProgram):
            yield f"                 ; {line}"
            said = line
        yield _row(row).rstrip()
    yield ""


def _row(row: Line) -> str:
    if not row.reachable:
        return f"  {'-':>9}  {row.number:4}  {row.text:<40} cannot be reached"
    ways = [way for way in (row.true, row.false) if way is not None]
    mark = "!" if not row.executed else "?" if ways and not all(ways) else " "
    went = f"true {row.true}, false {row.false}" if ways else ""
    return f"{mark} {row.executed:>9}  {row.number:4}  {row.text:<40} {went}"


def as_object(coverage: Coverage) -> dict[str, Any]:
    """Plain values for JSON."""
    return {
        "percent": round(coverage.totals().percent, 4),
        "totals": coverage.totals()._asdict(),
        "programs": [
            {
                "name": one.name,
                "percent": round(one.totals().percent, 4),
                "totals": one.totals()._asdict(),
                "instructions": [row._asdict() for row in one.rows()],
            }
            for one in coverage.programs
        ],
    }


def lcov(coverage: Coverage, listings: Path) -> str:
    """An LCOV tracefile. Programs without a source text get a listing in the folder `listings`, which is made."""
    records: dict[str, dict[int, list[Line]]] = {}
    for one in coverage.programs:
        for row, (file, number) in _places(one, listings):
            if row.reachable:
                records.setdefault(file, {}).setdefault(number, []).append(row)
    return "".join(_record(file, by_line) for file, by_line in sorted(records.items()))


def _places(one: ProgramCoverage, listings: Path) -> Iterator[tuple[Line, tuple[str, int]]]:
    """Every instruction with the file and line that stands for it."""
    rows = list(one.rows())
    if one.source and one.lines:
        for row in rows:
            yield row, (one.source, int(one.lines.get(row.number, 0) or 1))
        return
    found = {number: match for number, line in one.lines.items() if (match := _PLACE.match(line))}
    if found:
        for row in rows:
            place = found.get(row.number)
            if place is not None:
                yield row, (place["file"], int(place["line"]))
        return
    listings.mkdir(parents=True, exist_ok=True)
    path = listings / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', one.name)[:80]}.txt"
    path.write_text("".join(f"{row.number:4}  {row.text}\n" for row in rows))
    for at, row in enumerate(rows, 1):
        yield row, (str(path), at)


def _record(file: str, by_line: dict[int, list[Line]]) -> str:
    """One SF record: DA per line, BRDA per branch direction."""
    out = ["TN:pktbpf", f"SF:{file}"]
    found, hit = 0, 0
    for number, rows in sorted(by_line.items()):
        block = 0
        for row in rows:
            if row.true is None or row.false is None:
                continue
            for branch, way in enumerate((row.true, row.false)):
                out.append(f"BRDA:{number},{block},{branch},{way if row.executed else '-'}")
                found, hit = found + 1, hit + (way > 0)
            block += 1
    out += [f"BRF:{found}", f"BRH:{hit}"]
    counts = {number: max(row.executed for row in rows) for number, rows in by_line.items()}
    out += [f"DA:{number},{count}" for number, count in sorted(counts.items())]
    out += [f"LF:{len(counts)}", f"LH:{sum(count > 0 for count in counts.values())}", "end_of_record"]
    return "\n".join(out) + "\n"
