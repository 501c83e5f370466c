"""C sources -> ClassicProgram: arrays of struct sock_filter (libpcap's struct bpf_insn), and `tcpdump -dd` output.

An array is `struct sock_filter name[] = { ... }` or a compound literal; a text without one is itself the list of
elements. Elements are `{ code, jt, jf, k }` (fewer and designated members as in C), BPF_STMT(code, k) and
BPF_JUMP(code, k, jt, jf); values are constant expressions of `cconst`. Of several arrays one is chosen by its name.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from pktbpf.asm.cconst import ConstantError, CToken, Evaluator, tokens
from pktbpf.errors import FilterSyntaxError
from pktbpf.isa.classic import ClassicInsn
from pktbpf.program import ClassicProgram

_MASKED = re.compile(r"/\*.*?(?:\*/|\Z)|//[^\n]*|\"(?:[^\"\\\n]|\\.)*\"", re.DOTALL)
_DEFINE = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)(?!\()[ \t]+((?:[^\n\\]|\\\n|\\)*)$", re.MULTILINE)
_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\\n|\\)*", re.MULTILINE)
_ARRAY = re.compile(
    r"\bstruct\s+(?:sock_filter|bpf_insn)\s+(?:const\s+|__\w+\s+)*(?P<name>\w+)\s*\[[^\]{};]*\][^;={}]*=\s*\{"
    r"|\(\s*(?:const\s+)?struct\s+(?:sock_filter|bpf_insn)\s*\[[^\]{};]*\]\s*\)\s*\{"
)
_MEMBERS = ("code", "jt", "jf", "k")
_MACROS = {"BPF_STMT": ("code", "k"), "BPF_JUMP": ("code", "k", "jt", "jf")}
_OPENING, _CLOSING = frozenset("({["), frozenset(")}]")


class _Array(NamedTuple):
    """name: empty for a literal without one. start, end: offsets of what stands between the braces."""

    name: str
    start: int
    end: int


class _Source:
    """A C text with comments and strings blanked out, so that offsets stay those of the original."""

    def __init__(self, text: str, source: str | None):
        self.source = source
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
        blank = _MASKED.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)
        self.defines: dict[str, list[CToken]] = {}
        for match in _DEFINE.finditer(blank):
            self.defines[match[1]] = [token for token in tokens(blank, *match.span(2)) if token.text != "\\"]
        self.text = blank

    def place(self, offset: int) -> tuple[int, int]:
        line = bisect.bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def error(self, reason: str, offset: int) -> FilterSyntaxError:
        line, column = self.place(offset)
        return FilterSyntaxError(reason, source=self.source, line=line, column=column)

    def fail(self, reason: str, offset: int) -> NoReturn:
        raise self.error(reason, offset)

    def arrays(self) -> list[_Array]:
        found = []
        position = 0
        while match := _ARRAY.search(self.text, position):
            end = self._closing(match.end() - 1)
            found.append(_Array(match["name"] or "", match.end(), end))
            position = end
        return found

    def _closing(self, opening: int) -> int:
        """Offset of the brace that closes the one at `opening`."""
        depth = 0
        for match in re.compile(r"[{}]").finditer(self.text, opening):
            depth += 1 if match.group() == "{" else -1
            if not depth:
                return match.start()
        raise self.error("this brace is never closed", opening)


def _split(items: list[CToken], fail: Callable[[str, int], NoReturn]) -> list[list[CToken]]:
    """Token lists between the commas of the outermost level; an empty one at the end is dropped."""
    parts: list[list[CToken]] = [[]]
    depth = 0
    for token in items:
        if token.kind == "mark" and token.text in _OPENING:
            depth += 1
        elif token.kind == "mark" and token.text in _CLOSING:
            depth -= 1
            if depth < 0:
                fail(f"{token.text!r} closes nothing", token.offset)
        if token.text == "," and not depth:
            parts.append([])
        else:
            parts[-1].append(token)
    if depth:
        opening = next(token for token in items if token.text in _OPENING)
        fail("a bracket that is opened here is never closed", opening.offset)
    if not parts[-1]:
        parts.pop()
    return parts


class _Elements:
    """The elements of one array."""

    def __init__(self, source: _Source):
        self.source = source
        self.evaluator = Evaluator(source.defines)
        self.insns: list[ClassicInsn] = []
        self.lines: dict[int, int] = {}

    def read(self, start: int, end: int) -> None:
        if directive := _DIRECTIVE.search(self.source.text, start, end):
            self.source.fail("a preprocessor line inside the array; give one variant of it", directive.start())
        for part in _split(tokens(self.source.text, start, end), self.source.fail):
            if not part:
                self.source.fail("expected an element before this comma", start)
            self.element(part)

    def element(self, items: list[CToken]) -> None:
        place = items[0].offset
        items = self._without_prefix(items)
        if not items:
            self.source.fail("expected { code, jt, jf, k }, BPF_STMT() or BPF_JUMP()", place)
        head, last = items[0], items[-1]
        if head.text == "{" and last.text == "}":
            values = self._members(items[1:-1])
        elif head.text in _MACROS and len(items) > 2 and items[1].text == "(" and last.text == ")":
            values = self._macro(head, items[2:-1])
        else:
            self.source.fail(f"expected {{ code, jt, jf, k }}, BPF_STMT() or BPF_JUMP(), found {head.text!r}", place)
        self.lines[len(self.insns)] = self.source.place(place)[0]
        self.insns.append(ClassicInsn(*values))

    def _without_prefix(self, items: list[CToken]) -> list[CToken]:
        """Drop `[3] =` (it must be the element's own number) and a cast `(struct sock_filter)`."""
        texts = [token.text for token in items[:4]]
        if len(texts) == 4 and texts[0] == "[" and texts[2:] == ["]", "="]:
            if self._value(items[1:2], items[1].offset) != len(self.insns):
                self.source.fail(f"element {len(self.insns)} is placed at [{texts[1]}]", items[0].offset)
            items, texts = items[4:], [token.text for token in items[4:8]]
        if texts[:2] == ["(", "struct"] and texts[3:] == [")"]:
            items = items[4:]
        return items

    def _value(self, items: list[CToken], place: int) -> int:
        try:
            return self.evaluator.value(items, place)
        except ConstantError as error:
            self.source.fail(error.reason, error.offset)

    def _members(self, items: list[CToken]) -> tuple[int, int, int, int]:
        values = dict.fromkeys(_MEMBERS, 0)
        place = items[0].offset if items else 0
        next_member = 0
        for part in _split(items, self.source.fail):
            if len(part) > 2 and part[0].text == "." and part[2].text == "=":
                if part[1].text not in _MEMBERS:
                    self.source.fail(f"struct sock_filter has no member {part[1].text!r}", part[1].offset)
                next_member, part = _MEMBERS.index(part[1].text), part[3:]
            if next_member >= len(_MEMBERS):
                self.source.fail("struct sock_filter has four members only: code, jt, jf, k", place)
            values[_MEMBERS[next_member]] = self._in_range(_MEMBERS[next_member], part, place)
            next_member += 1
        return values["code"], values["jt"], values["jf"], values["k"]

    def _macro(self, head: CToken, items: list[CToken]) -> tuple[int, int, int, int]:
        names = _MACROS[head.text]
        parts = _split(items, self.source.fail)
        if len(parts) != len(names):
            self.source.fail(f"{head.text}({', '.join(names)}) has {len(names)} values, not {len(parts)}", head.offset)
        values = {name: self._in_range(name, part, head.offset) for name, part in zip(names, parts, strict=True)}
        return values["code"], values.get("jt", 0), values.get("jf", 0), values["k"]

    def _in_range(self, name: str, items: list[CToken], place: int) -> int:
        value = self._value(items, place)
        bits = {"code": 16, "k": 32}.get(name, 8)
        lowest = -(1 << 31) if name == "k" else 0
        if not lowest <= value < 1 << bits:
            self.source.fail(f"{name} {value} does not fit into {bits} bits", items[0].offset)
        return value & ((1 << bits) - 1)


def _choose(source: _Source, name: str | None) -> _Array:
    arrays = source.arrays()
    names = ", ".join(array.name or "(unnamed)" for array in arrays)
    if name is not None:
        for array in arrays:
            if array.name == name:
                return array
        source.fail(f"no array of struct sock_filter is named {name!r}; there are: {names or 'none'}", 0)
    if len(arrays) > 1:
        source.fail(f"{len(arrays)} arrays of struct sock_filter, choose one by its name: {names}", arrays[1].start)
    return arrays[0] if arrays else _bare(source)


def _bare(source: _Source) -> _Array:
    """A text without a declaration: its elements, or one pair of braces around them."""
    start = 0
    while directive := _DIRECTIVE.match(source.text, start + _leading(source.text, start)):
        start = directive.end()
    end = len(source.text.rstrip().rstrip(";"))
    items = tokens(source.text, start, end)
    if len(items) > 1 and items[0].text == "{" and items[1].text in ("{", *_MACROS) and items[-1].text == "}":
        return _Array("", items[0].offset + 1, items[-1].offset)
    return _Array("", start, end)


def _leading(text: str, start: int) -> int:
    """Characters of blank lines from `start` on."""
    match = re.compile(r"(?:[ \t\r]*\n)*").match(text, start)
    return len(match.group()) if match else 0


def parse(text: str, *, name: str | None = None, source: str | None = None, origin: str = "") -> ClassicProgram:
    """The array called `name`, or the only one of the text. Raises FilterSyntaxError with line and column."""
    reader = _Source(text, source)
    array = _choose(reader, name)
    elements = _Elements(reader)
    elements.read(array.start, array.end)
    if not elements.insns:
        reader.fail("no instructions in this array", min(array.start, len(text)))
    return ClassicProgram(tuple(elements.insns), origin=origin, lines=elements.lines)
