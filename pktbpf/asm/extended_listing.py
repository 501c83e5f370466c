"""What listings put around instructions: numbers, opcodes, raw bytes, headers and comments of bpftool and llvm-objdump.

`read_lines` takes any text and gives statements, labels and directives with their place. The opcode or the bytes that a
listing states are kept: they choose between readings and must agree with the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_BPFTOOL = re.compile(r"\s*\d+:\s*\(([0-9a-fA-F]{2})\)\s+")
_LLVM = re.compile(r"\s*[0-9a-fA-F]+:\s+((?:[0-9a-fA-F]{2}\s){8}(?:(?:[0-9a-fA-F]{2}\s){8})?)?\s*")
_NUMBERED = re.compile(r"\s*\d+:\s+")
_BYTES_ONLY = re.compile(r"\s*((?:[0-9a-fA-F]{2} ){7}[0-9a-fA-F]{2}(?:\s+(?:[0-9a-fA-F]{2} ){7}[0-9a-fA-F]{2})?)\s*$")
_SYMBOL = re.compile(r"\s*[0-9a-fA-F]{8,16} <([^<>]+)>:\s*$")
_FUNCTION = re.compile(r"\s*[A-Za-z_][\w\s*]*?([A-Za-z_]\w*)\(.*\):\s*$")
_LABEL = re.compile(r"\s*([A-Za-z_.$][\w.$]*):(?![=:])")
_BLOCK_COMMENT = re.compile(r"((?:;|//)[^\n]*)|/\*.*?\*/", re.DOTALL)
_NOISE = re.compile(r"\s*(?:Disassembly of section .*:|.*:\s+file format \S+|[0-9a-fA-F]{16}:\s+R_BPF_\w+\s.*)\s*$")


@dataclass(frozen=True, slots=True)
class Line:
    """A piece of a line: what is `label`, `directive` or `statement`. line and column count from 1 and 0."""

    what: str
    text: str
    line: int
    column: int
    opcode: int | None = None
    raw: bytes | None = None


def read_lines(text: str) -> Iterator[Line]:
    """The pieces of a text in order. A line of bytes alone (bpftool's `opcodes`) belongs to the statement before it."""
    held: Line | None = None
    text = _BLOCK_COMMENT.sub(lambda match: match[1] or re.sub(r"[^\n]", " ", match[0]), text)
    for number, line in enumerate(text.splitlines(), 1):
        alone = _BYTES_ONLY.match(line)
        if alone and held is not None and held.raw is None:
            yield Line(held.what, held.text, held.line, held.column, held.opcode, bytes.fromhex(alone[1]))
            held = None
            continue
        for piece in _pieces(line, number):
            if held is not None:
                yield held
                held = None
            if piece.what == "statement":
                held = piece
            else:
                yield piece
    if held is not None:
        yield held


def _pieces(line: str, number: int) -> Iterator[Line]:
    code = _without_comment(line)
    if not code.strip() or _NOISE.match(code):
        return
    header = _SYMBOL.match(code) or _FUNCTION.match(code)
    if header:
        yield Line("function" if _FUNCTION.match(code) else "label", header[1], number, header.start(1))
        return
    at = 0
    while (label := _LABEL.match(code, at)) and not code[label.start(1)].isdigit():
        yield Line("label", label[1], number, label.start(1))
        at = label.end()
    yield from _statement(code, at, number)


def _statement(code: str, at: int, number: int) -> Iterator[Line]:
    opcode = raw = None
    if prefix := _BPFTOOL.match(code, at):
        opcode = int(prefix[1], 16)
        at = prefix.end()
    elif (prefix := _LLVM.match(code, at)) and prefix[1]:
        raw = bytes.fromhex(prefix[1])
        at = prefix.end()
    elif prefix := _NUMBERED.match(code, at):
        at = prefix.end()
    body = code[at:]
    if body.strip():
        column = at + len(body) - len(body.lstrip())
        body = body.strip()
        yield Line("directive" if body.startswith(".") else "statement", body, number, column, opcode, raw)


def _without_comment(line: str) -> str:
    if line.lstrip().startswith("#"):
        return ""
    quoted = re.match(r'\s*\.license\s+"[^"]*"', line)
    start = quoted.end() if quoted else 0
    cut = re.search(r";|//", line[start:])
    return line[: start + cut.start()] if cut else line
