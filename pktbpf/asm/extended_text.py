"""Extended programs as text, both ways: `assemble` reads what `disassemble` prints, and the listings of other tools.

A statement is one instruction in the kernel's wording, `name:` a label, `;`, `//` and a leading `#` start comments.
Directives: `.map NAME KIND key_size=N value_size=N max_entries=N [flags=N] [extra=N] [inner=NAME]
[frozen=1]`, `.data NAME OFFSET HEX` for first contents of a map of one element (zeros elsewhere), `.license "GPL"`,
`.name NAME`, `.weak NAME` for a variable of the kernel that may be missing, `.insn code, dst, src, off, imm` for any
eight bytes. Listings of bpftool (also with `opcodes`, `linum`) and llvm-objdump assemble to the bytes they show; bytes
that contradict their text are an error.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Any

from pktbpf.abi.map_kinds import BY_NAME as MAP_KINDS
from pktbpf.asm.extended_encode import (
    Assembly,
    KernelFunction,
    KernelSymbol,
    choose,
    function_starts,
    signed,
    trouble_at,
)
from pktbpf.asm.extended_listing import Line, read_lines
from pktbpf.asm.extended_print import disassemble, format_insn
from pktbpf.asm.extended_syntax import SyntaxTrouble, parse
from pktbpf.errors import FilterSyntaxError
from pktbpf.isa.extended import Insn, Kind
from pktbpf.program import FilledMap, KernelVariable, MapSpec, Program

__all__ = ["assemble", "disassemble", "format_insn"]

# What only translated listings show: the kernel's speculation barrier, and the address of this processor's copy.
_NOSPEC = Insn(0xC2)
_PERCPU = re.compile(r"r(\d+) = &\(void __percpu \*\)\(r(\d+)\)")
MAX_DATA = 64 << 20  # as in objects
_MAP_OPTIONS = ("key_size", "value_size", "max_entries", "flags", "extra", "inner", "frozen")


def assemble(text: str, *, source: str | None = None, name: str = "", maps: Mapping[str, Any] | None = None) -> Program:
    """The program that a text or listing describes.

    source: what errors call the text. name: of the program where the text has no `.name`. maps: name -> MapSpec or live
    map for `map[name]`, besides those the text declares. Raises FilterSyntaxError with line and column.
    """
    state = Assembly(source, maps or {}, name=name)
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
            raise trouble_at(state, piece, f"label {piece.text[:40]!r} is already defined")
    if not state.size:
        raise FilterSyntaxError("no instruction in this text", source=source, line=1)
    return _finish(state)


def _read_statement(state: Assembly, line: Line) -> None:
    alone = _NOSPEC if line.text == "nospec" else None
    if percpu := _PERCPU.fullmatch(line.text):
        alone = Insn(0xBF, int(percpu[1]) & 15, int(percpu[2]) & 15, -1)
    if line.text == "<unknown>":
        if line.raw is None or len(line.raw) != 8:
            raise trouble_at(state, line, "llvm-objdump does not know this instruction; list it with raw bytes")
        alone = Insn.decode(line.raw)
    if alone is not None:
        state.fixed[state.size] = alone
        state.size += 1
        return
    try:
        readings = parse(line.text, line.column, state.labels)
    except SyntaxTrouble as trouble:
        raise trouble_at(state, line, trouble.reason, trouble.column) from None
    stated = line.opcode if line.opcode is not None else line.raw[0] if line.raw else None
    if stated is None:
        fitting = [reading for reading in readings if not reading.narrow]
    else:
        fitting = [reading for reading in readings if reading.row.code == stated]
    if not fitting:
        wrong = f"the opcode {stated:02x} is of another operation" if stated is not None else ""
        raise trouble_at(state, line, wrong or "a 64-bit immediate ends in `ll`")
    state.statements.append((state.size, line, fitting))
    state.size += 2 if fitting[0].row.kind is Kind.LOAD_IMM64 else 1


def _read_directive(state: Assembly, line: Line) -> None:
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
        case ".weak":
            state.weak.add(rest)
        case ".map":
            _declare_map(state, line, rest)
        case ".data":
            _fill_map(state, line, rest)
        case _:
            known = ".map, .data, .license, .name, .weak and .insn"
            raise trouble_at(state, line, f"unknown directive {word[:40]!r}; there are {known}")


def _raw_insn(state: Assembly, line: Line, rest: str) -> Insn:
    fields = [part.strip() for part in rest.split(",")]
    try:
        code, dst, src, off, imm = (int(part, 0) for part in fields)
        insn = Insn(code, dst, src, off, signed(imm, 32))
        insn.encode()
    except (ValueError, struct.error):
        raise trouble_at(state, line, ".insn takes code, dst, src, off, imm, each inside its field") from None
    return insn


def _declare_map(state: Assembly, line: Line, rest: str) -> None:
    words = rest.split()
    if len(words) < 2:
        example = ".map counts ARRAY key_size=4 value_size=8 max_entries=1"
        raise trouble_at(state, line, f".map takes a name, a kind and sizes: {example}")
    name, kind = words[0], words[1].upper().removeprefix("BPF_MAP_TYPE_")
    if kind not in MAP_KINDS:
        raise trouble_at(state, line, f"no map type {words[1][:40]!r}; the kernel has HASH, ARRAY, RINGBUF and others")
    options: dict[str, str] = {}
    for word in words[2:]:
        key, equals, value = word.partition("=")
        if not equals or key not in _MAP_OPTIONS or key in options:
            raise trouble_at(
                state, line, f"unexpected {word[:40]!r}; a map has {', '.join(f'{o}=' for o in _MAP_OPTIONS)}"
            )
        options[key] = value
    if name in state.declared:
        raise trouble_at(state, line, f"map {name[:40]!r} is already declared")
    inner_name = options.pop("inner", None)
    if inner_name is not None and inner_name not in state.declared:
        raise trouble_at(state, line, f"inner map {inner_name[:40]!r} is not declared before this line")
    try:
        numbers = {key: int(value, 0) for key, value in options.items()}
    except ValueError:
        raise trouble_at(state, line, f"a number is missing in {rest[:80]!r}") from None
    for key, number in numbers.items():
        if not 0 <= number < 1 << (64 if key == "extra" else 32):
            raise trouble_at(state, line, f"{key} does not fit in {64 if key == 'extra' else 32} bits")
    spec = MapSpec(
        kind,
        numbers.get("key_size", 0),
        numbers.get("value_size", 0),
        numbers.get("max_entries", 0),
        numbers.get("flags", 0),
        name,
        state.declared[inner_name] if inner_name is not None else None,
        numbers.get("extra", 0),
    )
    frozen = numbers.get("frozen", 0) != 0
    state.declared[name] = _filled(state, line, spec, 0, b"", frozen=True) if frozen else spec


def _fill_map(state: Assembly, line: Line, rest: str) -> None:
    name, _, place = rest.partition(" ")
    offset, _, digits = place.strip().partition(" ")
    if name not in state.declared:
        raise trouble_at(state, line, f"map {name[:40]!r} is not declared before this line")
    try:
        start, raw = int(offset, 0), bytes.fromhex(digits)
    except ValueError:
        raise trouble_at(state, line, ".data takes a map, an offset and pairs of hexadecimal digits") from None
    spec = state.declared[name]
    state.declared[name] = _filled(state, line, spec, start, raw, frozen=getattr(spec, "frozen", False))


def _filled(state: Assembly, line: Line, spec: MapSpec, start: int, raw: bytes, *, frozen: bool) -> FilledMap:
    """The map with these bytes in its only element."""
    if (spec.kind, spec.key_size, spec.max_entries) != ("ARRAY", 4, 1):
        raise trouble_at(state, line, f"map {spec.name[:40]!r} is no ARRAY of one element: it takes no .data")
    if not 0 <= start <= spec.value_size - len(raw) or spec.value_size > MAX_DATA:
        raise trouble_at(state, line, f"{len(raw)} bytes at {start} do not fit in the {spec.value_size} of its value")
    data = bytearray(getattr(spec, "initial", None) or bytes(spec.value_size))
    data[start : start + len(raw)] = raw
    return FilledMap(
        spec.kind, spec.key_size, spec.value_size, spec.max_entries, spec.flags, spec.name, None, spec.extra,
        initial=bytes(data), frozen=frozen,
    )  # fmt: skip


def _finish(state: Assembly) -> Program:
    slots: list[Insn] = [Insn(0)] * state.size
    maps: dict[int, Any] = {}
    kernel: dict[int, str] = {}
    variables: dict[int, KernelVariable] = {}
    state.functions = function_starts(state)
    for slot, insn in state.fixed.items():
        slots[slot] = insn
    for slot, line, readings in state.statements:
        words, used = choose(state, slot, line, readings)
        slots[slot : slot + len(words)] = words
        if isinstance(used, KernelFunction):
            kernel[slot] = str(used)
        elif isinstance(used, KernelSymbol):
            variables[slot] = KernelVariable(str(used), used in state.weak)
        elif used is not None:
            maps[slot] = used
    return Program(
        tuple(slots), name=state.name, license=state.license, maps=maps, origin=state.source or "", kfuncs=kernel,
        kvars=variables,
    )  # fmt: skip
