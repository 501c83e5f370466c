"""Final contents of a program's maps: the live kernel's beside ours, key by key.

Data sections and tables are compared byte for byte, per-CPU values by what is not zero, whatever processor it lies
on. Contents of a program that asks for the time, chance or the processor are shown, but count as no difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pktbpf.abi.helpers import NAMES
from pktbpf.kernel.loading import Loaded
from pktbpf.maps.face import Map
from pktbpf.program import Program

COMPARED = frozenset({"HASH", "ARRAY", "PERCPU_HASH", "PERCPU_ARRAY", "LRU_HASH", "LRU_PERCPU_HASH", "LPM_TRIE"})
ROWS_SHOWN = 16
_MOVING = ("ktime_", "get_prandom", "get_smp_processor_id", "get_numa_node_id", "jiffies64", "get_socket_cookie")


@dataclass(frozen=True, slots=True)
class Entry:
    """One key with both values, None where a side has no such entry. All are bytes."""

    key: bytes
    kernel: bytes | None
    ours: bytes | None

    @property
    def equal(self) -> bool:
        """Whether both sides hold the same."""
        return self.kernel == self.ours


@dataclass(frozen=True, slots=True)
class Contents:
    """One map after the run. entries: those that hold anything on either side. steady: False where they hang on the
    time, chance or the processor."""

    name: str
    kind: str
    entries: tuple[Entry, ...]
    steady: bool = True

    @property
    def differing(self) -> int:
        """Entries that differ, 0 for contents that are not steady."""
        return sum(not entry.equal for entry in self.entries) if self.steady else 0


def compare_maps(program: Program, ours: Mapping[str, Map], loaded: Loaded) -> tuple[Contents, ...]:
    """Every map that has comparable contents, by name. program: that of the run, for what it calls."""
    steady = not any(map(_moves, _programs(program)))
    found = []
    for name, one in sorted(ours.items()):
        if one.kind not in COMPARED or one.frozen:
            continue
        with loaded.live(one.spec) as live:
            kernel = _held(dict(live.raw_items()), one)
        mine = _held(dict(one.raw_items()), one)
        keys = [*mine, *(key for key in kernel if key not in mine)]
        entries = tuple(Entry(key, kernel.get(key), mine.get(key)) for key in sorted(keys, key=_order))
        found.append(Contents(name, one.kind, entries, steady))
    return tuple(found)


def _held(items: Mapping[bytes, bytes], one: Map) -> dict[bytes, bytes]:
    """Entries that hold anything, of arrays those not zero. Of per-CPU values the parts that are not zero, sorted."""
    held = {}
    for key, value in items.items():
        if one.percpu:
            size = (one.value_size + 7) // 8 * 8
            parts = (value[at : at + one.value_size] for at in range(0, len(value), size))
            value = b"".join(sorted(part for part in parts if any(part)))
        if "ARRAY" not in one.kind or any(value):
            held[key] = value
    return held


def _order(key: bytes) -> tuple[int, bytes]:
    return int.from_bytes(key, "little") if len(key) in (1, 2, 4, 8) else 0, key


def _programs(program: Program) -> list[Program]:
    """The program and those that it can reach through its program arrays."""
    found: list[Program] = []
    pending: list[Any] = [program]
    while pending:
        one = pending.pop()
        one = getattr(one, "program", one)
        if any(one is known for known in found):
            continue
        found.append(one)
        for used in one.maps.values():
            pending += used.programs().values() if isinstance(used, Map) else ()
    return found


def _moves(program: Program) -> bool:
    calls = (insn.imm for insn in program.insns if insn.code == 0x85 and not insn.src)
    return any(0 < number < len(NAMES) and NAMES[number].startswith(_MOVING) for number in calls)


def lines(contents: tuple[Contents, ...]) -> list[str]:
    """The maps as text: a line each, then the entries side by side, those that differ first and marked."""
    out: list[str] = []
    for one in contents:
        told = f"{one.differing:,} differing" if one.differing else "equal"
        told = told if one.steady else "not compared, they hang on the time, chance or the processor"
        out += ["", f"map {one.name}  {one.kind}, {len(one.entries):,} entries, {told}"]
        rows = sorted(one.entries, key=lambda entry: entry.equal)
        shown = [(_text(e.key), _text(e.kernel), _text(e.ours), "" if e.equal else "  <>") for e in rows[:ROWS_SHOWN]]
        table = [("key", "kernel", "pktbpf", ""), *shown] if shown else []
        widths = [max((len(row[n]) for row in table), default=0) for n in range(3)]
        out += ["  " + "  ".join(f"{row[n]:<{widths[n]}}" for n in range(3)).rstrip() + row[3] for row in table]
        if len(rows) > ROWS_SHOWN:
            out.append(f"  ... and {len(rows) - ROWS_SHOWN:,} more")
    return out


def _text(raw: bytes | None) -> str:
    if raw is None:
        return "-"
    return str(int.from_bytes(raw, "little")) if len(raw) in (1, 2, 4, 8) else raw.hex()


def as_objects(contents: tuple[Contents, ...]) -> list[dict[str, Any]]:
    """For JSON: hexadecimal keys and values, None for an entry that a side does not have."""
    return [
        {
            "name": one.name,
            "type": one.kind.lower(),
            "compared": one.steady,
            "differing": one.differing,
            "entries": [
                {
                    "key": entry.key.hex(),
                    "kernel": None if entry.kernel is None else entry.kernel.hex(),
                    "pktbpf": None if entry.ours is None else entry.ours.hex(),
                }
                for entry in one.entries
            ],
        }
        for one in contents
    ]
