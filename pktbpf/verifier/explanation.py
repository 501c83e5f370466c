"""Why a program was refused, as data: the path that leads there, what the operands held and where it came from, the
need that was not met, and a remedy.

`verify` raises `VerifierRefused`, a ProgramRefused that carries an `Explanation`. Everything is worked out after the
refusal, from the state in which the walk stopped.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pktbpf.errors import ProgramRefused, printable
from pktbpf.program import Program
from pktbpf.verifier.disasm import insn_text
from pktbpf.verifier.layout import is_call
from pktbpf.verifier.reasons import need as needs
from pktbpf.verifier.reasons import origin as origins
from pktbpf.verifier.reasons import trail as trails
from pktbpf.verifier.reasons import way, words
from pktbpf.verifier.reasons.origin import Definition
from pktbpf.verifier.reasons.scene import Need, Remedy, Scene, uses
from pktbpf.verifier.reasons.trail import Trail
from pktbpf.verifier.state import NOT_INIT, Frame, Reg, spilled
from pktbpf.verifier.texts import reg_text

if TYPE_CHECKING:
    from pktbpf.verifier.errors import Refusal
    from pktbpf.verifier.walk import Walk

_NO_REMEDY = Remedy("", "")


@dataclass(frozen=True, slots=True)
class Held:
    """What a register or some stack bytes held before the refused instruction. place: R2, fp-16. notation: as in the
    kernel's log. words: the same in words."""

    place: str
    notation: str
    words: str

    def as_object(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"place": self.place, "notation": self.notation, "words": self.words}


@dataclass(frozen=True, slots=True)
class Origin:
    """One instruction on the path that made or tested a value.

    insn: its number, None for what is there at the start. text: it. place: the register or stack bytes. how: as in
    reasons.origin.Definition, or "tested". words: what it did. notation, value: what the place held afterwards, in the
    log's notation and in words; empty where that is not known. times: how often the path passed it.
    """

    insn: int | None
    text: str
    place: str
    how: str
    words: str
    notation: str
    value: str
    times: int = 1

    def as_object(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "insn": self.insn, "text": self.text, "place": self.place, "how": self.how, "words": self.words,
            "notation": self.notation, "value": self.value, "times": self.times,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Explanation:
    """One refusal.

    insn: the refusing instruction, None for the whole program. text: it, in the kernel's wording. lines: the kernel's
    lines. instructions: numbers of the path's instructions, oldest first, empty where no path was followed. path: its
    branches. registers: what those that were set held, in the wording of the log. state: what the refused instruction
    uses. need: what was demanded, None where that cannot be said. origin: where the values came from. speculative: only
    a mispredicted branch leads there. remedy: what to do.
    """

    insn: int | None
    text: str
    lines: tuple[str, ...]
    instructions: tuple[int, ...] = ()
    path: way.Way = ()
    registers: dict[str, str] | None = None
    state: tuple[Held, ...] = ()
    need: Need | None = None
    origin: tuple[Origin, ...] = ()
    speculative: bool = False
    remedy: Remedy = _NO_REMEDY

    def as_object(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "insn": self.insn,
            "text": self.text,
            "lines": list(self.lines),
            "instructions": len(self.instructions),
            "path": [one.as_object() for one in self.path],
            "registers": dict(self.registers or {}),
            "state": [one.as_object() for one in self.state],
            "need": self.need.as_object() if self.need is not None else None,
            "origin": [one.as_object() for one in self.origin],
            "speculative": self.speculative,
            "remedy": self.remedy.as_object(),
        }


class VerifierRefused(ProgramRefused):
    """A refusal of the verifier, explained. see: the command that shows the explanation, empty where there is none."""

    def __init__(self, number: int, explanation: Explanation, *, log: str, see: str = ""):
        reason = explanation.lines[0] or "refused without a word"
        if not explanation.lines[0] and explanation.need is not None:
            reason = f"needs {explanation.need.requires}, of which the kernel says nothing"
        super().__init__(number, explanation.insn, reason, hint=explanation.remedy.text, log=log)
        if see:
            self.args = (f"{self.args[0]}; `{printable(see)}` shows why",)
        self.explanation = explanation
        self.see = see


def command(program: Program, privilege: str) -> str:
    """The command line that explains the refusal of a program that came out of a file."""
    if not program.origin or privilege == "cap_bpf":
        return ""
    return f"pktbpf verify {shlex.quote(program.origin)}" + (" --unprivileged" if privilege == "none" else "")


def explain(
    problem: Refusal, program: Program, privilege: str, walk: Walk | None, again: Callable[[Trail], None]
) -> Explanation:
    """The explanation of a refusal. walk: None where it came before any path was followed. again: verifies the program
    once more with another log."""
    lines, insns = problem.lines or ("",), program.insns
    at = problem.insn
    if at is None or at >= len(insns):
        scene = Scene(lines, 0, insns, privilege, program.lines) if insns else None
        need = needs.find(scene) if scene is not None else None
        return Explanation(at, "", lines, need=need, remedy=need.remedy if need is not None else _NO_REMEDY)
    if walk is None or not problem.on_path:
        scene = Scene(lines, at, insns, privilege, program.lines)
        return _explained(scene, at, (), None)
    path = way.steps(walk, way.instructions(walk, at))
    trail = _trail(walk, path, again)
    followed = path if len(path) <= origins.LONGEST else []
    scene = Scene(lines, at, insns, privilege, program.lines, walk, followed, trail)
    return _explained(scene, at, path, walk)


def _trail(walk: Walk, path: Sequence[way.Step], again: Callable[[Trail], None]) -> list[list[Reg]]:
    """Registers before every step of the path; empty where a second run would take too long."""
    if walk.processed > trails.LONGEST:
        return []
    trail = Trail()
    again(trail)
    wanted = [step.at for step in path]
    # A path may be refused before its last instruction is looked at: an endless loop. What went before it, where it
    # begins in a function verified on its own or called later, is not part of it.
    for found in (trail.before, [*trail.before, (wanted[-1] if wanted else 0, walk.regs[:])]):
        tail = found[max(0, len(found) - len(wanted)) :]
        if [index for index, _ in tail] == wanted:
            return [regs for _, regs in tail]
    return []


def _explained(scene: Scene, at: int, path: Sequence[way.Step], walk: Walk | None) -> Explanation:
    need = needs.find(scene)
    registers = {}
    if walk is not None:
        registers = {f"R{n}": reg_text(reg, scene.depth) for n, reg in enumerate(scene.regs) if reg.kind != NOT_INIT}
    return Explanation(
        at,
        insn_text(scene.insns[at], scene.insns[at + 1] if at + 1 < len(scene.insns) else None),
        scene.lines,
        instructions=tuple(step.at for step in path),
        path=way.fold(way.branches(walk, path)) if walk is not None else (),
        registers=registers,
        state=tuple(_state(scene, need)) if walk is not None else (),
        need=need,
        origin=tuple(_origin(scene, need)) if walk is not None and need is not None else (),
        speculative=walk is not None and walk.state.speculative,
        remedy=need.remedy if need is not None else _NO_REMEDY,
    )


# ---- the state


def _state(scene: Scene, need: Need | None) -> Iterator[Held]:
    """The registers that the need is about, then the others that the instruction uses, then stack bytes."""
    arguments = 5 if is_call(scene.insn, 1) else len(scene.arguments())
    numbers = [*(need.registers if need is not None else ()), *uses(scene.insn, arguments)]
    if need is not None and need.kind == "encoding":
        return
    for number in dict.fromkeys(number for number in numbers if number < len(scene.regs)):
        notation = scene.notation(number) if scene.regs[number].kind != NOT_INIT else ""
        yield Held(f"R{number}", notation, scene.words(number))
    data = (need.data or {}) if need is not None else {}
    if "missing" in data:
        pointer = scene.regs[need.registers[0]] if need is not None else None
        frame = scene.frames[pointer.frame] if pointer is not None else scene.frames[-1]
        yield from _stack(frame, scene.depth, data["offset"], data["size"])


def _stack(frame: Frame, depth: int, offset: int, size: int) -> Iterator[Held]:
    """The slots that an access touches."""
    for slot in range((-offset - 1) >> 3, ((-offset - size) >> 3) - 1, -1):
        types, reg = frame.stack[slot] if slot < len(frame.stack) else ("?" * 8, None)
        notation = types
        if reg is not None and spilled((types, reg)):
            notation = types.rstrip("r") + reg_text(reg, depth)
        yield Held(f"fp{-8 * (slot + 1)}", notation, _slot_words(types, reg, depth))


def _slot_words(types: str, reg: Reg | None, depth: int) -> str:
    if reg is not None and spilled((types, reg)):
        size = len(types) - len(types.rstrip("r"))
        return f"{words.register_words(reg, depth)}, saved in {words.count(size)}"
    written = sum(letter != "?" for letter in types)
    return "8 bytes, never written" if not written else f"{written} of 8 bytes written"


# ---- the origin


def _origin(scene: Scene, need: Need) -> Iterator[Origin]:
    if not scene.path or not need.registers:
        return
    start = [scene.origins.register(number) for number in need.registers]
    found = origins.ancestry(start)
    entries: list[tuple[int, Definition, int | None]] = [(made.step, made, None) for made in found]
    for made in found:
        entries += [(step, made, step) for step in made.tests]
    entries.sort(key=lambda entry: (entry[0], entry[2] is not None))
    # What a loop did again and again is one entry, at its last place.
    last: dict[tuple[int, str, bool], tuple[int, int]] = {}
    for position, (step, made, test) in enumerate(entries):
        key = (scene.path[step].at if step >= 0 else -1, made.place, test is not None)
        times = last.get(key, (0, 0))[1] + 1
        last[key] = (position, times)
    for position, times in sorted(last.values()):
        step, made, test = entries[position]
        yield _tested(scene, made, step, times) if test is not None else _made(scene, made, times)


def _made(scene: Scene, made: Definition, times: int) -> Origin:
    after = scene.value_after(made)
    if made.step < 0:
        known = made.how == "entry" and made.place != "R10"
        how = "argument of the program: the context" if known else "frame pointer" if made.how == "entry" else "not set"
        if known and (scene.depth or made.place != "R1"):
            how = "argument of the function"
        return Origin(None, "", made.place, made.how, how, "", "")
    insn = scene.insns[made.index]
    pointer = scene.before(made.step, insn.src) if made.how == "load" else None
    notation = reg_text(after, scene.path[made.step].depth) if after is not None and after.kind != NOT_INIT else ""
    value = words.register_words(after, scene.path[made.step].depth) if notation and after is not None else ""
    what = words.made_words(insn, made.how, pointer, scene.map_asked(made), scene.callee(made.index))
    return Origin(made.index, scene.text(made.index), made.place, made.how, what, notation, value, times)


def _tested(scene: Scene, made: Definition, step: int, times: int) -> Origin:
    index = scene.path[step].at
    taken = scene.path[step].how == "taken"
    number, depth = int(made.place[1:]), scene.path[step].depth
    after = scene.before(step + 1, number)
    if after is scene.before(step, number):
        after = None  # the test taught nothing
    notation = reg_text(after, depth) if after is not None and after.kind != NOT_INIT else ""
    value = words.register_words(after, depth) if notation and after is not None else ""
    what = f"{'taken' if taken else 'not taken'}: {way.condition(scene.insns[index], taken)}"
    return Origin(index, scene.text(index), made.place, "tested", what, notation, value, times)
