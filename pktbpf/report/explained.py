"""The explanation of a refusal as text: path, need, state, origin, remedy, aligned under their names.

In: an Explanation and the program it is of. Out: lines no wider than asked for, as far as words can be broken; colour
only when asked for. The data itself goes into JSON through `as_object`.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from pktbpf.asm.extended_print import format_insn, variable_names
from pktbpf.program import Program
from pktbpf.verifier import Explanation
from pktbpf.verifier.explanation import Origin
from pktbpf.verifier.reasons.way import Branch, Rounds

BRANCHES = 10  # shown of a path, the last ones
ORIGINS = 12  # shown of where a value came from
_LABEL = 8
_COLUMN = 28
_CODE = re.compile(r"`[^`]*`|\([^()]*; [^()]*\)")  # not broken: code, and the log's (value; mask)
_HARD_SPACE = "\0"
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


class _Wrapper(textwrap.TextWrapper):
    """Breaks lines at spaces and behind commas, so that the log's notation can be broken too."""

    wordsep_simple_re = re.compile(r"(\s+|(?<=,)(?=\S))")

    def __init__(self, width: int, first: int, others: int):
        super().__init__(
            width, initial_indent=" " * first, subsequent_indent=" " * others, break_on_hyphens=False,
            break_long_words=False,
        )  # fmt: skip


def sections(program: Program, why: Explanation, *, width: int, colour: bool = False) -> Iterator[str]:
    """The parts behind the excerpt, each a block of lines."""
    page = _Page(program, width, colour)
    if why.instructions:
        yield page.block("path", page.path(why))
    if why.need is not None:
        needed = page.block("needs", page.wrapped(why.need.requires))
        # What only repeats the state below is left to it.
        told = why.need.has and not (why.state and why.need.has == why.state[0].words)
        yield needed + (f"\n{page.block('has', page.wrapped(why.need.has))}" if told else "")
    if why.state:
        yield page.block("state", page.state(why))
    if any(one.place != "R10" for one in why.origin):
        yield page.block("origin", page.origin(why))
    if why.remedy.text:
        yield page.block("remedy", page.wrapped(why.remedy.text))


class _Page:
    """What the lines of one explanation share."""

    def __init__(self, program: Program, width: int, colour: bool):
        self.program = program
        self.width = width
        self.colour = colour
        self.source = ""

    def block(self, name: str, lines: Iterable[str]) -> str:
        """Lines under a name: the name stands in front of the first."""
        label = f"{_BOLD}{name}{_PLAIN}" if self.colour else name
        first, *others = lines
        out = [label + " " * (_LABEL - len(name)) + first, *(f"{' ' * _LABEL}{line}" for line in others)]
        return "\n".join(line.rstrip() for line in out)

    def wrapped(self, text: str, indent: int = 0, first: int = 0) -> list[str]:
        """A text broken at spaces and commas; its first line and those that follow are indented."""
        joined = _CODE.sub(lambda code: code[0].replace(" ", _HARD_SPACE), text)
        lines = _Wrapper(self.width - _LABEL, first, indent).wrap(joined)
        return [line.replace(_HARD_SPACE, " ") for line in lines]

    def sourced(self, insn: int, indent: int) -> Iterator[str]:
        """The source line of an instruction, unless it was the last one shown."""
        source = short(self.program.lines.get(insn, ""))
        if source and source != self.source:
            yield cut(f"{' ' * indent}; {source}", self.width - _LABEL)
        self.source = source

    def insn(self, number: int) -> str:
        """An instruction in the assembler's wording."""
        return insn_line(self.program, number)

    # ---- path

    def path(self, why: Explanation) -> list[str]:
        """How long it is, and its last branches."""
        count = len(why.instructions)
        head = f"{count} instruction{'s' if count != 1 else ''}"
        start = why.instructions[0]
        head += f" from {start}" if start else ""
        head += ", only where the processor mispredicts a branch" if why.speculative else ""
        if not why.path:
            return [f"{head}, no branches"]
        shown = why.path[-BRANCHES:]
        left = len(why.path) - len(shown)
        lines = [head + (f"; {left} earlier branches not shown" if left else "")]
        self.source = ""
        for one in shown:
            lines += self.branch(one, 0)
        return lines

    def branch(self, one: Branch | Rounds, indent: int) -> Iterator[str]:
        """One branch, or the rounds of a loop."""
        lead = " " * indent
        if isinstance(one, Rounds):
            yield f"{lead}{one.times} times"
            for inner in one.body:
                yield from self.branch(inner, indent + 2)
            return
        yield from self.sourced(one.insn, indent + 7)
        text = self.insn(one.insn)
        what = {"return": f"back to {one.to}", "call": f"into {one.to}", "callback": f"calls back {one.to}"}.get(
            one.how, f"{one.how}: {one.condition}"
        )
        yield f"{lead}{one.insn:5}  {text:<{_COLUMN - indent}}  {what}"

    # ---- state and origin

    def state(self, why: Explanation) -> list[str]:
        """Registers and stack bytes: words, and the log's notation below."""
        lines = []
        for held in why.state:
            lines += self.wrapped(f"{held.place:<7}{held.words}", 7)
            if held.notation and held.notation.removeprefix("P") not in held.words:
                lines += self.wrapped(held.notation, 7, 7)
        return lines

    def origin(self, why: Explanation) -> list[str]:
        """The instructions that made and tested a value, with what they gave."""
        chain = [one for one in why.origin if one.place != "R10"]
        shown = chain[-ORIGINS:]
        left = len(chain) - len(shown)
        lines = [f"{left} earlier steps not shown"] if left else []
        self.source = ""
        for one in shown:
            if one.insn is None:
                lines += self.wrapped(f"{'start':>5}  {one.place}: {one.words}", 9)
                continue
            lines += self.sourced(one.insn, 7)
            lines += self.wrapped(f"{one.insn:5}  {self.insn(one.insn):<{_COLUMN}}  {_made(one)}", 9)
        return lines


def _made(one: Origin) -> str:
    """What one step of a value's origin did: the value where it says all, else how it came about as well."""
    times = f"; {one.times} times, the last one shown" if one.times > 1 else ""
    if one.how == "tested":
        return one.words + (f", so {one.place} is {one.value}" if one.value else "") + times
    plain = one.how in ("map", "value", "copy", "constant", "arithmetic", "fill") and one.value
    told = one.value if plain else "; ".join(part for part in (one.words, one.value) if part)
    return f"{one.place}: {told}{times}"


def insn_line(program: Program, number: int) -> str:
    """An instruction in the assembler's wording, what it refers to by name."""
    insns = program.insns
    used = program.maps.get(number)
    name = str(getattr(getattr(used, "spec", used), "name", "") or "") or None
    return format_insn(
        insns[number], insns[number + 1] if number + 1 < len(insns) else None, map_name=name,
        kfunc=program.kfuncs.get(number), variable=variable_names(program).get(number),
    )  # fmt: skip


def short(source: str) -> str:
    """`file.c:12: text` without the directories of the file."""
    path, colon, rest = source.partition(":")
    return path.rpartition("/")[2] + colon + rest


def cut(text: str, width: int) -> str:
    """A line of source, shortened where it is too long for the page."""
    return text if len(text) <= width else text[: max(width - 3, 0)] + "..."


def as_object(program: Program, why: Explanation) -> dict[str, Any]:
    """The explanation as plain data, with the source line of every instruction that has one."""
    found = why.as_object()
    numbers = {why.insn, *(one.insn for one in why.origin)}
    waiting: list[Branch | Rounds] = list(why.path)
    while waiting:
        one = waiting.pop()
        if isinstance(one, Rounds):
            waiting += one.body
        else:
            numbers.add(one.insn)
    sources = {str(n): program.lines[n] for n in sorted(n for n in numbers if n is not None) if n in program.lines}
    return {**found, "sources": sources}
