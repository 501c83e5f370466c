"""Extended programs as text, both ways: `assemble` reads what `disassemble` prints, and the listings of other tools.

A statement is one instruction in the kernel's wording, `name:` a label, `;`, `//` and a leading `#` start comments.
Directives: `.map NAME KIND key_size=N value_size=N max_entries=N [flags=N] [extra=N] [inner=NAME]`, `.license "GPL"`,
`.name NAME`, `.insn code, dst, src, off, imm` for any eight bytes. Listings of bpftool (also with `opcodes`, `linum`)
and llvm-objdump assemble to the bytes they show; bytes that contradict their text are an error.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pktbpf.abi.helpers import NUMBERS
from pktbpf.asm.extended_listing import Line, read_lines
from pktbpf.asm.extended_print import disassemble, format_insn
from pktbpf.asm.extended_syntax import Helper, Jump, MapName, Reading, SyntaxTrouble, parse
from pktbpf.errors import FilterSyntaxError
from pktbpf.isa.extended import Insn, Kind
from pktbpf.program import INTERNAL_HELPERS, MapSpec, Program

__all__ = ["assemble", "disassemble", "format_insn"]

_NOSPEC = Insn(0xC2)  # the kernel's own speculation barrier; shows in translated listings
_MAP_OPTIONS = ("key_size", "value_size", "max_entries", "flags", "extra", "inner")
_RANGES = {"imm": (-(1 << 31), (1 << 32) - 1), "hi": (-(1 << 31), (1 << 32) - 1), "off": (-(1 << 15), (1 << 15) - 1)}


@dataclass(slots=True)
class _Assembly:
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


def assemble(text: str, *, source: str | None = None, name: str = "", maps: Mapping[str, Any] | None = None) -> Program:
    """The program that a text or listing describes.

    source: what errors call the text. name: of the program where the text has no `.name`. maps: name -> MapSpec or live
    map for `map[name]`, besides those the text declares. Raises FilterSyntaxError with line and column.
    """
    state = _Assembly(source, maps or {}, name=name)
    pieces = list(read_lines(text))
    # Labels first: `call NAME` means a function where the text has that label, else a helper.
    state.labels.update((piece.text, None) for piece in pieces if piece.what in ("label", "function"))
    bound: set[str] = set()
    for piece in pieces:
        if piece.what == "statement":
            _read_statement(state, piece)
        elif piece.what == "directive":
            _read_directive(state, piece)
        elif piece.text not in bound:
            state.labels[piece.text] = state.size
            bound.add(piece.text)
        elif piece.what == "label":
            raise _error(state, piece, f"label {piece.text!r} is already defined")
    if not state.size:
        raise FilterSyntaxError("no instruction in this text", source=source, line=1)
    return _finish(state)


def _error(state: _Assembly, line: Line, reason: str, column: int | None = None) -> FilterSyntaxError:
    at = line.column if column is None else column
    return FilterSyntaxError(reason, source=state.source, line=line.line, column=at + 1)


def _read_statement(state: _Assembly, line: Line) -> None:
    alone = _NOSPEC if line.text == "nospec" else None
    if line.text == "<unknown>":
        if line.raw is None or len(line.raw) != 8:
            raise _error(state, line, "llvm-objdump does not know this instruction; list it with raw bytes")
        alone = Insn.decode(line.raw)
    if alone is not None:
        state.fixed[state.size] = alone
        state.size += 1
        return
    try:
        readings = parse(line.text, line.column, state.labels)
    except SyntaxTrouble as trouble:
        raise _error(state, line, trouble.reason, trouble.column) from None
    stated = line.opcode if line.opcode is not None else line.raw[0] if line.raw else None
    if stated is None:
        fitting = [reading for reading in readings if not reading.narrow]
    else:
        fitting = [reading for reading in readings if reading.row.code == stated]
    if not fitting:
        wrong = f"the opcode {stated:02x} is of another operation" if stated is not None else ""
        raise _error(state, line, wrong or "a 64-bit immediate ends in `ll`")
    state.statements.append((state.size, line, fitting))
    state.size += 2 if fitting[0].row.kind is Kind.LOAD_IMM64 else 1


def _read_directive(state: _Assembly, line: Line) -> None:
    word, _, rest = line.text.partition(" ")
    rest = rest.strip()
    match word:
        case ".insn":
            state.fixed[state.size] = _raw_insn(state, line, rest)
            state.size += 1
        case ".license":
            state.license = rest.removeprefix('"').removesuffix('"')
        case ".name":
            state.name = rest
        case ".map":
            _declare_map(state, line, rest)
        case _:
            raise _error(state, line, f"unknown directive {word!r}; there are .map, .license, .name and .insn")


def _raw_insn(state: _Assembly, line: Line, rest: str) -> Insn:
    fields = [part.strip() for part in rest.split(",")]
    try:
        code, dst, src, off, imm = (int(part, 0) for part in fields)
        insn = Insn(code, dst, src, off, _signed(imm, 32))
        insn.encode()
    except (ValueError, struct.error):
        raise _error(state, line, ".insn takes code, dst, src, off, imm, each inside its field") from None
    return insn


def _declare_map(state: _Assembly, line: Line, rest: str) -> None:
    words = rest.split()
    if len(words) < 2:
        example = ".map counts ARRAY key_size=4 value_size=8 max_entries=1"
        raise _error(state, line, f".map takes a name, a kind and sizes: {example}")
    name, kind = words[0], words[1].upper().removeprefix("BPF_MAP_TYPE_")
    options: dict[str, str] = {}
    for word in words[2:]:
        key, equals, value = word.partition("=")
        if not equals or key not in _MAP_OPTIONS or key in options:
            raise _error(state, line, f"unexpected {word!r}; a map has {', '.join(f'{o}=' for o in _MAP_OPTIONS)}")
        options[key] = value
    if name in state.declared:
        raise _error(state, line, f"map {name!r} is already declared")
    inner_name = options.pop("inner", None)
    if inner_name is not None and inner_name not in state.declared:
        raise _error(state, line, f"inner map {inner_name!r} is not declared before this line")
    try:
        numbers = {key: int(value, 0) for key, value in options.items()}
    except ValueError as error:
        raise _error(state, line, f"not a number: {error.args[0].rpartition(' ')[2]}") from None
    state.declared[name] = MapSpec(
        kind,
        numbers.get("key_size", 0),
        numbers.get("value_size", 0),
        numbers.get("max_entries", 0),
        numbers.get("flags", 0),
        name,
        state.declared[inner_name] if inner_name is not None else None,
        numbers.get("extra", 0),
    )


def _finish(state: _Assembly) -> Program:
    slots: list[Insn] = [Insn(0)] * state.size
    maps: dict[int, Any] = {}
    state.functions = _function_starts(state)
    for slot, insn in state.fixed.items():
        slots[slot] = insn
    for slot, line, readings in state.statements:
        words, used = _choose(state, slot, line, readings)
        slots[slot : slot + len(words)] = words
        if used is not None:
            maps[slot] = used
    return Program(tuple(slots), name=state.name, license=state.license, maps=maps, origin=state.source or "")


def _function_starts(state: _Assembly) -> list[int]:
    """First slots of all functions that are called or referred to, the main one first, in order."""
    starts = {0}
    for slot, line, readings in state.statements:
        if readings[0].row.operation in ("LOCAL", "FUNC"):
            values = zip(readings[0].values, readings[0].columns, strict=True)
            starts |= {
                slot + 1 + _distance(state, slot, line, at, v, True) for (_, v), at in values if isinstance(v, Jump)
            }
    return sorted(starts)


def _choose(state: _Assembly, slot: int, line: Line, readings: list[Reading]) -> tuple[list[Insn], Any]:
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
    shown = b"".join(word.encode() for word in first[0]).hex(" ")
    raise _error(state, line, f"the text assembles to {shown}, which the bytes of the listing contradict")


def _encode(state: _Assembly, slot: int, line: Line, reading: Reading) -> tuple[list[Insn], Any]:
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
        elif isinstance(value, str):
            # `call pc+13#symbol`: a kernel with JIT shows the distance in off and the function's number in imm.
            fields["off"], fields["imm"] = fields["imm"], state.functions.index(slot + 1 + fields["imm"])
            _check(state, line, column, fields["off"], *_RANGES["off"], "16 signed bits")
            continue
        else:
            number = value
        if given.setdefault(name, number) != number:
            raise _error(state, line, "the same register must stand on both sides", column)
        if name == "imm64":
            _check(state, line, column, number, -(1 << 63), (1 << 64) - 1, "64 bits")
            fields["imm"], fields["hi"] = number & 0xFFFF_FFFF, number >> 32 & 0xFFFF_FFFF
            continue
        if name in _RANGES:
            low, high = _RANGES[name]
            _check(state, line, column, number, low, high, "16 signed bits" if name == "off" else "32 bits")
        fields[name] = number
    words = [Insn(row.code, fields["dst"], fields["src"], fields["off"], _signed(fields["imm"], 32))]
    if row.kind is Kind.LOAD_IMM64:
        words.append(Insn(0, imm=_signed(fields["hi"], 32)))
    return words, used


def _check(state: _Assembly, line: Line, column: int, value: int, low: int, high: int, room: str) -> None:
    if not low <= value <= high:
        jump = room.startswith("16") and line.text.startswith(("if", "goto"))
        hint = "; jump with gotol, or by way of a nearer label" if jump else ""
        raise _error(state, line, f"{value} does not fit in {room}{hint}", column)


def _map(state: _Assembly, line: Line, column: int, value: MapName) -> tuple[int, Any]:
    if value.number is not None:
        return value.number, None
    if value.name in state.declared:
        return 0, state.declared[value.name]
    if value.name in state.maps:
        return 0, state.maps[value.name]
    hint = f"write `.map {value.name} KIND key_size=...`"
    raise _error(state, line, f"map {value.name!r} is not declared; {hint}", column)


def _helper(state: _Assembly, line: Line, column: int, value: Helper) -> int:
    if value.number is not None:
        return value.number
    bare = value.name.removeprefix("bpf_")
    number = NUMBERS.get(bare, INTERNAL_HELPERS.get(value.name))
    if number is None:
        raise _error(state, line, f"{value.name!r} is neither a helper nor a label of this text", column)
    return number


def _distance(state: _Assembly, slot: int, line: Line, column: int, value: Jump, call: bool) -> int:
    if value.label is not None:
        target = state.labels.get(value.label)
        if target is None:
            raise _error(state, line, f"label {value.label!r} is not defined", column)
        return target - slot - 1
    if value.bare and not call:
        raise _error(state, line, f"a distance has a sign: +{value.distance}", column)
    return value.distance


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value
