"""What listings put around instructions: numbers, opcodes, raw bytes, headers and comments of bpftool and llvm-objdump.

`read_lines` takes any text and gives statements, labels and directives with their place. The opcode or the bytes that a
listing states are kept: they choose between readings and must agree with the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# Applied to lines without the white space at their ends, and none of them tries a run of characters twice: listings may
# come from anywhere.
_BPFTOOL = re.compile(r"\d+:\s*\(([0-9a-fA-F]{2})\)\s+")
_LLVM = re.compile(r"[0-9a-fA-F]+:\s+((?:[0-9a-fA-F]{2}\s){8}(?:(?:[0-9a-fA-F]{2}\s){8})?)")
_NUMBERED = re.compile(r"\d+:\s+")
_BYTES_ONLY = re.compile(r"((?:[0-9a-fA-F]{2} ){7}[0-9a-fA-F]{2}(?:\s+(?:[0-9a-fA-F]{2} ){7}[0-9a-fA-F]{2})?)")
_SYMBOL = re.compile(r"[0-9a-fA-F]{8,16} <([^<>]+)>:")
_LABEL = re.compile(r"([A-Za-z_.$][\w.$]*):(?![=:])\s*")
_BLOCK_COMMENT = re.compile(r"((?:;|//)[^\n]*)|/\*.*?\*/", re.DOTALL)
_NOISE = re.compile(r"Disassembly of section .*:|[^:]*:\s+file format \S+|[0-9a-fA-F]{16}:\s+R_BPF_\w+\s.*")


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
        alone = _BYTES_ONLY.fullmatch(line.strip())
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
    code = _without_comment(line).rstrip()
    start = len(code) - len(code.lstrip())
    body = code[start:]
    if not body or _NOISE.fullmatch(body):
        return
    if header := _SYMBOL.fullmatch(body):
        yield Line("label", header[1], number, start + header.start(1))
        return
    if function := _function_name(body):
        yield Line("function", function, number, start)
        return
    at = start
    while label := _LABEL.match(code, at):
        yield Line("label", label[1], number, at)
        at = label.end()
    if at < len(code):
        yield _statement(code, at, number)


def _function_name(body: str) -> str:
    """The name in bpftool's header of a function, `int name(struct __sk_buff *skb):`; "" for any other line."""
    before, paren, _ = body.partition("(")
    words = before.replace("*", " ").split()
    if not paren or not body.endswith("):") or len(words) < 2 or not all(word.isidentifier() for word in words):
        return ""
    return words[-1]


def _statement(code: str, at: int, number: int) -> Line:
    opcode = raw = None
    if prefix := _BPFTOOL.match(code, at):
        opcode = int(prefix[1], 16)
    elif prefix := _LLVM.match(code, at):
        raw = bytes.fromhex(prefix[1])
    else:
        prefix = _NUMBERED.match(code, at)
    if prefix is not None:
        at = prefix.end()
    body = code[at:]
    at += len(body) - len(body.lstrip())
    return Line("directive" if code.startswith(".", at) else "statement", code[at:], number, at, opcode, raw)


def _without_comment(line: str) -> str:
    if line.lstrip().startswith("#"):
        return ""
    quoted = re.match(r'\s*\.license\s+"[^"]*"', line)
    start = quoted.end() if quoted else 0
    cut = re.search(r";|//", line[start:])
    return line[: start + cut.start()] if cut else line
