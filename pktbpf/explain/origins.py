"""Where the registers and stack bytes of an extended program come from, followed instruction by instruction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pktbpf.abi import context
from pktbpf.engine.reference_extended import compare
from pktbpf.engine.reference_packet import Faulted, LoadFailed, Packet
from pktbpf.explain.answers import helper_answer, kfunc_answer
from pktbpf.explain.classic_trace import OPERATORS, packet_read, position
from pktbpf.explain.fields import Dissection
from pktbpf.explain.steps import Read
from pktbpf.explain.values import UNKNOWN, Bytes, Condition, Const, Expr, Named, Op, combine, describe, mixed
from pktbpf.isa.extended import Insn, Kind, Row

_U32, _U64 = (1 << 32) - 1, (1 << 64) - 1
_STACK, _CONTEXT, _PACKET, _FIRST_MAP = 1, 2, 4, 16
_SAVED = slice(6, 10)  # registers that a function of the program gives back as it found them
_OBJECT = 24  # bytes of the largest iterator or dynptr
_MAP_POINTER = 1 << 62
LOOKUP, LOAD_BYTES, LOAD_RELATIVE = 1, 26, 68
_NETWORK_ORDER = {f"{name} (network order)": name for name in ("skb.protocol", "skb.vlan_proto")}


class Origins:
    """regs: one Expr per register. maps: registry number -> name and BTF type of the values (None without one)."""

    def __init__(self, packet: Packet, dissection: Dissection, maps: Mapping[int, tuple[str, Any]]):
        self.packet, self.dissection, self._maps = packet, dissection, maps
        self.regs: list[Expr] = [UNKNOWN] * 11
        self.regs[1], self.regs[10] = Named("ctx"), Named("fp")
        self._bytes: dict[int, int] = {}  # stack offset -> index in the frame
        self._spilled: dict[tuple[int, int], Expr] = {}
        # Of functions and callbacks that run: r6 to r9 of the caller, and what r0 will be after a callback.
        self._callers: list[tuple[list[Expr], Expr | None]] = []

    def map_name(self, number: int) -> str:
        """The map's name, empty for a number that is none."""
        return self._maps[number][0] if number in self._maps else ""

    def map_value(self, number: int, offset: int, size: int) -> str:
        """A name for bytes of a map's values: a data section's variable where the debug information knows it."""
        name, value_type = self._maps.get(number, ("", None))
        variable = variable_at(value_type, offset, size)
        if variable:
            return variable
        return f"{name} value[{offset}:{size}]" if offset else f"{name} value"

    # --- what is read ------------------------------------------------------------------------------------------------

    def reads(self, insn: Insn, row: Row, regs: tuple[int, ...]) -> list[Read]:
        """What the instruction is about to read from the packet or the context."""
        if row.kind is Kind.PACKET:
            offset = insn.imm + (regs[insn.src] if row.operation == "IND" else 0)
            return self._packet(offset, row.size)
        if row.kind is Kind.LOAD:
            address = (regs[insn.src] + insn.off) & _U64
            if address >> 32 == _PACKET:
                return self._slice(address & _U32, row.size)
            return self._context(insn, row, regs)
        if row.kind is Kind.CALL and row.name == "CALL_HELPER" and insn.imm in (LOAD_BYTES, LOAD_RELATIVE):
            return self._load_bytes(insn.imm, regs)
        return []

    def _packet(self, offset: int, size: int) -> list[Read]:
        at = position(self.packet, offset)
        try:
            return [] if at is None else [packet_read(self.dissection, at, size, self.packet.load(offset, size))]
        except (LoadFailed, Faulted):
            return []

    def _slice(self, offset: int, size: int) -> list[Read]:
        """Packet bytes read through an address that a dynptr gave."""
        at = self.packet.base + offset
        data = self.packet.buffer[at : at + size]
        return [packet_read(self.dissection, at, size, int.from_bytes(data, "big"))] if len(data) == size else []

    def _context(self, insn: Insn, row: Row, regs: tuple[int, ...]) -> list[Read]:
        address = (regs[insn.src] + insn.off) & _U64
        if address >> 32 != _CONTEXT:
            return []
        found = context.field_at(address & _U32)
        if found is None or found.name == "cb":
            return []
        try:
            value = self.packet.context_load(address & _U32, row.size, bytearray(20))
        except Faulted:
            return []
        name = f"skb.{found.name}"
        if f"{name} (network order)" in _NETWORK_ORDER:
            return [Read(f"{name} (network order)", -1, row.size, value, f"{name} = {_swap(value, 2):#06x}")]
        return [Read(name, -1, row.size, value, f"{name} = {value}")]

    def _load_bytes(self, number: int, regs: tuple[int, ...]) -> list[Read]:
        at, size = self._place(number, regs)
        data = self.packet.buffer[at : at + size] if at is not None else b""
        if at is None or not size or len(data) < size:
            return []
        name = self.dissection.name(at, size)
        if size in (1, 2, 4):
            return [packet_read(self.dissection, at, size, int.from_bytes(data, "big"))]
        shown = data[:24].hex(" ") + (" ..." if size > 24 else "")
        return [Read(name, at, size, int.from_bytes(data[:8], "big"), f"{name} = {shown}")]

    def _place(self, number: int, regs: tuple[int, ...]) -> tuple[int | None, int]:
        """Where in the frame bpf_skb_load_bytes(_relative) copies from, and how many bytes."""
        offset, size = regs[2] & _U32, regs[4] & _U32
        if offset > 0x7FFFFFFF:
            return None, size
        base = 0
        if number == LOAD_RELATIVE:
            base = self.packet.column("mac_offset" if regs[5] & _U32 == 0 else "network_offset")
            if base == context.UNSET:
                return None, size
        return self.packet.base + base + offset, size

    # --- what follows ------------------------------------------------------------------------------------------------

    def condition(self, insn: Insn, row: Row, regs: tuple[int, ...]) -> Condition | None:
        """The test of a branch, in the packet's byte order where both sides allow it."""
        if row.kind is not Kind.BRANCH:
            return None
        mask = (1 << row.bits) - 1
        a = regs[insn.dst] & mask
        b = (regs[insn.src] if row.reg else insn.imm & _U64) & mask
        left, right = self.regs[insn.dst], self.regs[insn.src] if row.reg else Const(b)
        holds = compare(row.operation, a, b, row.bits)
        if row.operation.startswith("JS") and row.operation != "JSET":
            a, b = _signed(a, row.bits), _signed(b, row.bits)
            left, right = self.regs[insn.dst], self.regs[insn.src] if row.reg else Const(b)
        if row.reg and isinstance(right, Const):
            right = Const(b)
        match left, right:
            case Op("&", Bytes(at, size, True), Const(picked), depth), Const(wanted) if (
                row.operation in ("JEQ", "JNE") and max(picked, wanted) < 1 << 8 * size
            ):
                turned = Op("&", Bytes(at, size), Const(_swap(picked, size)), depth)
                return Condition(row.operation, turned, Const(_swap(wanted, size)), _swap(a, size), _swap(wanted, size),
                                 holds)  # fmt: skip
        if isinstance(right, Const) and row.operation in ("JEQ", "JNE"):
            if isinstance(left, Bytes) and left.swapped and b < 1 << 8 * left.size:
                return Condition(row.operation, Bytes(left.at, left.size), Const(_swap(b, left.size)),
                                 _swap(a, left.size), _swap(b, left.size), holds)  # fmt: skip
            if isinstance(left, Named) and left.name in _NETWORK_ORDER and b < 1 << 16:
                host = Named(_NETWORK_ORDER[left.name])
                return Condition(row.operation, host, Const(_swap(b, 2)), _swap(a, 2), _swap(b, 2), holds)
        return Condition(row.operation, left, right, a, b, holds)

    def apply(
        self, insn: Insn, row: Row, regs: tuple[int, ...], reads: list[Read], after: tuple[int, ...], kfunc: str = ""
    ) -> None:
        """Follow the effect of an instruction that has run. regs: before it. kfunc: the kernel function it calls."""
        match row.kind:
            case Kind.ALU:
                self._alu(insn, row)
            case Kind.SWAP:
                self._swap(insn, row)
            case Kind.LOAD_IMM64:
                self.regs[insn.dst] = self._immediate(after[insn.dst])
            case Kind.PACKET:
                self.regs[0] = Bytes(reads[0].at, reads[0].size) if reads else UNKNOWN
                self._forget_arguments()
            case Kind.LOAD:
                self.regs[insn.dst] = self._load(insn, row, regs, reads)
            case Kind.STORE:
                self._store(insn, row, regs)
            case Kind.ATOMIC:
                self._atomic(insn, row, regs)
            case Kind.CALL:
                if kfunc:
                    self._kernel_call(kfunc, regs)
                else:
                    self._call(insn, row, regs, after)
            case Kind.EXIT if self._callers and after[10] != regs[10]:
                self.regs[_SAVED], answer = self._callers.pop()
                self.regs[0] = self.regs[0] if answer is None else answer
            case _:
                pass

    def _immediate(self, value: int) -> Expr:
        if value & _MAP_POINTER:
            return Named(f"map {self.map_name(value >> 32 & 0xFFFFFF)}")
        number = value >> 32
        return Named(f"&{self.map_name(number)}") if number >= _FIRST_MAP and self.map_name(number) else Const(value)

    def _alu(self, insn: Insn, row: Row) -> None:
        operand: Expr = self.regs[insn.src] if row.reg else Const(insn.imm & (_U32 if row.bits == 32 else _U64))
        if row.operation == "MOV":
            self.regs[insn.dst] = operand
        elif row.operation in OPERATORS:
            self.regs[insn.dst] = _narrow(combine(OPERATORS[row.operation], self.regs[insn.dst], operand))
        elif row.operation == "NEG":
            self.regs[insn.dst] = combine("-", Const(0), self.regs[insn.dst])
        elif row.operation.startswith("MOV"):  # sign-extending
            self.regs[insn.dst] = mixed(operand)
        else:
            self.regs[insn.dst] = mixed(self.regs[insn.dst], operand)

    def _swap(self, insn: Insn, row: Row) -> None:
        value = self.regs[insn.dst]
        if row.operation == "LE":
            return
        if isinstance(value, Bytes) and value.size * 8 == row.bits:
            self.regs[insn.dst] = Bytes(value.at, value.size, not value.swapped)
        elif isinstance(value, Named) and value.name in _NETWORK_ORDER:
            self.regs[insn.dst] = Named(_NETWORK_ORDER[value.name])
        else:
            self.regs[insn.dst] = mixed(value)

    def _load(self, insn: Insn, row: Row, regs: tuple[int, ...], reads: list[Read]) -> Expr:
        address = (regs[insn.src] + insn.off) & _U64
        if reads and address >> 32 == _PACKET:
            return Bytes(reads[0].at, row.size, swapped=row.size > 1)
        if reads:
            return Named(reads[0].name)
        region, offset = address >> 32, address & _U32
        if region == _STACK:
            return self._from_stack(offset, row.size)
        if _FIRST_MAP <= region < 1 << 24:
            return Named(self.map_value(region, offset, row.size))
        return UNKNOWN

    def _from_stack(self, offset: int, size: int) -> Expr:
        if (offset, size) in self._spilled:
            return self._spilled[offset, size]
        first = self._bytes.get(offset)
        if first is not None and all(self._bytes.get(offset + n) == first + n for n in range(size)):
            return Bytes(first, size, swapped=size > 1)
        for (begin, length), value in self._spilled.items():
            if begin <= offset and offset + size <= begin + length and isinstance(value, Const):
                return Const(value.value >> 8 * (offset - begin) & (1 << 8 * size) - 1)
        return UNKNOWN

    def _store(self, insn: Insn, row: Row, regs: tuple[int, ...]) -> None:
        address = (regs[insn.dst] + insn.off) & _U64
        if address >> 32 != _STACK:
            return
        offset = address & _U32
        self._clobber(offset, row.size)
        value = self.regs[insn.src] if row.reg else Const(insn.imm)
        if isinstance(value, Const):
            value = Const(value.value & (1 << row.bits) - 1)
        self._spilled[offset, row.size] = value

    def _clobber(self, offset: int, size: int) -> None:
        for at in range(offset, offset + size):
            self._bytes.pop(at, None)
        overlapping = [k for k in self._spilled if k[0] < offset + size and offset < k[0] + k[1]]
        for key in overlapping:
            del self._spilled[key]

    def _atomic(self, insn: Insn, row: Row, regs: tuple[int, ...]) -> None:
        address = (regs[insn.dst] + insn.off) & _U64
        if address >> 32 == _STACK:
            self._clobber(address & _U32, row.size)
        if row.operation.startswith("FETCH_") or row.operation == "XCHG":
            known = _FIRST_MAP <= address >> 32 < 1 << 24
            name = self.map_value(address >> 32, address & _U32, row.size)
            self.regs[insn.src] = Named(name) if known else UNKNOWN
        elif row.operation == "CMPXCHG":
            self.regs[0] = UNKNOWN
        elif row.operation == "LOAD_ACQ":
            self.regs[insn.dst] = UNKNOWN

    def _call(self, insn: Insn, row: Row, regs: tuple[int, ...], after: tuple[int, ...]) -> None:
        if row.name == "CALL_LOCAL":
            self._callers.append((self.regs[_SAVED], None))
        if row.name != "CALL_HELPER":
            return
        number = insn.imm
        answer = helper_answer(number)
        if number in (LOAD_BYTES, LOAD_RELATIVE):
            at, size = self._place(number, regs)
            if regs[3] >> 32 == _STACK:
                self._clobber(regs[3] & _U32, size)
                if at is not None and after[0] == 0:
                    self._bytes.update({(regs[3] & _U32) + n: at + n for n in range(size)})
        elif number == LOOKUP:
            answer = Named(describe(self.regs[1], self.dissection).removeprefix("map "), "lookup")
        if after[10] != regs[10]:  # a callback comes first
            self._callers.append((self.regs[_SAVED], answer))
        self._forget_arguments()
        self.regs[0] = answer

    def _kernel_call(self, name: str, regs: tuple[int, ...]) -> None:
        """A kernel function may write what its arguments point to: iterators, dynptrs, buffers."""
        for pointer in regs[1:6]:
            if pointer >> 32 == _STACK:
                self._clobber(pointer & _U32, max(_OBJECT, min(regs[4] & _U32, 512)))
        self._forget_arguments()
        self.regs[0] = kfunc_answer(name)

    def _forget_arguments(self) -> None:
        self.regs[1:6] = [UNKNOWN] * 5


def variable_at(value_type: Any, offset: int, size: int) -> str:
    """The variable of a data section that is exactly these bytes, empty where there is none."""
    btf = getattr(value_type, "btf", None)
    if btf is None:
        return ""
    for one in btf.type(value_type.id).variables:
        if (one.offset, one.size) == (offset, size):
            return str(btf.type(one.type).name)
    return ""


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def _swap(value: int, size: int) -> int:
    return int.from_bytes((value & (1 << 8 * size) - 1).to_bytes(size, "little"), "big")


def _narrow(expr: Expr) -> Expr:
    """(x << 32) >> 32 of a value that is no wider is x: how compilers clear the upper half."""
    match expr:
        case Op(">>", Op("<<", inner, Const(32), _), Const(32), _):
            return inner
    return expr
