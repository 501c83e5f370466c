"""The data file of coverage: JSON, one entry per program with its code, so that reports need nothing else.

`update` merges into a file under a lock, so that parallel runs lose nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from pktbpf.errors import UsageError
from pktbpf.explain.coverage import Coverage, ProgramCoverage
from pktbpf.program import ClassicProgram, Program

VERSION = 1


def as_object(coverage: Coverage) -> dict[str, Any]:
    """Plain values for JSON."""
    return {"pktbpf_coverage": VERSION, "programs": [_entry(one) for one in coverage.programs]}


def _entry(one: ProgramCoverage) -> dict[str, Any]:
    return {
        "name": one.name,
        "kind": "classic" if isinstance(one.program, ClassicProgram) else "extended",
        "code": one.program.to_bytes().hex(),
        "source": one.source,
        "lines": {str(number): line for number, line in one.lines.items()},
        "maps": {str(slot): name for slot, name in one.maps.items()},
        "counts": one.counts.tolist(),
    }


def from_object(value: Any, origin: str) -> Coverage:
    """The inverse. UsageError for anything else."""
    if not isinstance(value, dict) or value.get("pktbpf_coverage") != VERSION:
        raise UsageError(f"{origin} is no coverage data of version {VERSION}")
    try:
        return Coverage(_program(entry) for entry in value["programs"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{origin}: damaged coverage data ({type(error).__name__}: {error})") from None


def _program(entry: dict[str, Any]) -> ProgramCoverage:
    code = bytes.fromhex(entry["code"])
    program = ClassicProgram.from_bytes(code) if entry["kind"] == "classic" else Program.from_bytes(code)
    counts = np.array(entry["counts"], dtype=np.int64)
    if counts.shape != (len(program), 3):
        raise ValueError(f"{len(program)} instructions, counts of shape {counts.shape}")
    lines = {int(number): str(line) for number, line in entry["lines"].items()}
    maps = {int(slot): str(name) for slot, name in entry["maps"].items()}
    return ProgramCoverage(str(entry["name"]), program, counts, str(entry["source"]), lines, maps)


def read(path: Path) -> Coverage:
    """The coverage in a file. UsageError for another kind of file, OSError where it cannot be read."""
    try:
        return from_object(json.loads(path.read_text()), str(path))
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UsageError(f"{path} is no coverage data") from None


def update(path: Path, coverage: Coverage) -> Coverage:
    """Merge into the file, which need not exist; returns everything that is in it now."""
    lock = path.with_name(f"{path.name}.lock")
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        whole = read(path) if path.exists() and path.stat().st_size else Coverage()
        whole.merge(coverage)
        write(path, whole)
    lock.unlink(missing_ok=True)
    return whole


def write(path: Path, coverage: Coverage) -> None:
    """Replace the file at once."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    fresh.write_text(json.dumps(as_object(coverage)) + "\n")
    fresh.replace(path)
