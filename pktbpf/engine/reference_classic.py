"""The classic machine in plain Python: A, X, M[] and a program counter, read as the kernel's rules are written.

It shares nothing with the translator and the compiled loop and so is their witness in tests and in traces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pktbpf.abi import ancillary
from pktbpf.engine.reference_packet import LoadFailed, Packet
from pktbpf.isa.classic import ClassicInsn, ClassicRow

U32 = 0xFFFFFFFF

_ALU: dict[str, Callable[[int, int], int]] = {
    "ADD": lambda a, b: a + b,
    "SUB": lambda a, b: a - b,
    "MUL": lambda a, b: a * b,
    "DIV": lambda a, b: a // b,
    "MOD": lambda a, b: a % b,
    "OR": lambda a, b: a | b,
    "AND": lambda a, b: a & b,
    "XOR": lambda a, b: a ^ b,
    "LSH": lambda a, b: a << (b & 31),
    "RSH": lambda a, b: a >> (b & 31),
}
_TEST: dict[str, Callable[[int, int], bool]] = {
    "JEQ": lambda a, b: a == b,
    "JGT": lambda a, b: a > b,
    "JGE": lambda a, b: a >= b,
    "JSET": lambda a, b: bool(a & b),
}
_SIZE = {"W": 4, "H": 2, "B": 1}


class Returned(Exception):
    """The filter's verdict."""

    def __init__(self, value: int):
        self.value = value & U32
        super().__init__(str(value))


@dataclass(slots=True)
class Machine:
    """State while one packet runs. random: source of 32-bit numbers. cpu comes with the packet."""

    packet: Packet
    random: Callable[[], int]
    a: int = 0
    x: int = 0
    m: list[int] = field(default_factory=lambda: [0] * 16)
    pc: int = 0

    def run(self, insns: tuple[ClassicInsn, ...]) -> int:
        """The verdict of a checked program. Raises Faulted for bytes that the capture lacks."""
        try:
            for _ in self.steps(insns):
                pass
        except Returned as done:
            return done.value
        except LoadFailed:
            return 0
        raise AssertionError("a checked program ends with a ret")

    def steps(self, insns: tuple[ClassicInsn, ...]) -> Iterator[int]:
        """Execute one instruction per step and yield its number; ends by Returned, LoadFailed or Faulted."""
        while True:
            insn, number = insns[self.pc], self.pc
            self.pc += 1
            row = insn.row
            assert row is not None, "check() refuses unknown opcodes"
            self._step(insn, row)
            yield number

    def _step(self, insn: ClassicInsn, row: ClassicRow) -> None:
        stem, _, operand = row.name.partition("_")
        value = self.x if operand == "X" else insn.k
        if stem in _ALU:
            self._arithmetic(stem, value)
        elif stem in _TEST:
            self.pc += insn.jt if _TEST[stem](self.a, value) else insn.jf
        elif row.name.startswith(("LD_ABS", "LD_IND")):
            self._load(insn, row)
        else:
            self._other(insn, row.name)

    def _arithmetic(self, name: str, value: int) -> None:
        if name in ("DIV", "MOD") and value == 0:
            raise Returned(0)
        self.a = _ALU[name](self.a, value) & U32

    def _load(self, insn: ClassicInsn, row: ClassicRow) -> None:
        _, mode, width = row.name.split("_")
        if mode == "IND":
            self.a = self.packet.load(self.x + insn.k, _SIZE[width])
        elif insn.k in ancillary.BY_K:
            self._ancillary(ancillary.BY_K[insn.k].name)
        else:
            self.a = self.packet.load(insn.k, _SIZE[width])

    def _ancillary(self, name: str) -> None:
        packet = self.packet
        match name:
            case "ALU_XOR_X":
                self.a ^= self.x
            case "IFINDEX" | "HATYPE":
                if packet.column("ifindex") <= 0:
                    raise Returned(self.a)
                self.a = packet.column(name.lower()) & U32
            case "RANDOM":
                self.a = self.random()
            case "CPU":
                self.a = packet.column("cpu") & U32
            case "PAY_OFFSET":
                self.a = packet.internal("skb_get_pay_offset", self.a, self.x) & U32
            case "NLATTR" | "NLATTR_NEST":
                self.a = packet.internal(f"skb_get_{name.lower()}", self.a, self.x) & U32
            case _:
                column = ancillary.BY_NAME[name].field
                assert column is not None
                mask = U32 if column in ("mark", "hash") else 0xFFFF
                self.a = packet.column(column) & mask

    def _other(self, insn: ClassicInsn, name: str) -> None:
        match name:
            case "LD_IMM":
                self.a = insn.k
            case "LDX_IMM":
                self.x = insn.k
            case "LD_LEN":
                self.a = self.packet.length & U32
            case "LDX_LEN":
                self.x = self.packet.length & U32
            case "LD_MEM":
                self.a = self.m[insn.k]
            case "LDX_MEM":
                self.x = self.m[insn.k]
            case "LDX_MSH":
                self.x = (self.packet.load(insn.k, 1) & 0xF) * 4
            case "ST":
                self.m[insn.k] = self.a
            case "STX":
                self.m[insn.k] = self.x
            case "NEG":
                self.a = -self.a & U32
            case "JA":
                self.pc += insn.k
            case "TAX":
                self.x = self.a
            case "TXA":
                self.a = self.x
            case "RET_K":
                raise Returned(insn.k)
            case "RET_A":
                raise Returned(self.a)
            case _:
                raise AssertionError(f"no rule for {name}")
