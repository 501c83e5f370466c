"""What is known where a program was refused: the instruction, its operands, the path, and where values came from.

Rules about needs ask a Scene and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pktbpf.abi import helpers
from pktbpf.isa.extended import Insn
from pktbpf.verifier.disasm import insn_text
from pktbpf.verifier.layout import is_call
from pktbpf.verifier.reasons import words
from pktbpf.verifier.reasons.origin import Definition, Origins
from pktbpf.verifier.reasons.way import Step
from pktbpf.verifier.state import MAP_PTR, Frame, Reg
from pktbpf.verifier.texts import reg_text

if TYPE_CHECKING:
    from pktbpf.abi.helpers import Arg, Helper
    from pktbpf.abi.kfuncs import Param
    from pktbpf.verifier.maps import MapInfo
    from pktbpf.verifier.walk import Walk


@dataclass(frozen=True, slots=True)
class Remedy:
    """What to do. kind: a word for programs. text: a sentence. insn: instruction before which to do it, None for no
    single place. data: register, bound, bytes and so on."""

    kind: str
    text: str
    insn: int | None = None
    data: Mapping[str, Any] | None = None

    def as_object(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"kind": self.kind, "text": self.text, "insn": self.insn, **(self.data or {})}


@dataclass(frozen=True, slots=True)
class Need:
    """What an instruction demands and does not get. kind: the family of the rule. registers: those that it is about,
    the first one most. requires, has: in words; has may be empty. data: the numbers in it."""

    kind: str
    requires: str
    has: str
    remedy: Remedy
    registers: tuple[int, ...] = ()
    data: Mapping[str, Any] | None = None

    def as_object(self) -> dict[str, Any]:
        """Plain data for JSON, without the remedy."""
        return {
            "kind": self.kind, "registers": [f"R{n}" for n in self.registers], "requires": self.requires,
            "has": self.has, **(self.data or {}),
        }  # fmt: skip


class Scene:
    """One refusal. insn: the refusing instruction, index: its number. regs: registers before it. path: empty where no
    path was walked. trail: registers before every step of the path, empty where they are not known."""

    def __init__(
        self, lines: tuple[str, ...], index: int, insns: tuple[Insn, ...], privilege: str, sources: Mapping[int, str],
        walk: Walk | None = None, path: Sequence[Step] = (), trail: Sequence[list[Reg]] = (),
    ):  # fmt: skip
        self.lines = lines
        self.index = index
        self.insns = insns
        self.insn = insns[index]
        self.privilege = privilege
        self.sources = sources
        self.walk = walk
        self.path = path
        self.trail = trail
        self._kfuncs = walk.layout.kfuncs if walk is not None else {}
        self.frames: list[Frame] = walk.state.frames if walk is not None else []
        self.depth = len(self.frames) - 1
        self.regs: list[Reg] = []
        if walk is not None:
            self.regs = trail[-1] if trail else self.frames[-1].regs

    @cached_property
    def origins(self) -> Origins:
        """Definitions along the path."""
        assert self.walk is not None
        return Origins(self.walk, self.path)

    def after(self, number: int) -> Reg:
        """What a register held when the instruction was refused, its own result included."""
        return self.frames[-1].regs[number]

    # ---- words

    def text(self, index: int) -> str:
        """An instruction without its opcode: `r0 = 0`; `BUG_e7` for one that has no text."""
        second = self.insns[index + 1] if index + 1 < len(self.insns) else None
        whole = insn_text(self.insns[index], second, self._kfuncs.get(index))
        return whole.partition(") ")[2] or whole

    def place(self, index: int) -> str:
        """`instruction 9`, with the name of the file and the line where they are known."""
        source = self.sources.get(index, "")
        where = ":".join(source.split(":")[:2]).rpartition("/")[2]
        return f"instruction {index} ({where})" if where else f"instruction {index}"

    @property
    def here(self) -> str:
        """The place of the refusing instruction."""
        return self.place(self.index)

    def words(self, number: int) -> str:
        """What a register held, in words."""
        return words.register_words(self.regs[number], self.depth)

    def notation(self, number: int) -> str:
        """What a register held, as the log has it."""
        return reg_text(self.regs[number], self.depth)

    # ---- definitions

    def definition(self, number: int) -> Definition | None:
        """What last set a register; None where no path is known."""
        return self.origins.register(number) if self.path else None

    def value_after(self, made: Definition) -> Reg | None:
        """The value that a definition of a register gave, where it is known."""
        if made.place[0] != "R" or not 0 <= made.step < len(self.trail) - 1:
            return None
        return self.trail[made.step + 1][int(made.place[1:])]

    def before(self, step: int, number: int) -> Reg | None:
        """What a register held before a step of the path, where it is known."""
        return self.trail[step][number] if 0 <= step < len(self.trail) else None

    def map_asked(self, made: Definition) -> MapInfo | None:
        """The map that a definition names or that its helper was asked about."""
        if self.walk is not None and made.how in ("map", "value"):
            found = self.walk.maps.at.get(made.index)
            return found[0] if found is not None else None
        if made.how == "result":
            for number in (1, 2):
                reg = self.before(made.step, number)
                if reg is not None and reg.kind == MAP_PTR:
                    return reg.obj  # type: ignore[no-any-return]
        return None

    def tests(self, number: int) -> list[int]:
        """Steps of the path that compared a register or a copy of its value, oldest first."""
        made = self.definition(number)
        return sorted(set(made.tested)) if made is not None else []

    def helper(self) -> Helper | None:
        """The helper that the instruction calls."""
        return helpers.allowed(self.insn.imm, self.privilege) if is_call(self.insn, 0) else None

    def arguments(self) -> tuple[Arg | Param, ...]:
        """The parameters of the helper or kernel function that the instruction calls."""
        row = self.helper()
        kfunc = self.walk.layout.kfunc(self.index) if self.walk is not None else None
        return row.arg_types if row is not None else kfunc.params if kfunc is not None else ()

    def size_kind(self, number: int) -> str:
        """Which kind of size a register is for the argument before it, empty where it is none."""
        args = self.arguments()
        kind = args[number - 1].kind if 0 < number <= len(args) else ""
        return kind if kind in ("size", "size0", "sz", "szk") else ""

    def callee(self, index: int) -> str:
        """The name of what an instruction calls."""
        if self.insns[index].src == 0:
            return f"bpf_{helpers.helper_name(self.insns[index].imm)}"
        name = self.walk.layout.kfuncs.get(index) if self.walk is not None else None
        return name or "the function"

    def other_definitions(self, number: int) -> list[int]:
        """Instructions of this function that set a register, before this one, and are not on the path."""
        assert self.walk is not None
        function = self.walk.layout.functions[self.walk.layout.function_at(self.index)]
        passed = {step.at for step in self.path}
        return [
            index
            for index in range(function.start, self.index)
            if index not in passed and defines(self.insns, index) >> number & 1
        ]


def defines(insns: tuple[Insn, ...], index: int) -> int:
    """Bit mask of the registers that an instruction sets to something readable."""
    insn = insns[index]
    kind = insn.code & 7
    if kind in (1, 4, 7) or insn.code == 0x18:
        return 1 << insn.dst
    if kind == 0:
        return 1 if insn.code else 0
    if kind == 3 and insn.code & 0xE0 == 0xC0:
        if insn.imm == 0x100:
            return 1 << insn.dst
        if insn.imm & 1:
            return 1 if insn.imm == 0xF1 else 1 << insn.src
    return 1 if insn.code == 0x85 else 0


def uses(insn: Insn, arguments: int) -> tuple[int, ...]:
    """Registers that an instruction reads, as a person would name them; `arguments` of a call."""
    kind, operation = insn.code & 7, insn.code & 0xF0
    if insn.code == 0x18:
        return ()
    if kind == 0:
        return (6, insn.src) if insn.code & 0xE0 == 0x40 else (6,)
    if kind == 1:
        return (insn.src,)
    if kind == 2:
        return (insn.dst,)
    if kind == 3:
        extra = (0,) if insn.code & 0xE0 == 0xC0 and insn.imm == 0xF1 else ()
        return (insn.dst, insn.src, *extra)
    if kind in (4, 7):
        if operation == 0xB0:
            return (insn.src,) if insn.code & 8 else ()
        return (insn.dst, insn.src) if insn.code & 8 and operation not in (0x80, 0xD0) else (insn.dst,)
    if operation == 0x80:
        return tuple(range(1, arguments + 1))
    if operation == 0x90:
        return (0,)
    if operation in (0x00, 0xE0):
        return ()
    return (insn.dst, insn.src) if insn.code & 8 else (insn.dst,)
