"""Readings of statements -> instruction words: labels, maps and helpers resolved, operands checked against fields.

Where a listing shows bytes they choose between readings, and text that contradicts them is refused, unless the word is
one that only a kernel makes and no text tells (a per-cpu address in a translated program): then the bytes count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pktbpf.abi import kfuncs
from pktbpf.abi.helpers import NUMBERS
from pktbpf.asm.extended_listing import Line
from pktbpf.asm.extended_print import printable_row
from pktbpf.asm.extended_syntax import Helper, Jump, MapName, Reading
from pktbpf.errors import FilterSyntaxError
from pktbpf.isa.extended import Insn, Kind, decode_all
from pktbpf.program import INTERNAL_HELPERS, MapSpec

_RANGES = {"imm": (-(1 << 31), (1 << 32) - 1), "hi": (-(1 << 31), (1 << 32) - 1), "off": (-(1 << 15), (1 << 15) - 1)}


class KernelFunction(str):
    """The name of the kernel function that an instruction calls."""

    __slots__ = ()


class KernelSymbol(str):
    """The name of the kernel's variable or function whose address an instruction takes."""

    __slots__ = ()


@dataclass(slots=True)
class Assembly:
    """What is known of a text while it is read; statements are (slot, line, possible readings)."""

    source: str | None
    maps: Mapping[str, Any]
    license: str = "GPL"
    name: str = ""
    declared: dict[str, MapSpec] = field(default_factory=dict)
    labels: dict[str, int | None] = field(default_factory=dict)
    statements: list[tuple[int, Line, list[Reading]]] = field(default_factory=list)
    fixed: dict[int, Insn] = field(default_factory=dict)
    size: int = 0
    functions: list[int] = field(default_factory=list)
    weak: set[str] = field(default_factory=set)


def trouble_at(state: Assembly, line: Line, reason: str, column: int | None = None) -> FilterSyntaxError:
    """An error at a line, at its start or at a column that counts from 0."""
    at = line.column if column is None else column
    return FilterSyntaxError(reason, source=state.source, line=line.line, column=at + 1)


def function_starts(state: Assembly) -> list[int]:
    """First slots of all functions that are called or referred to, the main one first, in order."""
    starts = {0}
    for slot, line, readings in state.statements:
        if readings[0].row.operation in ("LOCAL", "FUNC"):
            values = zip(readings[0].values, readings[0].columns, strict=True)
            starts |= {
                slot + 1 + _distance(state, slot, line, at, v, True) for (_, v), at in values if isinstance(v, Jump)
            }
    return sorted(starts)


def choose(state: Assembly, slot: int, line: Line, readings: list[Reading]) -> tuple[list[Insn], Any]:
    """The reading that the listing's bytes confirm; the first one where it shows none."""
    first: tuple[list[Insn], Any] | None = None
    trouble: FilterSyntaxError | None = None
    for reading in readings:
        try:
            made = _encode(state, slot, line, reading)
        except FilterSyntaxError as error:
            trouble = trouble or error
            continue
        first = first or made
        if line.raw is None or b"".join(word.encode() for word in made[0]) == line.raw:
            return made
    if first is None:
        assert trouble is not None
        raise trouble
    words = decode_all(line.raw) if line.raw is not None else ()
    if printable_row(words[0], words[1] if len(words) > 1 else None) is None and words[0].code == first[0][0].code:
        return list(words), first[1]
    shown = b"".join(word.encode() for word in first[0]).hex(" ")
    raise trouble_at(state, line, f"the text assembles to {shown}, which the bytes of the listing contradict")


def _encode(state: Assembly, slot: int, line: Line, reading: Reading) -> tuple[list[Insn], Any]:
    row = reading.row
    fields = {"dst": 0, "src": row.src or 0, "off": row.off or 0, "imm": row.imm or 0, "hi": 0}
    given: dict[str, int] = {}
    used: Any = None
    for (name, value), column in zip(reading.values, reading.columns, strict=True):
        number: int
        if isinstance(value, MapName):
            name, (number, used) = "imm", _map(state, line, column, value)
        elif isinstance(value, Helper):
            name, number = "imm", _helper(state, line, column, value)
        elif isinstance(value, Jump):
            number = _distance(state, slot, line, column, value, row.kind is Kind.CALL)
            name = "imm" if name == "far" else name
        elif isinstance(value, str) and row.operation == "KFUNC":
            if kfuncs.exists(value):
                used = KernelFunction(value)
            elif line.raw is None:
                raise trouble_at(state, line, f"{value[:40]!r} is neither a helper nor a kernel function", column)
            continue
        elif isinstance(value, str) and row.operation == "BTF_ID":
            used = KernelSymbol(value)
            continue
        elif isinstance(value, str):
            # `call pc+13#symbol`: a kernel with JIT shows the distance in off and the function's number in imm.
            fields["off"], fields["imm"] = fields["imm"], state.functions.index(slot + 1 + fields["imm"])
            _check(state, line, column, fields["off"], *_RANGES["off"], "16 signed bits")
            continue
        else:
            number = value
        # Listings may show r11, which the kernel's rewrites use; what is written by hand may not name it.
        if name in ("dst", "src") and number > 10 and line.raw is None and line.opcode is None:
            raise trouble_at(state, line, f"no register r{number}; r0 to r10", column)
        if given.setdefault(name, number) != number:
            raise trouble_at(state, line, "the same register must stand on both sides", column)
        if name == "imm64":
            _check(state, line, column, number, -(1 << 63), (1 << 64) - 1, "64 bits")
            fields["imm"], fields["hi"] = number & 0xFFFF_FFFF, number >> 32 & 0xFFFF_FFFF
            continue
        if name in _RANGES:
            low, high = _RANGES[name]
            _check(state, line, column, number, low, high, "16 signed bits" if name == "off" else "32 bits")
        fields[name] = number
    if reading.narrow and row.operation == "FUNC":  # as for calls: the second slot holds the function's number
        fields["hi"] = state.functions.index(slot + 1 + fields["imm"])
    words = [Insn(row.code, fields["dst"], fields["src"], fields["off"], signed(fields["imm"], 32))]
    if row.kind is Kind.LOAD_IMM64:
        words.append(Insn(0, imm=signed(fields["hi"], 32)))
    return words, used


def _check(state: Assembly, line: Line, column: int, value: int, low: int, high: int, room: str) -> None:
    if not low <= value <= high:
        jump = room.startswith("16") and line.text.startswith(("if", "goto"))
        hint = "; jump with gotol, or by way of a nearer label" if jump else ""
        raise trouble_at(state, line, f"{value} does not fit in {room}{hint}", column)


def _map(state: Assembly, line: Line, column: int, value: MapName) -> tuple[int, Any]:
    if value.number is not None:
        return value.number, None
    if value.name in state.declared:
        return 0, state.declared[value.name]
    if value.name in state.maps:
        return 0, state.maps[value.name]
    hint = f"write `.map {value.name[:40]} KIND key_size=...`"
    raise trouble_at(state, line, f"map {value.name[:40]!r} is not declared; {hint}", column)


def _helper(state: Assembly, line: Line, column: int, value: Helper) -> int:
    if value.number is not None and not (kfuncs.exists(value.name) and line.raw is None):
        return value.number
    bare = value.name.removeprefix("bpf_")
    number = NUMBERS.get(bare, INTERNAL_HELPERS.get(value.name))
    if number is None:
        raise trouble_at(state, line, f"{value.name[:40]!r} is neither a helper nor a label of this text", column)
    return number


def _distance(state: Assembly, slot: int, line: Line, column: int, value: Jump, call: bool) -> int:
    if value.label is not None:
        target = state.labels.get(value.label)
        if target is None:
            raise trouble_at(state, line, f"label {value.label[:40]!r} is not defined", column)
        return target - slot - 1
    if value.bare and not call:
        raise trouble_at(state, line, f"a distance has a sign: +{value.distance}", column)
    return value.distance


def signed(value: int, bits: int) -> int:
    """The low bits of a value as a signed number."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value
