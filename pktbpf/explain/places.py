"""Where a breakpoint can fire: at an instruction of the program that some way from its start leads to."""

from __future__ import annotations

from pktbpf.errors import UsageError
from pktbpf.isa import extended
from pktbpf.isa.extended import Insn, Kind
from pktbpf.program import ClassicProgram, Program

_FUNCTION = 4  # source register of a 64-bit immediate that names a function, for callbacks


def check(program: Program, slot: int) -> None:
    """Raises UsageError, in a line that says why, for a place that no run ever comes to."""
    classic = program.classic
    count = len(classic.insns) if classic is not None else len(program.insns)
    if not 0 <= slot < count:
        raise UsageError(f"there is no instruction {slot}; the program has 0 to {count - 1}, see `list all`")
    if classic is None and slot not in {start for start, _, _ in extended.walk(program.insns)}:
        raise UsageError(f"instruction {slot} is the second half of the 64-bit immediate at {slot - 1}; say {slot - 1}")
    if slot not in (_classic(classic) if classic is not None else _extended(program.insns)):
        raise UsageError(f"instruction {slot} is never reached: no way from the start of the program leads there")


def check_stop(program: Program, slot: int) -> None:
    """The same for a place to stop at on the way: the first instruction is behind every run that has begun."""
    check(program, slot)
    again = program.classic is None and 0 in _reached(program.insns, _following(program.insns[0], 0))
    if slot == 0 and not again:
        raise UsageError("instruction 0 is where every packet begins and never comes again; `start` goes back to it")


def check_branch(program: Program, slot: int) -> None:
    """The same for a place that must be a conditional jump."""
    check(program, slot)
    classic = program.classic
    row = classic.insns[slot].row if classic is not None else program.insns[slot].row
    branches = row is not None and (row.branch if not isinstance(row, extended.Row) else row.kind is Kind.BRANCH)
    if not branches:
        raise UsageError(f"instruction {slot} is no conditional jump, so it goes neither way; see `list all`")


def _classic(program: ClassicProgram) -> set[int]:
    """Numbers of the instructions that can be reached. Jumps go forward."""
    found = {0}
    for number, insn in enumerate(program.insns):
        row = insn.row
        if number not in found or row is None or row.name.startswith("RET"):
            continue
        if row.branch:
            found |= {number + 1 + insn.jt, number + 1 + insn.jf}
        else:
            found.add(number + 1 + (insn.k if row.name == "JA" else 0))
    return found


def _extended(insns: tuple[Insn, ...]) -> set[int]:
    return _reached(insns, [0])


def _reached(insns: tuple[Insn, ...], starts: list[int]) -> set[int]:
    found: set[int] = set()
    waiting = list(starts)
    while waiting:
        slot = waiting.pop()
        if slot not in found and 0 <= slot < len(insns):
            found.add(slot)
            waiting += _following(insns[slot], slot)
    return found


def _following(insn: Insn, slot: int) -> list[int]:
    """The instructions that may come after one, those of functions that it calls or names among them."""
    row = insn.row
    after = slot + (2 if extended.is_wide(insn) else 1)
    if row is None or row.kind is Kind.EXIT:
        return []
    if row.kind is Kind.JUMP:
        return [after + (insn.imm if row.bits == 32 else insn.off)]
    if row.kind in (Kind.BRANCH, Kind.MAY_GOTO):
        return [after, after + insn.off]
    if row.name == "CALL_LOCAL" or (row.kind is Kind.LOAD_IMM64 and insn.src == _FUNCTION):
        return [after, slot + 1 + insn.imm]
    return [after]
