"""Words, numbers and marks of classic filter text: bpf_asm sources and `tcpdump -d` listings.

The scanner is asked for one token at a time, because whether `#` opens an operand or a comment depends on where the
parser stands. Comments are `/* */`, `//` and `;` to the end of the line, and a line that begins with `#`. Numbers are
decimal, 0x hexadecimal, 0b binary and 0-prefixed octal, as in the kernel's bpf_asm. Lines and columns count from 1.
"""

from __future__ import annotations

import bisect
import re
from typing import NamedTuple, NoReturn

from pktbpf.errors import FilterSyntaxError

_BLANK = re.compile(r"(?:[\s\ufeff]+|//[^\n]*|;[^\n]*)+")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|0[bB][01]+|[0-9]+")
_WORD = re.compile(r"[A-Za-z_.][A-Za-z0-9_.]*")
_WORD_TAIL = re.compile(r"[A-Za-z0-9_.]+")
_MARKS = frozenset("#%[]():,+-*&/{}|")
_U32_LIMIT = 1 << 32


class Token(NamedTuple):
    """kind: `word`, `number`, `mark` or `end`; value: of a number; offset: characters into the text."""

    kind: str
    text: str
    value: int
    offset: int

    def __str__(self) -> str:
        return "the end of the text" if self.kind == "end" else repr(self.text)


class Scanner:
    """Tokens of one text. `peek` looks at the next one, `take` consumes it, `fail` raises with its line and column."""

    def __init__(self, text: str, source: str | None = None):
        self.text = text
        self.source = source
        self._line_starts = [0, *(match.end() for match in re.finditer(r"\n", text))]
        self._position = 0
        self._next: Token | None = None

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column of a character."""
        line = bisect.bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def error(self, reason: str, offset: int | None = None) -> FilterSyntaxError:
        """What is wrong at `offset`, by default at the next token."""
        if offset is None:
            offset = self._next.offset if self._next else self._position
        line, column = self.place(offset)
        return FilterSyntaxError(reason, source=self.source, line=line, column=column)

    def fail(self, reason: str, offset: int | None = None) -> NoReturn:
        raise self.error(reason, offset)

    def expected(self, what: str) -> NoReturn:
        """Raise for a next token that is not what the language wants here."""
        self.fail(f"expected {what}, found {self.peek()}")

    def peek(self) -> Token:
        if self._next is None:
            self._next = self._scan()
        return self._next

    def take(self) -> Token:
        token = self.peek()
        if token.kind != "end":
            self._next = None
        return token

    def at(self, mark: str) -> bool:
        """Whether the next token is this mark."""
        token = self.peek()
        return token.kind == "mark" and token.text == mark

    def accept(self, mark: str) -> bool:
        """Consume the mark if it is next."""
        if self.at(mark):
            self.take()
            return True
        return False

    def expect(self, mark: str) -> Token:
        if not self.at(mark):
            self.expected(repr(mark))
        return self.take()

    def skip_line(self) -> None:
        """Forget the rest of the line on which the next token stands."""
        end = self.text.find("\n", self.peek().offset)
        self._position = len(self.text) if end < 0 else end
        self._next = None

    def _skip_blank(self) -> None:
        text = self.text
        while True:
            start = self._position
            if match := _BLANK.match(text, start):
                self._position = match.end()
            if text.startswith("/*", self._position):
                end = text.find("*/", self._position + 2)
                if end < 0:
                    self.fail("this comment is never closed with */", self._position)
                self._position = end + 2
            elif text.startswith("#", self._position) and self.place(self._position)[1] == 1:
                end = text.find("\n", self._position)
                self._position = len(text) if end < 0 else end
            if self._position == start:
                return

    def _scan(self) -> Token:
        self._skip_blank()
        start, text = self._position, self.text
        if start >= len(text):
            return Token("end", "", 0, start)
        if match := _NUMBER.match(text, start):
            return self._number(match.group(), start)
        if match := _WORD.match(text, start):
            self._position = match.end()
            return Token("word", match.group(), 0, start)
        if text[start] in _MARKS:
            self._position = start + 1
            return Token("mark", text[start], 0, start)
        raise self.error(f"character {text[start]!r} has no meaning here", start)

    def _number(self, digits: str, start: int) -> Token:
        end = start + len(digits)
        if tail := _WORD_TAIL.match(self.text, end):
            self.fail(f"{(digits + tail.group())[:40]!r} is not a number", start)
        if len(digits) > 40:
            self.fail("number does not fit into 32 bits", start)
        base = {"0x": 16, "0b": 2}.get(digits[:2].lower(), 10)
        if base == 10 and len(digits) > 1 and digits[0] == "0" and set(digits) <= set("01234567"):
            base = 8
        value = int(digits, base)
        if value >= _U32_LIMIT:
            self.fail(f"number {digits} does not fit into 32 bits", start)
        self._position = end
        return Token("number", digits, value, start)
