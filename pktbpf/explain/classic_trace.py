"""Traces of classic programs, from the plain-Python classic machine: A, X and M[] with their origins, step by step."""

from __future__ import annotations

from collections.abc import Callable

from pktbpf.abi import ancillary
from pktbpf.asm import listing
from pktbpf.engine.base import Fault
from pktbpf.engine.reference_classic import Machine, Returned
from pktbpf.engine.reference_packet import Faulted, LoadFailed, Packet
from pktbpf.explain.fields import Dissection
from pktbpf.explain.steps import Read, Step, Trace
from pktbpf.explain.values import UNKNOWN, Bytes, Condition, Const, Expr, Named, combine, format_number
from pktbpf.isa.classic import ClassicInsn, ClassicRow
from pktbpf.program import ClassicProgram

OPERATORS = {"ADD": "+", "SUB": "-", "MUL": "*", "DIV": "/", "MOD": "%", "OR": "|", "AND": "&", "XOR": "^",
             "LSH": "<<", "RSH": ">>"}  # fmt: skip
_SIZE = {"W": 4, "H": 2, "B": 1}
_U32 = 0xFFFFFFFF


class Origins:
    """The expressions behind A, X and M[] while a program runs."""

    def __init__(self, packet: Packet, dissection: Dissection):
        self.packet, self.dissection = packet, dissection
        self.a: Expr = Const(0)
        self.x: Expr = Const(0)
        self.m: dict[int, Expr] = {}

    def reads(self, insn: ClassicInsn, row: ClassicRow, machine: Machine) -> list[Read]:
        """What the instruction is about to read, and A or X as its origin."""
        if row.name == "LDX_MSH":
            return self._load(insn.k, 1, machine)
        if row.name.startswith("LD_IND"):
            return self._load(machine.x + insn.k, _SIZE[row.name[-1]], machine)
        if row.name.startswith("LD_ABS") and insn.k not in ancillary.BY_K:
            return self._load(insn.k, _SIZE[row.name[-1]], machine)
        return []

    def _load(self, offset: int, size: int, machine: Machine) -> list[Read]:
        at = position(self.packet, offset)
        if at is None:
            return []
        try:
            value = self.packet.load(offset, size)
        except (LoadFailed, Faulted):
            return []
        return [packet_read(self.dissection, at, size, value)]

    def apply(self, insn: ClassicInsn, row: ClassicRow, reads: list[Read]) -> None:
        """Follow the instruction's effect on the origins."""
        name, k = row.name, insn.k
        source: Expr = Bytes(reads[0].at, reads[0].size) if reads else UNKNOWN
        stem, _, operand = name.partition("_")
        if stem in OPERATORS:
            self.a = combine(OPERATORS[stem], self.a, self.x if operand == "X" else Const(k))
        elif name == "LDX_MSH":
            self.x = combine("<<", combine("&", source, Const(15)), Const(2))
        elif name.startswith(("LD_ABS", "LD_IND")):
            known = ancillary.BY_K.get(k) if name.startswith("LD_ABS") else None
            self._take(known.name if known else None, source)
        else:
            self._move(name, k)

    def _take(self, known: str | None, source: Expr) -> None:
        if known == "ALU_XOR_X":
            self.a = combine("^", self.a, self.x)
        else:
            self.a = source if known is None else Named(metadata_name(known))

    def _move(self, name: str, k: int) -> None:
        match name:
            case "LD_IMM":
                self.a = Const(k)
            case "LDX_IMM":
                self.x = Const(k)
            case "LD_LEN":
                self.a = Named("packet length")
            case "LDX_LEN":
                self.x = Named("packet length")
            case "LD_MEM":
                self.a = self.m.get(k, UNKNOWN)
            case "LDX_MEM":
                self.x = self.m.get(k, UNKNOWN)
            case "ST":
                self.m[k] = self.a
            case "STX":
                self.m[k] = self.x
            case "TAX":
                self.x = self.a
            case "TXA":
                self.a = self.x
            case "NEG":
                self.a = combine("-", Const(0), self.a)


def metadata_name(ancillary_name: str) -> str:
    """What an ancillary load gives, as `__sk_buff` calls it where it has a field for it."""
    row = ancillary.BY_NAME[ancillary_name]
    return f"skb.{row.field or row.word}"


def position(packet: Packet, offset: int) -> int | None:
    """Index in the frame of a 32-bit load offset, None where there is no such byte."""
    offset &= _U32
    if offset & 0x80000000:
        try:
            offset = packet._convert(offset - (1 << 32))
        except LoadFailed:
            return None
    at = packet.base + offset
    return at if at >= 0 else None


def packet_read(dissection: Dissection, at: int, size: int, value: int) -> Read:
    """A read of packet bytes, named."""
    name = dissection.name(at, size)
    return Read(name, at, size, value, f"{name} = {format_number(Bytes(at, size), value, dissection)}")


def registers(machine: Machine, classic: ClassicProgram) -> dict[str, int]:
    """A, X and the slots of M[] that the program uses."""
    used = sorted({i.k for i in classic.insns if i.row is not None and i.row.name in ("ST", "STX")})
    return {"A": machine.a, "X": machine.x, **{f"M[{slot}]": machine.m[slot] for slot in used}}


def trace_classic(
    trace: Trace, random: Callable[[], Callable[[], int]], lines: Callable[[int], str] = lambda number: ""
) -> Trace:
    """Fill in the trace of a classic program. random: makes the run's source of random numbers anew."""
    classic = trace.program.classic
    assert classic is not None
    machine = Machine(trace.packet, random())
    origins = Origins(trace.packet, trace.dissection)
    walk = machine.steps(classic.insns)
    while True:
        number, insn = machine.pc, classic.insns[machine.pc]
        row = insn.row
        assert row is not None
        before = registers(machine, classic)
        reads = origins.reads(insn, row, machine)
        condition = _condition(origins, insn, row, machine)
        origins.apply(insn, row, reads)
        try:
            next(walk)
        except (Returned, LoadFailed, Faulted) as stop:
            _end(trace, stop)
            if isinstance(stop, Returned):
                trace.returned = origins.a if row.name == "RET_A" else Const(stop.value)
            trace.steps.append(_step(trace, number, insn, before, before, reads, None, _last(trace), lines(number)))
            break
        after = registers(machine, classic)
        reads = reads or _metadata(insn, row, machine, origins, trace.dissection)
        branch = (condition, machine.pc) if row.branch else None
        trace.steps.append(_step(trace, number, insn, before, after, reads, branch, "", lines(number)))
    trace.show = lambda name, value: f"{value:#x}" if value > 9 else str(value)
    trace.rerun = lambda step: _rerun(trace, step, random())
    return trace


def _condition(origins: Origins, insn: ClassicInsn, row: ClassicRow, machine: Machine) -> Condition | None:
    if not row.branch:
        return None
    stem, _, operand = row.name.partition("_")
    right, value = (origins.x, machine.x) if operand == "X" else (Const(insn.k), insn.k)
    tests = {"JEQ": machine.a == value, "JGT": machine.a > value, "JGE": machine.a >= value,
             "JSET": bool(machine.a & value)}  # fmt: skip
    return Condition(stem, origins.a, right, machine.a, value, tests[stem])


def _metadata(
    insn: ClassicInsn, row: ClassicRow, machine: Machine, origins: Origins, dissection: Dissection
) -> list[Read]:
    """What an ancillary load or a length load gave."""
    if row.name.startswith("LD_ABS") and insn.k in ancillary.BY_K and ancillary.BY_K[insn.k].name != "ALU_XOR_X":
        assert isinstance(origins.a, Named)
        shown = format_number(origins.a, machine.a, dissection)
        return [Read(origins.a.name, -1, 4, machine.a, f"{origins.a.name} = {shown}")]
    if row.name in ("LD_LEN", "LDX_LEN"):
        return [Read("packet length", -1, 4, machine.packet.length, f"packet length = {machine.packet.length}")]
    return []


def _step(
    trace: Trace, number: int, insn: ClassicInsn, before: dict[str, int], after: dict[str, int], reads: list[Read],
    branch: tuple[Condition | None, int] | None, note: str, line: str,
) -> Step:  # fmt: skip
    condition, target = branch if branch is not None else (None, None)
    return Step(
        len(trace.steps) + 1, number, classic_text(insn, number), before, after, 0, tuple(reads), condition,
        condition.holds if condition else None, target, note, line,
    )  # fmt: skip


def classic_text(insn: ClassicInsn, number: int) -> str:
    """The instruction as `tcpdump -d` writes it, without its number and padding."""
    return " ".join(listing.image(insn, number).split(") ", 1)[1].split())


def _end(trace: Trace, stop: Exception) -> None:
    if isinstance(stop, Returned):
        trace.verdict = stop.value
    elif isinstance(stop, Faulted):
        trace.fault = stop.fault
    else:
        trace.ending = "a load outside of the packet ends the filter with 0"


def _last(trace: Trace) -> str:
    """What the last instruction did."""
    if trace.fault is not Fault.NONE:
        return "needs bytes that were not captured"
    if trace.ending:
        return trace.ending
    return f"returns {trace.verdict:#x}" if trace.verdict > 9 else f"returns {trace.verdict}"


def _rerun(trace: Trace, step: Step, random: Callable[[], int]) -> int | None:
    """The verdict had this branch gone the other way, the packet being the same."""
    classic = trace.program.classic
    assert classic is not None
    machine = Machine(trace.packet, random)
    walk = machine.steps(classic.insns)
    try:
        for number, _ in enumerate(walk, 1):
            if number == step.number:
                insn = classic.insns[step.slot]
                machine.pc = step.slot + 1 + (insn.jf if step.taken else insn.jt)
    except Returned as done:
        return done.value
    except LoadFailed:
        return 0
    except Faulted:
        return None
    return None
