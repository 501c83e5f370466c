"""Decimal listings -> ClassicProgram: `tcpdump -ddd`, and the one comma-separated line that xt_bpf takes.

The number of instructions comes first, then `code jt jf k` for each, separated by line ends or commas. Quotes around
the whole, a comma at the end and lines that begin with `#` are allowed. A list that begins with four numbers has no
count. Line and column in errors count from 1.
"""

from __future__ import annotations

import re
from typing import NoReturn

from pktbpf.errors import FilterSyntaxError
from pktbpf.isa.classic import ClassicInsn
from pktbpf.program import ClassicProgram

_WORD = re.compile(r"[^\s,'\"]+")
_LIMITS = (("code", 0xFFFF), ("jt", 0xFF), ("jf", 0xFF), ("k", 0xFFFF_FFFF))


class _Reader:
    def __init__(self, source: str | None):
        self.source = source
        self.count: int | None = None
        self.insns: list[ClassicInsn] = []
        self.lines: dict[int, int] = {}

    def fail(self, reason: str, line: int, column: int) -> NoReturn:
        raise FilterSyntaxError(reason, source=self.source, line=line, column=column)

    def number(self, digits: str, name: str, limit: int, line: int, column: int) -> int:
        if not (digits.isascii() and digits.isdecimal()):
            self.fail(f"expected a decimal number for {name}, found {digits[:40]!r}", line, column)
        if len(digits) > 10 or int(digits) > limit:
            self.fail(f"{name} {digits[:40]} is more than {limit}", line, column)
        return int(digits)

    def group(self, text: str, line: int, start: int) -> None:
        """What stands between two separators."""
        words = [(match.group(), start + match.start() + 1) for match in _WORD.finditer(text)]
        if not words:
            return
        if len(words) == 1 and self.count is None and not self.insns:
            self.count = self.number(words[0][0], "the number of instructions", 0xFFFF_FFFF, line, words[0][1])
            return
        if len(words) != 4:
            self.fail(f"expected four numbers (code jt jf k), found {len(words)}", line, words[0][1])
        values = [
            self.number(word, name, limit, line, column)
            for (word, column), (name, limit) in zip(words, _LIMITS, strict=True)
        ]
        self.lines[len(self.insns)] = line
        self.insns.append(ClassicInsn(*values))


def parse(text: str, *, source: str | None = None, origin: str = "") -> ClassicProgram:
    """The program of a decimal listing. Raises FilterSyntaxError, also where the count does not agree."""
    reader = _Reader(source)
    number, content = 1, ""
    for number, content in enumerate(text.splitlines() or [""], 1):
        if content.lstrip().startswith("#"):
            continue
        start = 0
        for part in content.split(","):
            reader.group(part, number, start)
            start += len(part) + 1
    if not reader.insns and not reader.count:
        reader.fail("no instructions in this list", 1, 1)
    if reader.count is not None and reader.count != len(reader.insns):
        reader.fail(
            f"the list announces {reader.count} instructions and has {len(reader.insns)}", number, len(content) + 1
        )
    return ClassicProgram(tuple(reader.insns), origin=origin, lines=reader.lines)
