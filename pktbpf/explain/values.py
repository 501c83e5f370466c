"""Where a value comes from, in words: an expression over packet bytes, metadata and constants.

The tracers carry one Expr per register beside its number, so that a branch can be told as "ip.proto = 17, not 6". An
expression that grows out of hand is cut to what it was computed from.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TypeAlias

from pktbpf.explain.fields import Dissection, format_value, low_bit


@dataclass(frozen=True, slots=True)
class Const:
    """A constant of the program."""

    value: int


@dataclass(frozen=True, slots=True)
class Bytes:
    """Packet bytes. at: index in the frame that the dissection describes. swapped: read in little-endian order."""

    at: int
    size: int
    swapped: bool = False


@dataclass(frozen=True, slots=True)
class Named:
    """Something with a name of its own: metadata, a helper's answer, a map's value. kind: of an answer, how a test
    against 0 is told: status (0 or the negative of an errno), address (or null), lookup (`name` is the map's)."""

    name: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Op:
    """left operator right."""

    operator: str
    left: Expr
    right: Expr
    depth: int


@dataclass(frozen=True, slots=True)
class Mixed:
    """Something computed that no short expression shows. sources: what went in, empty where that is not known."""

    sources: tuple[Bytes | Named, ...]


Expr: TypeAlias = "Const | Bytes | Named | Op | Mixed"

UNKNOWN = Mixed(())
_DEPTH = 4
_U64 = (1 << 64) - 1
_SOURCES = 3  # that are named of a computed value
_WORDS = {"JEQ": "=", "JNE": "≠", "JGT": ">", "JGE": "≥", "JLT": "<", "JLE": "≤", "JSGT": ">", "JSGE": "≥",
          "JSLT": "<", "JSLE": "≤", "JSET": "&"}  # fmt: skip


def combine(operator: str, left: Expr, right: Expr) -> Expr:
    """left operator right, folded where it is trivial, Mixed where it has become unreadable."""
    if operator in ("+", "-", "|", "^", "<<", ">>") and right == Const(0):
        return left
    if operator == "|" and left == Const(0):
        return right
    match operator, right:
        case "&", Const(mask):
            inner = left.right if isinstance(left, Op) and left.operator == "&" else None
            if isinstance(left, Op) and isinstance(inner, Const):
                left, right = left.left, Const(inner.value & mask)
        case "+", Const(amount):
            inner = left.right if isinstance(left, Op) and left.operator == "+" else None
            if isinstance(left, Op) and isinstance(inner, Const):
                left, right = left.left, Const(inner.value + amount & _U64)
        case "-", Op("*", Op("/", same, by, _), other, _) if same == left and by == other:
            operator, right = "%", by  # how compilers write a remainder
    depth = 1 + max(one.depth if isinstance(one, Op) else 0 for one in (left, right))
    if depth > _DEPTH or isinstance(left, Mixed) or isinstance(right, Mixed):
        return mixed(left, right)
    if isinstance(left, Bytes) and operator == "&" and right == Const((1 << 8 * left.size) - 1):
        return left
    return Op(operator, left, right, depth)


def mixed(*operands: Expr) -> Expr:
    """What an operation without a readable form makes of its operands: only what went in is kept."""
    return Mixed(tuple(dict.fromkeys(leaf for one in operands for leaf in _leaves(one))))


def _leaves(expr: Expr) -> tuple[Bytes | Named, ...]:
    match expr:
        case Op(_, left, right, _):
            return (*_leaves(left), *_leaves(right))
        case Mixed(sources):
            return sources
        case Const():
            return ()
    return (expr,)


def constant(expr: Expr) -> bool:
    """Whether nothing but the program's constants is in it."""
    return isinstance(expr, Const) or (isinstance(expr, Op) and constant(expr.left) and constant(expr.right))


def describe(expr: Expr, packet: Dissection) -> str:
    """The expression in words."""
    match expr:
        case Const(value):
            return str(value) if value < 256 else f"{value:#x}"
        case Named(name, kind):
            return f"lookup in {name}" if kind == "lookup" else name
        case Bytes(at, size, swapped):
            return f"swap({packet.name(at, size)})" if swapped else packet.name(at, size)
        case Mixed(sources):
            return _describe_mixed(sources, packet)
        case Op():
            return _describe_op(expr, packet)


def _describe_mixed(sources: tuple[Bytes | Named, ...], packet: Dissection) -> str:
    names = list(dict.fromkeys(describe(one, packet) for one in sources))
    if not names:
        return "a computed value"
    if len(names) > _SOURCES:
        names = [*names[: _SOURCES - 1], f"{len(names) - _SOURCES + 1} others"]
    listed = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    return f"a value computed from {listed}"


def _describe_op(expr: Op, packet: Dissection) -> str:
    if is_vlan_id(expr):
        return "skb vlan id"
    header = _header_length(expr, packet)
    if header:
        return header
    field = masked_field(expr, packet)
    if field is not None:
        return field
    left, right, operator = expr.left, expr.right, expr.operator
    if operator == "-" and left == Const(0):
        inner = describe(right, packet)
        return f"-({inner})" if isinstance(right, Op) else f"-{inner}"
    sides = [f"({describe(s, packet)})" if isinstance(s, Op) else describe(s, packet) for s in (left, right)]
    if isinstance(right, Const) and operator in "&|^" and right.value > 9:
        sides[1] = f"{right.value:#x}"
    elif isinstance(right, Const) and operator in ("+", "-"):
        operator, sides[1] = _signed_amount(operator, right.value)
    elif isinstance(right, Const):
        sides[1] = str(right.value)
    return f"{sides[0]} {operator} {sides[1]}"


def _signed_amount(operator: str, value: int) -> tuple[str, str]:
    """x + 0xffffffec is x - 20."""
    for bits in (32, 64):
        if (1 << bits) - 0x10000 <= value < 1 << bits:
            return ("-" if operator == "+" else "+"), str((1 << bits) - value)
    return operator, str(value)


def is_vlan_id(expr: Expr) -> bool:
    """Whether it is the identifier in the tag that was taken out of the bytes."""
    match expr:
        case Op("&", Named("skb.vlan_tci", _), Const(0xFFF), _):
            return True
    return False


def masked_field(expr: Expr, packet: Dissection) -> str | None:
    """The name of the bits that `bytes & constant` picks, where they are a field of their own."""
    match expr:
        case Op("&", Bytes(at, size, False), Const(mask), _) if mask:
            found = packet.find(at, size, mask)
            return found.name if found is not None else None
    return None


def _header_length(expr: Op, packet: Dissection) -> str | None:
    """4 * (ip[0] & 15) and (tcp[12] & 0xf0) >> 2."""
    match expr:
        case Op("<<", Op("&", Bytes(at, 1), Const(15), _), Const(2), _):
            name = packet.name(at, 1)
            return f"{name.split('.')[0]} header length" if name.startswith("ip.") else f"4*({name} & 0xf)"
        case Op(">>", Op("&", Bytes(at, 1), Const(0xF0), _), Const(2), _):
            return "tcp header length" if packet.name(at, 1) == "tcp.offset" else None
    return None


def format_number(expr: Expr, value: int, packet: Dissection) -> str:
    """A value of the expression as its field is written: 0x0800, 10.0.0.1, 6."""
    if isinstance(expr, Bytes) and not expr.swapped:
        found = packet.find(expr.at, expr.size)
        if found is not None:
            return format_value(value, found.form, found.size)
        if expr.size == 4 and "payload" in packet.name(expr.at, expr.size):
            text = value.to_bytes(4, "big") if value < 1 << 32 else b""
            shown = f' ("{text.decode()}")' if text and all(32 <= b < 127 for b in text) else ""
            return f"{value:#010x}{shown}"
    if isinstance(expr, Named) and expr.name in ("skb.protocol", "skb.vlan_proto"):
        return f"{value:#06x}"
    if isinstance(expr, Op) and expr.operator == "&":
        if is_vlan_id(expr):
            return str(value)
        if masked_field(expr, packet) is not None and isinstance(expr.right, Const):
            return str(value >> low_bit(expr.right.value))
        return str(value) if value < 10 else f"{value:#x}"
    return str(value) if value < 0x10000 else f"{value:#x}"


@dataclass(frozen=True, slots=True)
class Condition:
    """A branch as it was decided. operation: JEQ, JGT, ...; left, right with their values; holds: whether it was true.

    Equal conditions on the same expressions can be compared, so an answer that another one implies can be left out.
    """

    operation: str
    left: Expr
    right: Expr
    left_value: int
    right_value: int
    holds: bool

    def text(self, packet: Dissection) -> str:
        """What was found: "ip.proto = 6" where an equality held, "ip.proto = 17, not 6" where it did not."""
        name = describe(self.left, packet)
        if self.operation == "JSET":
            return self._bits(name, packet)
        if isinstance(self.left, Named) and self.left.kind and self.right == Const(0):
            return self._answer(self.left)
        have = format_number(self.left, self.left_value, packet)
        want = (
            format_number(self.left, self.right_value, packet)
            if isinstance(self.right, Const)
            else f"{describe(self.right, packet)} ({self.right_value})"
        )
        equal = (self.operation == "JEQ" and self.holds) or (self.operation == "JNE" and not self.holds)
        if equal:
            return f"{name} = {have}" if isinstance(self.right, Const) else f"{name} = {want}"
        if self.operation in ("JEQ", "JNE"):
            return f"{name} = {have}, not {want}"
        if self.holds:
            return f"{name} = {have} {_WORDS[self.operation]} {want}"
        return f"{name} = {have}, not {_WORDS[self.operation]} {want}"

    def _answer(self, call: Named) -> str:
        """A call's answer tested against 0."""
        value = self.left_value
        if call.kind == "lookup":
            return f"the key is {'' if value else 'not '}in map {call.name}"
        if call.kind == "address":
            return f"{call.name} returned {'an address' if value else 'null'}"
        if not value:
            return f"{call.name} succeeded"
        code = -value & 0xFFFFFFFF if value >> 31 else 0
        return f"{call.name} failed ({errno.errorcode.get(code, value)})"

    def _bits(self, name: str, packet: Dissection) -> str:
        if isinstance(self.right, Const):
            both = combine("&", self.left, self.right)
            field = masked_field(both, packet)
            if field is not None:
                return f"{field} = {(self.left_value & self.right_value) >> low_bit(self.right_value)}"
            name = f"({name} & {self.right_value:#x})"
        return f"{name} {'≠ 0' if self.holds else '= 0'}"

    @property
    def positive(self) -> bool:
        """Whether it states what something is: an equality that held, or a set bit."""
        return self.holds == (self.operation != "JNE") and self.operation in ("JEQ", "JNE", "JSET")
