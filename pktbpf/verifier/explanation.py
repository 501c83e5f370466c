"""Why a program was refused, as data: the path that leads there, what the registers held, and what to do.

`verify` raises `VerifierRefused`, a ProgramRefused that carries an `Explanation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pktbpf.errors import ProgramRefused
from pktbpf.verifier.hints import remedy
from pktbpf.verifier.state import NOT_INIT
from pktbpf.verifier.texts import insn_text, reg_text

if TYPE_CHECKING:
    from pktbpf.verifier.errors import Refusal
    from pktbpf.verifier.walk import Walk


@dataclass(frozen=True, slots=True)
class Explanation:
    """One refusal.

    insn: the refusing instruction, None for the whole program. text: it, in the kernel's wording. lines: the kernel's
    lines. path: (from, to) of the jumps, calls and returns that led there, oldest first. registers: what those that
    were set held, in the wording of the log. speculative: only a mispredicted branch leads there. remedy: a sentence,
    empty if there is none.
    """

    insn: int | None
    text: str
    lines: tuple[str, ...]
    path: tuple[tuple[int, int], ...]
    registers: dict[str, str]
    speculative: bool
    remedy: str

    def as_object(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "insn": self.insn,
            "text": self.text,
            "lines": list(self.lines),
            "path": [list(step) for step in self.path],
            "registers": dict(self.registers),
            "speculative": self.speculative,
            "remedy": self.remedy,
        }


class VerifierRefused(ProgramRefused):
    """A refusal of the verifier, explained."""

    def __init__(self, number: int, explanation: Explanation, *, log: str):
        reason = explanation.lines[0]
        super().__init__(number, explanation.insn, reason, hint=explanation.remedy, log=log)
        self.explanation = explanation


def explain(problem: Refusal, walk: Walk | None, insns: tuple[Any, ...]) -> Explanation:
    """The explanation of a refusal; `walk` is None where it came before any path was followed."""
    lines = problem.lines or ("",)
    text = ""
    if problem.insn is not None and problem.insn < len(insns):
        following = insns[problem.insn + 1] if problem.insn + 1 < len(insns) else None
        text = insn_text(insns[problem.insn], following)
    if walk is None or not walk.processed:
        return Explanation(problem.insn, text, lines, (), {}, False, remedy(lines[0]))
    frame = walk.state.frames[-1]
    registers = {f"R{n}": reg_text(reg, frame.number) for n, reg in enumerate(frame.regs) if reg.kind != NOT_INIT}
    return Explanation(
        problem.insn, text, lines, _path(walk), registers, walk.state.speculative, remedy(lines[0])
    )  # fmt: skip


def _path(walk: Walk) -> tuple[tuple[int, int], ...]:
    steps: list[tuple[int, int]] = []
    state = walk.state
    while True:
        steps += [(before, index) for index, before, *_ in reversed(state.history) if _jumped(walk, before, index)]
        if state.parent is None:
            break
        state = state.parent
    return tuple(reversed(steps))


def _jumped(walk: Walk, before: int, index: int) -> bool:
    """Whether the way from one instruction to the next was not simply the next slot."""
    return before >= 0 and index - before != (2 if walk.insns[before].code == 0x18 else 1)
