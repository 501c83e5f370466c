"""The step debugger: a position in the trace of one packet of a capture, moved by text commands.

Every command is one line in and lines out (a list of str), so a terminal, a script on standard input and tests drive it
alike. Steps back are free, since the whole run of a packet is recorded. Position i means that step i+1 comes next.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from pktbpf.errors import PktbpfError, UsageError
from pktbpf.explain import places
from pktbpf.explain.classic_trace import classic_text
from pktbpf.explain.conditions import Condition
from pktbpf.explain.extended_trace import insn_text
from pktbpf.explain.render import findings
from pktbpf.explain.run import Tracer
from pktbpf.explain.steps import Step, Trace
from pktbpf.explain.why import sentence
from pktbpf.isa.extended import walk
from pktbpf.maps.face import Map

Lines = list[str]
AROUND = 5
MAP_ENTRIES = 20


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """Before an instruction (slot, in the first program), or before any step where a condition holds."""

    number: int
    slot: int | None
    condition: Condition | None

    def hits(self, trace: Trace, step: Step) -> bool:
        """Whether to stop before this step."""
        if self.slot is not None and (step.slot != self.slot or step.program):
            return False
        return self.condition is None or self.condition.holds(trace, step)

    def __str__(self) -> str:
        place = f"instruction {self.slot}" if self.slot is not None else ""
        when = f"if {self.condition.text}" if self.condition is not None else ""
        return f"{self.number}: {' '.join(part for part in (place, when) if part)}"


class Debugger:
    """make: gives a fresh Tracer from the start of the capture. done: set by `quit`."""

    def __init__(self, make: Callable[[], Tracer]):
        self._make = make
        self._walk: Iterator[tuple[int, Trace]] = make().traces()
        self._numbers = itertools.count(1)
        self.breakpoints: list[Breakpoint] = []
        self.number = 0
        self.trace: Trace | None = None
        self.position = 0
        self.done = False

    @property
    def prompt(self) -> str:
        """ "(25:3) ": packet and step."""
        return f"({self.number}:{self.position}) "

    def execute(self, line: str) -> Lines:
        """Run one command; errors become lines."""
        words = line.strip().split(None, 1)
        if not words or words[0].startswith("#"):
            return []
        try:
            return self._command(words[0])(self, words[1].strip() if len(words) > 1 else "")
        except PktbpfError as error:
            return [f"error: {error}"]

    def _command(self, word: str) -> Callable[[Debugger, str], Lines]:
        word = self.SHORT.get(word, word)
        found = [name for name in self.COMMANDS if name == word] or [n for n in self.COMMANDS if n.startswith(word)]
        if len(found) != 1:
            known = ", ".join(found or self.COMMANDS)
            raise UsageError(f"{'ambiguous' if found else 'unknown'} command {word!r}; there are {known}")
        return self.COMMANDS[found[0]][0]

    # --- where we are ------------------------------------------------------------------------------------------------

    def _here(self) -> Trace:
        if self.trace is None:
            raise UsageError("no packet yet; say `packet N` or `next`")
        return self.trace

    def _where(self) -> Lines:
        trace = self._here()
        if self.position >= len(trace.steps):
            return [f"end: {trace.verdict_text}"]
        step = trace.steps[self.position]
        inside = f"program {step.program} " if step.program else ""
        return [f"{inside}{step.slot:4} {step.text}"]

    def _report(self, step: Step) -> str:
        trace = self._here()
        changed = ", ".join(f"{name} = {trace.show(name, value)}" for name, value in step.changed.items())
        return f"{step.slot:4} {step.text:<32} {'; '.join(p for p in (findings(trace, step), changed) if p)}".rstrip()

    # --- moving ------------------------------------------------------------------------------------------------------

    def step(self, text: str) -> Lines:
        """Run the next instruction, or N."""
        trace, out = self._here(), []
        for _ in range(_count(text)):
            if self.position >= len(trace.steps):
                break
            out.append(self._report(trace.steps[self.position]))
            self.position += 1
        return out + (self._where() if self.position >= len(trace.steps) else [])

    def back(self, text: str) -> Lines:
        """Go one instruction back, or N."""
        self._here()
        self.position = max(self.position - _count(text), 0)
        return self._where()

    def run(self, text: str) -> Lines:
        """Go on to the next breakpoint or the end."""
        trace = self._here()
        for index in range(self.position + 1, len(trace.steps)):
            hit = next((b for b in self.breakpoints if b.hits(trace, trace.steps[index])), None)
            if hit is not None:
                self.position = index
                return [f"breakpoint {hit}", *self._where()]
        self.position = len(trace.steps)
        return self._where()

    def until(self, text: str) -> Lines:
        """Go on to instruction N."""
        trace, slot = self._here(), _number(text, "an instruction")
        places.check_stop(trace.program, slot)
        for index in range(self.position + 1, len(trace.steps)):
            if trace.steps[index].slot == slot:
                self.position = index
                return self._where()
        self.position = len(trace.steps)
        return [f"instruction {slot} is not reached", *self._where()]

    def start(self, text: str) -> Lines:
        """Back to the first instruction."""
        self._here()
        self.position = 0
        return self._where()

    # --- packets -----------------------------------------------------------------------------------------------------

    def packet(self, text: str) -> Lines:
        """Show the packet; `packet N` goes to packet N."""
        if text:
            return self.go_to(_number(text, "a packet"))
        trace = self._here()
        data = trace.packet.buffer
        size = f"{trace.packet.captured} of {trace.packet.length} bytes"
        out = [f"packet {self.number}: {size}", *trace.dissection.lines()]
        for at in range(0, len(data), 16):
            part = data[at : at + 16]
            shown = "".join(chr(b) if 32 <= b < 127 else "." for b in part)
            out.append(f"{at:06x}  {part.hex(' '):<47}  {shown}")
        return out

    def go_to(self, number: int) -> Lines:
        """Go to packet N. Raises UsageError where there is none, and what loading and checking the program raises."""
        if number <= self.number:
            self._walk, self.number = self._make().traces(), 0
        for found, trace in self._walk:
            if found == number:
                return self._arrive(found, trace)
        raise UsageError(f"there is no packet {number}")

    def _arrive(self, number: int, trace: Trace, position: int = 0) -> Lines:
        self.number, self.trace, self.position = number, trace, position
        return [f"packet {number}, {len(trace.packet.buffer)} bytes: {sentence(trace)}", *self._where()]

    def next(self, text: str) -> Lines:
        """The next packet; `next accepted`, `next rejected`, `next N true|false`: that takes branch N that way."""
        wanted, stop = _wanted(text, self.trace)
        for number, trace in self._walk:
            position = wanted(trace)
            if position is not None:
                return self._arrive(number, trace, position if stop else 0)
        raise UsageError("no such packet follows")

    # --- breakpoints -------------------------------------------------------------------------------------------------

    def break_(self, text: str) -> Lines:
        """List breakpoints, or set one: `break 5`, `break ip.proto == 6`, `break 5 if A > 9`."""
        if not text:
            return [str(one) for one in self.breakpoints] or ["no breakpoints"]
        place, _, rest = text.partition(" if ")
        slot = _slot(place)
        text = rest if slot is not None else text.removeprefix("if ")
        condition = Condition(text) if text else None
        if slot is not None and self.trace is not None:
            places.check_stop(self.trace.program, slot)
        if condition is not None and not condition.names:
            raise UsageError(f"{text!r} is the same at every step: there is no register or field in it")
        if condition is not None and self.trace is not None and self.trace.steps:
            condition.holds(self.trace, self.trace.steps[0])  # so that an unknown name is told at once
        made = Breakpoint(next(self._numbers), slot, condition)
        self.breakpoints.append(made)
        return [f"breakpoint {made}"]

    def delete(self, text: str) -> Lines:
        """Delete breakpoint N, or all."""
        numbers = {one.number for one in self.breakpoints} if not text else {_number(text, "a breakpoint")}
        if not numbers <= {one.number for one in self.breakpoints}:
            raise UsageError(f"there is no breakpoint {text}")
        self.breakpoints = [one for one in self.breakpoints if one.number not in numbers]
        return []

    # --- looking -----------------------------------------------------------------------------------------------------

    def _state(self) -> tuple[dict[str, int], bytes]:
        trace = self._here()
        if not trace.steps:
            return {}, b""
        if self.position < len(trace.steps):
            step = trace.steps[self.position]
            return dict(step.before), step.stack
        return dict(trace.steps[-1].after), trace.steps[-1].stack

    def regs(self, text: str) -> Lines:
        """Registers before the next instruction."""
        trace = self._here()
        return [f"{name:<5} {value:#018x}  {trace.show(name, value)}" for name, value in self._state()[0].items()]

    def stack(self, text: str) -> Lines:
        """The stack of an extended program's first frame, M[] of a classic one."""
        registers, stack = self._state()
        if self._here().classic:
            slots = [f"{name:<5} {value:#010x}  {value}" for name, value in registers.items() if name.startswith("M")]
            return slots or ["the program has no scratch slots"]
        rows = [(at, stack[at : at + 8]) for at in range(0, min(len(stack), 512), 8)]
        return [f"fp-{512 - at:<4} {part.hex(' ')}" for at, part in rows if any(part)] or ["the stack is all zero"]

    def maps(self, text: str) -> Lines:
        """Maps and what they hold at this point; `maps NAME` for one."""
        trace = self._here()
        if not trace.maps:
            return ["the program has no maps"]
        if text and text not in trace.maps:
            raise UsageError(f"there is no map {text!r}; there are {', '.join(trace.maps)}")
        with trace.world(self.position):
            chosen = {text: trace.maps[text]} if text else trace.maps
            return [line for name, one in chosen.items() for line in _map_lines(name, one)]

    def list(self, text: str) -> Lines:
        """The program around the next instruction, or N lines of it; `list all`."""
        trace = self._here()
        step = trace.steps[min(self.position, len(trace.steps) - 1)] if trace.steps else None
        here, program = (step.slot, step.program) if step is not None else (0, 0)
        around = 1 << 20 if text == "all" else _count(text, AROUND)
        stops = {one.slot for one in self.breakpoints if one.slot is not None and not program}
        ended = self.position >= len(trace.steps)
        out = []
        for slot, said in _listing(trace, program):
            if abs(slot - here) <= around:
                mark = ">" if slot == here and not ended else " "
                out.append(f"{mark}{'*' if slot in stops else ' '}{slot:4} {said}")
        return out

    def why(self, text: str) -> Lines:
        """The tests that decided this packet's verdict."""
        return [sentence(self._here(), all_reasons=text == "all")]

    def quit(self, text: str) -> Lines:
        """Leave."""
        self.done = True
        return []

    def help(self, text: str) -> Lines:
        """This list."""
        return [f"{name:<8} {does}" for name, (_, does) in self.COMMANDS.items()]

    COMMANDS: ClassVar[dict[str, tuple[Callable[[Debugger, str], Lines], str]]] = {
        name: (function, " ".join((function.__doc__ or "").split()))
        for name, function in (
            ("step", step), ("back", back), ("run", run), ("until", until), ("start", start), ("packet", packet),
            ("next", next), ("break", break_), ("delete", delete), ("regs", regs), ("stack", stack), ("maps", maps),
            ("list", list), ("why", why), ("help", help), ("quit", quit),
        )
    }  # fmt: skip
    SHORT: ClassVar[dict[str, str]] = {
        "s": "step", "b": "break", "r": "run", "c": "run", "continue": "run", "n": "next", "p": "packet", "u": "until",
        "l": "list", "m": "maps", "d": "delete", "q": "quit", "exit": "quit", "h": "help", "?": "help",
    }  # fmt: skip


def _count(text: str, default: int = 1) -> int:
    return _number(text, "a count") if text else default


def _number(text: str, what: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise UsageError(f"{text!r} is not the number of {what}") from None


def _slot(text: str) -> int | None:
    """The number of an instruction, None for what is none."""
    try:
        return int(text, 0)
    except ValueError:
        return None


def _wanted(text: str, here: Trace | None) -> tuple[Callable[[Trace], int | None], bool]:
    """What `next` looks for: a trace's position, None where it does not fit; whether to go there."""
    words = text.split()
    if not words:
        return (lambda trace: 0), False
    if words[0] in ("accepted", "rejected", "match"):
        accepted = words[0] != "rejected"
        return (lambda trace: 0 if trace.accepted == accepted else None), False
    slot = _number(words[0].removeprefix("branch") or (words[1] if len(words) > 1 else ""), "a branch instruction")
    if here is not None:
        places.check_branch(here.program, slot)
    way = words[-1] if words[-1] in ("true", "false", "taken") else "true"

    def takes(trace: Trace) -> int | None:
        return next((n for n, s in enumerate(trace.steps) if s.slot == slot and s.taken is (way != "false")), None)

    return takes, True


def _listing(trace: Trace, program: int) -> Iterator[tuple[int, str]]:
    """(number, text) of every instruction."""
    chosen = trace.programs[program]
    if chosen.classic is not None:
        for number, insn in enumerate(chosen.classic.insns):
            yield number, classic_text(insn, number)
        return
    for slot, _, _ in walk(chosen.insns):
        yield slot, insn_text(chosen, slot)


def _map_lines(name: str, one: Map) -> Lines:
    out = [f"{name}: {one.spec.kind}, {one.spec.max_entries} entries"]
    if one.spec.kind in ("RINGBUF", "USER_RINGBUF", "PERF_EVENT_ARRAY", "PROG_ARRAY", "QUEUE", "STACK", "BLOOM_FILTER"):
        return out
    shown = 0
    for key, value in one.items():
        zero = one.spec.kind.endswith("ARRAY") and not (any(value) if isinstance(value, bytes | list) else value)
        if zero:
            continue
        if shown == MAP_ENTRIES:
            return [*out, "  ..."]
        out.append(f"  {_text(key)} = {_text(value)}")
        shown += 1
    return out if shown else [f"{out[0]}, {'all zero' if one.spec.kind.endswith('ARRAY') else 'empty'}"]


def _text(value: object) -> str:
    return value.hex(" ") if isinstance(value, bytes) else str(value)
