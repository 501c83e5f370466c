"""Instructions decoded once for the walk: what to do, with which operands."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pktbpf.isa.extended import Insn
from pktbpf.verifier.state import Reg

if TYPE_CHECKING:
    from pktbpf.verifier.walk import Walk

    Rule = Callable[[Walk, "Op"], "bool | None"]


class Op:
    """One decoded instruction.

    run: the rule that checks it; True ends the path. name: operation (ADD, EQ, ...). bits: width of arithmetic or
    compare. reg: the second operand is a register. size: bytes of a memory access. constant: the immediate as a
    register. touches: it may read or write the stack. sums, divides, shifts, masks: ADD or SUB, DIV or MOD, a shift,
    AND or OR.
    """

    __slots__ = (
        "bits",
        "constant",
        "divides",
        "dst",
        "imm",
        "insn",
        "masks",
        "name",
        "off",
        "reg",
        "run",
        "shifts",
        "size",
        "src",
        "sums",
        "touches",
    )

    def __init__(self, insn: Insn, run: Rule):
        self.insn = insn
        self.run = run
        self.dst = insn.dst
        self.src = insn.src
        self.off = insn.off
        self.imm = insn.imm
        self.name = ""
        self.bits = 64
        self.reg = bool(insn.code & 8)
        self.size = 0
        self.constant: Reg | None = None
        self.touches = False
        self.sums = self.divides = self.shifts = self.masks = False
