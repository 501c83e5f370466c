"""The grammar of extended assembly, made from the `syntax` templates of `pktbpf.isa.extended`.

Each template becomes a path through one tree of tokens and operand classes, so what the disassembler prints is what
the assembler reads. `SPELLINGS` lists what other tools write for the same operation (llvm-objdump, bpftool); they are
only read, never printed. `parse` gives every reading of a statement; choosing one is the assembler's part.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from pktbpf.isa.extended import BY_NAME, ROWS, Kind, Row

MAX_DIGITS = 24  # more than any 64-bit number has; longer ones take quadratic time to convert

_TOKEN = re.compile(
    r"\s*(?:(?P<number>0[xX][0-9a-fA-F]+|\d+)(?!\w)"
    r"|(?P<op>s(?:>>=|>=|<=|/=|%=|>|<)|<<=|>>=|[-+*/%&|^=!<>]=|[-+*/%&|^=!<>()\[\],:#])"
    r"|(?P<word>[A-Za-z_.$][\w.$]*))"
)
_TEMPLATE = re.compile(
    r"\s*(?:\b([rw])\{(dst|src)\}|\bpc\{(off|far)\}|\{(\w+)\}|([^{}\s]+?)(?=\b[rw]\{|\bpc\{|\{|\s|$))"
)

# Operation -> other spelling. The value register of a narrow access may be written w as well, see `_spellings`.
SPELLINGS: tuple[tuple[str, str], ...] = (
    ("MOV32_REG", "r{dst} = w{src}"),
    ("LD_IND_B", "r0 = *(u8 *)skb[r{src}]"),
    ("LD_IND_H", "r0 = *(u16 *)skb[r{src}]"),
    ("LD_IND_W", "r0 = *(u32 *)skb[r{src}]"),
    ("ATOMIC_XCHG_W", "w{src} = xchg32_32(r{dst} {off}, w{src})"),
    ("ATOMIC_XCHG_DW", "r{src} = xchg_64(r{dst} {off}, r{src})"),
    ("ATOMIC_CMPXCHG_W", "w0 = cmpxchg32_32(r{dst} {off}, w0, w{src})"),
    ("ATOMIC_CMPXCHG_DW", "r0 = cmpxchg_64(r{dst} {off}, r0, r{src})"),
    ("LD_MAP_IDX", "r{dst} = map[idx:{imm}] ll"),
    ("LD_MAP_IDX_VALUE", "r{dst} = map[idx:{imm}]+{hi} ll"),
    ("LD_MAP_IDX_VALUE", "r{dst} = map[idx:{imm}][0]+{hi} ll"),
    ("LD_BTF_ID", "r{dst} = ksym[{word}] ll"),
    ("CALL_LOCAL", "call pc{far}#{word}"),
    ("CALL_KFUNC", "call {word}"),  # tried after the helper of that name
    ("CALL_KFUNC", "call {word}#{imm}"),  # bpftool: only the name or the bytes tell it from a helper
    # llvm-objdump 14 without +alu32 loses the fetch; only the bytes beside it can tell.
    ("ATOMIC_FETCH_ADD_W", "lock *(u32 *)(r{dst} {off}) += r{src}"),
)


class Token(NamedTuple):
    """text as written; column counts from 0 in its line; kind is number, op or word."""

    text: str
    column: int
    kind: str


class Jump(NamedTuple):
    """Where a jump or call goes: a label, or a distance in slots. bare: a number without sign (`call 5` of LLVM)."""

    label: str | None
    distance: int = 0
    bare: bool = False


class MapName(NamedTuple):
    """What stands between the brackets of `map[...]`: a name, or a number with what it counts (fd, id)."""

    name: str
    number: int | None = None


class Helper(NamedTuple):
    """A helper by number, or by name where no number is written."""

    number: int | None
    name: str = ""


Value = int | Jump | MapName | Helper | str


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read a statement: the operation and the value of each operand with its token."""

    row: Row
    values: tuple[tuple[str, Value], ...]
    columns: tuple[int, ...]
    narrow: bool = False  # a 64-bit immediate without `ll`: only right where the opcode says so


@dataclass(slots=True)
class _Node:
    literals: dict[str, _Node] = field(default_factory=dict)
    operands: dict[str, _Node] = field(default_factory=dict)
    leaves: list[tuple[Row, tuple[str, ...], bool]] = field(default_factory=list)


class SyntaxTrouble(ValueError):
    """A statement that cannot be read; column counts from 0."""

    def __init__(self, reason: str, column: int):
        super().__init__(reason)
        self.reason = reason
        self.column = column


def tokenize(text: str, column: int = 0) -> list[Token]:
    """Tokens of a statement that starts at `column` of its line. SyntaxTrouble for a character that starts none."""
    tokens = []
    position = 0
    end = len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            start = position + len(text[position:]) - len(text[position:].lstrip())
            raise SyntaxTrouble(f"unexpected character {text[start]!r}", column + start)
        kind = match.lastgroup or ""
        if kind == "number" and len(match[kind]) > MAX_DIGITS:
            raise SyntaxTrouble(f"number of {len(match[kind])} digits", column + match.start(kind))
        tokens.append(Token(match[kind], column + match.start(kind), kind))
        position = match.end()
    return tokens


def template_parts(row: Row, syntax: str) -> Iterator[tuple[str, str]]:
    """(class, field) of each operand and ("", text) of each literal token of a template, in order."""
    for match in _TEMPLATE.finditer(syntax):
        letter, register, distance, name, literal = match.groups()
        if letter:
            yield f"{letter} register", register
        elif distance or name == "far":
            yield "jump target", distance or name
        elif name:
            yield _operand_class(row, name), name
        else:
            yield from (("", token.text) for token in tokenize(literal))


def _operand_class(row: Row, name: str) -> str:
    if name == "off":
        return "offset"
    return {"map": "map", "helper": "helper", "word": "name"}.get(name, "number")


def _spellings(row: Row) -> Iterator[tuple[str, bool]]:
    """(template, narrow) of all that may be written for a row."""
    yield row.syntax, False
    if row.kind in (Kind.LOAD, Kind.STORE, Kind.ATOMIC) and row.bits <= 32:
        value = "dst" if row.operation in ("LDX", "LDSX", "LOAD_ACQ") else "src"
        spelled = row.syntax.replace(f"r{{{value}}}", f"w{{{value}}}").replace("r0", "w0")
        if spelled != row.syntax:
            yield spelled, False
    if "atomic64_" in row.syntax:
        yield row.syntax.replace("atomic64_", "atomic_"), False
    own = [syntax for name, syntax in SPELLINGS if name == row.name]
    yield from ((syntax, False) for syntax in own)
    yield from ((syntax.removesuffix(" ll"), True) for syntax in (row.syntax, *own) if syntax.endswith(" ll"))


@cache
def _tree() -> _Node:
    root = _Node()
    for row in ROWS:
        for syntax, narrow in _spellings(row):
            node = root
            fields = []
            for kind, text in template_parts(row, syntax):
                if kind:
                    fields.append(text)
                    node = node.operands.setdefault(kind, _Node())
                else:
                    node = node.literals.setdefault(text, _Node())
            node.leaves.append((row, tuple(fields), narrow))
    assert all(name in BY_NAME for name, _ in SPELLINGS)
    return root


@dataclass(slots=True)
class _Parser:
    tokens: list[Token]
    text: str
    base: int
    labels: Container[str]
    furthest: int = 0
    expected: set[str] = field(default_factory=set)

    def readings(self, node: _Node, at: int, values: tuple[Value, ...], columns: tuple[int, ...]) -> Iterator[Reading]:
        """Every reading of the tokens from `at` on."""
        if at == len(self.tokens):
            for row, fields, narrow in node.leaves:
                yield Reading(row, tuple(zip(fields, values, strict=True)), columns, narrow)
        elif node.leaves:
            self.miss(at, "end of line")
        literal = node.literals.get(self.tokens[at].text) if at < len(self.tokens) else None
        if literal is not None:
            yield from self.readings(literal, at + 1, values, columns)
        elif not (at == len(self.tokens) and node.leaves):
            for text in node.literals:
                self.miss(at, f"'{text}'")
        for kind, child in node.operands.items():
            for value, after in self.operand(kind, at):
                column = self.tokens[at].column if at < len(self.tokens) else self.base + len(self.text)
                yield from self.readings(child, after, (*values, value), (*columns, column))

    def miss(self, at: int, what: str) -> None:
        if at > self.furthest:
            self.furthest, self.expected = at, set()
        if at == self.furthest:
            self.expected.add(what)

    def operand(self, kind: str, at: int) -> Iterator[tuple[Value, int]]:
        """Values that an operand class can take at a token, with the number of the token after."""
        match kind:
            case "r register" | "w register":
                found = self.register(kind[0], at)
            case "number":
                found = self.number(at)
            case "offset":
                found = self.number(at) if self.peek(at) in ("+", "-") else iter([(0, at)])
            case "jump target":
                found = self.jump(at)
            case "map":
                found = self.map_name(at)
            case "helper":
                found = self.helper(at)
            case _:
                found = iter([(self.peek(at), at + 1)] if self.kind(at) == "word" else [])
        hit = False
        for value, after in found:
            hit = True
            yield value, after
        if not hit:
            self.miss(at, kind)

    def peek(self, at: int) -> str:
        return self.tokens[at].text if at < len(self.tokens) else ""

    def kind(self, at: int) -> str:
        return self.tokens[at].kind if at < len(self.tokens) else ""

    def register(self, letter: str, at: int) -> Iterator[tuple[Value, int]]:
        text = self.peek(at)
        if text[:1] == letter and text[1:].isdecimal() and int(text[1:]) < 16 and text[1:] == str(int(text[1:])):
            yield int(text[1:]), at + 1

    def number(self, at: int) -> Iterator[tuple[Value, int]]:
        sign = 1
        if self.peek(at) in ("+", "-"):
            sign = -1 if self.peek(at) == "-" else 1
            at += 1
        if self.kind(at) == "number":
            yield sign * int(self.peek(at), 0 if self.peek(at)[:2] in ("0x", "0X") else 10), at + 1

    def jump(self, at: int) -> Iterator[tuple[Value, int]]:
        start = at + 1 if self.peek(at) == "pc" and self.peek(at + 1) in ("+", "-") else at
        for value, after in self.number(start):
            assert isinstance(value, int)
            bare = start == at and self.peek(at) not in ("+", "-")
            yield Jump(None, value, bare), self.after_symbol(after)
            return
        if self.peek(at) == "<" and self.kind(at + 1) == "word" and self.peek(at + 2) == ">":
            yield Jump(self.peek(at + 1)), at + 3
        elif self.kind(at) == "word":
            yield Jump(self.peek(at)), at + 1

    def after_symbol(self, at: int) -> int:
        """Past the `<LBB0_2>` or `<name+0x10>` that llvm-objdump adds to a distance."""
        if self.peek(at) == "<":
            for end in range(at + 1, len(self.tokens)):
                if self.peek(end) == ">":
                    return end + 1
        return at

    def map_name(self, at: int) -> Iterator[tuple[Value, int]]:
        if self.peek(at) in ("fd", "id") and self.peek(at + 1) == ":" and self.kind(at + 2) == "number":
            yield MapName("", int(self.peek(at + 2), 0)), at + 3
            return
        for end in range(at, len(self.tokens)):
            if self.peek(end) == "]" and end > at:
                start = self.tokens[at].column - self.base
                name = self.text[start : self.tokens[end].column - self.base].strip()
                if not name.startswith("idx:"):
                    yield MapName(name), end
                return

    def helper(self, at: int) -> Iterator[tuple[Value, int]]:
        if self.peek(at) == "helper" and self.kind(at + 1) == "number":
            yield Helper(int(self.peek(at + 1), 0)), at + 2
        elif self.kind(at) == "word" and self.peek(at + 1) == "#":
            for value, after in self.number(at + 2):
                assert isinstance(value, int)
                yield Helper(value, self.peek(at)), after
        elif self.kind(at) == "number":
            yield Helper(int(self.peek(at), 0)), at + 1
        elif self.kind(at) == "word" and self.peek(at) not in self.labels:
            yield Helper(None, self.peek(at)), at + 1


def parse(text: str, column: int = 0, labels: Container[str] = ()) -> list[Reading]:
    """All readings of one statement, the most likely first. SyntaxTrouble with the place when there is none.

    column: where the statement starts in its line. labels: names that `call NAME` takes for functions, not helpers.
    """
    tokens = tokenize(text, column)
    parser = _Parser(tokens, text, column, labels)
    found = list(parser.readings(_tree(), 0, (), ()))
    if found:
        return found
    at = parser.furthest
    expected = ", ".join(sorted(parser.expected)[:6]) or "nothing"
    if len(parser.expected) > 6:
        expected += ", ..."
    if at < len(tokens):
        raise SyntaxTrouble(f"unexpected {tokens[at].text[:40]!r}, expected {expected}", tokens[at].column)
    raise SyntaxTrouble(f"statement ends too early, expected {expected}", column + len(text.rstrip()))
