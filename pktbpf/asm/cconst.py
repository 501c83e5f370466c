"""Constant expressions as C sources of filters have them: BPF_LD+BPF_H+BPF_ABS, `ETH_HLEN + 9`, `(uint32_t)~0`.

Integers (suffixes, characters), the operators of C with their precedence, casts to integer types, names. `NAMES` has
the kernel's and libpcap's constants for filters and the usual protocol numbers; a source's own `#define` of a plain
expression comes before it. What needs a compiler (sizeof, offsetof, functions) is refused with a reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, NoReturn

from pktbpf.abi import ancillary, limits
from pktbpf.isa import fields

_BPF = (
    "LD", "LDX", "ST", "STX", "ALU", "JMP", "RET", "MISC", "W", "H", "B", "IMM", "ABS", "IND", "MEM", "LEN", "MSH",
    "ADD", "SUB", "MUL", "DIV", "OR", "AND", "LSH", "RSH", "NEG", "MOD", "XOR", "JA", "JEQ", "JGT", "JGE", "JSET",
    "K", "X", "A", "TAX", "TXA",
)  # fmt: skip
_ETHER = {
    "PUP": 0x0200, "IP": 0x0800, "ARP": 0x0806, "8021Q": 0x8100, "IPV6": 0x86DD, "MPLS_UC": 0x8847, "MPLS_MC": 0x8848,
    "PPP_DISC": 0x8863, "PPP_SES": 0x8864, "PAE": 0x888E, "8021AD": 0x88A8, "LLDP": 0x88CC, "1588": 0x88F7,
    "MACSEC": 0x88E5, "RARP": 0x8035, "802_3": 1, "ALL": 3, "802_2": 4, "LOOPBACK": 0x9000, "SLOW": 0x8809,
}  # fmt: skip
_IPPROTO = {
    "IP": 0, "HOPOPTS": 0, "ICMP": 1, "IGMP": 2, "IPIP": 4, "TCP": 6, "EGP": 8, "PUP": 12, "UDP": 17, "DCCP": 33,
    "IPV6": 41, "ROUTING": 43, "FRAGMENT": 44, "RSVP": 46, "GRE": 47, "ESP": 50, "AH": 51, "ICMPV6": 58, "NONE": 59,
    "DSTOPTS": 60, "OSPF": 89, "PIM": 103, "SCTP": 132, "UDPLITE": 136, "RAW": 255,
}  # fmt: skip

NAMES: dict[str, int] = {
    **{f"BPF_{name}": getattr(fields, name) for name in _BPF},
    **{f"SKF_AD_{row.name}": row.offset for row in ancillary.ROWS},
    **{f"ETH_P_{name}": value for name, value in _ETHER.items()},
    **{f"ETHERTYPE_{name}": _ETHER[name] for name in ("PUP", "IP", "ARP", "IPV6", "LOOPBACK", "LLDP", "PAE")},
    **{f"IPPROTO_{name}": value for name, value in _IPPROTO.items()},
    "SKF_AD_OFF": ancillary.SKF_AD_OFF,
    "SKF_NET_OFF": ancillary.SKF_NET_OFF,
    "SKF_LL_OFF": ancillary.SKF_LL_OFF,
    "SKF_AD_MAX": 64,
    "BPF_MAXINSNS": limits.CLASSIC_MAX_INSNS,
    "BPF_MEMWORDS": limits.CLASSIC_MEMWORDS,
    "ETHERTYPE_REVARP": 0x8035,
    "ETHERTYPE_VLAN": 0x8100,
    "ETHERTYPE_8021Q": 0x8100,
    "ETH_HLEN": 14,
    "ETH_ALEN": 6,
    "ETHER_HDR_LEN": 14,
    "ETHER_ADDR_LEN": 6,
    "ARPHRD_ETHER": 1,
    "ARPOP_REQUEST": 1,
    "ARPOP_REPLY": 2,
    "ICMP_ECHO": 8,
    "ICMP_ECHOREPLY": 0,
    "IP_RF": 0x8000,
    "IP_DF": 0x4000,
    "IP_MF": 0x2000,
    "IP_OFFMASK": 0x1FFF,
    "TH_FIN": 1,
    "TH_SYN": 2,
    "TH_RST": 4,
    "TH_PUSH": 8,
    "TH_ACK": 16,
    "TH_URG": 32,
    "PACKET_HOST": 0,
    "PACKET_BROADCAST": 1,
    "PACKET_MULTICAST": 2,
    "PACKET_OTHERHOST": 3,
    "PACKET_OUTGOING": 4,
    "INT_MAX": 0x7FFF_FFFF,
    "UINT_MAX": 0xFFFF_FFFF,
    "INT32_MAX": 0x7FFF_FFFF,
    "UINT32_MAX": 0xFFFF_FFFF,
    "UINT16_MAX": 0xFFFF,
    "UINT8_MAX": 0xFF,
}

TOKEN = re.compile(
    r"(?P<number>0[xX][0-9a-fA-F]+|0[bB][01]+|[0-9]+)(?P<suffix>\w*)"
    r"|(?P<word>[A-Za-z_]\w*)|(?P<char>'(?:[^'\\\n]|\\.)')|(?P<mark><<|>>|<=|>=|==|!=|&&|\|\||\S)"
)
_CASTS = {
    "u8": 8, "uint8_t": 8, "u_int8_t": 8, "u_char": 8, "u16": 16, "uint16_t": 16, "u_int16_t": 16, "u_short": 16,
    "u32": 32, "uint32_t": 32, "u_int32_t": 32, "u_int": 32, "bpf_u_int32": 32, "uint": 32, "ushort": 16,
    "s8": -8, "int8_t": -8, "s16": -16, "int16_t": -16, "s32": -32, "int32_t": -32,
    "__u8": 8, "__u16": 16, "__u32": 32, "__s8": -8, "__s16": -16, "__s32": -32, "__be16": 16, "__be32": 32,
}  # fmt: skip
_BASE_TYPES = frozenset({"unsigned", "signed", "char", "short", "int", "long"})
_LEVELS: tuple[tuple[str, ...], ...] = (
    ("||",), ("&&",), ("|",), ("^",), ("&",), ("==", "!="), ("<", ">", "<=", ">="), ("<<", ">>"), ("+", "-"),
    ("*", "/", "%"),
)  # fmt: skip
_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "||": lambda a, b: int(bool(a or b)),
    "&&": lambda a, b: int(bool(a and b)),
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "&": lambda a, b: a & b,
    "==": lambda a, b: int(a == b),
    "!=": lambda a, b: int(a != b),
    "<": lambda a, b: int(a < b),
    ">": lambda a, b: int(a > b),
    "<=": lambda a, b: int(a <= b),
    ">=": lambda a, b: int(a >= b),
    "<<": lambda a, b: a << b,
    ">>": lambda a, b: a >> b,
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1),  # C rounds towards zero
    "%": lambda a, b: abs(a) % abs(b) * (-1 if a < 0 else 1),
}
_ESCAPES = {"n": 10, "t": 9, "r": 13, "0": 0, "\\": 92, "'": 39, '"': 34}
_MAX_DEPTH = 40  # each level costs a dozen Python frames


class CToken(NamedTuple):
    kind: str
    text: str
    offset: int


class ConstantError(Exception):
    """Why an expression has no value, and the character where that shows. Never leaves `pktbpf.asm`."""

    def __init__(self, reason: str, offset: int):
        super().__init__(reason)
        self.reason = reason
        self.offset = offset


def tokens(text: str, start: int = 0, end: int | None = None) -> list[CToken]:
    """All tokens between two offsets of a text without comments."""
    found = []
    for match in TOKEN.finditer(text, start, len(text) if end is None else end):
        kind = match.lastgroup or "mark"
        kind = "number" if kind == "suffix" else kind
        found.append(CToken(kind, match.group(), match.start()))
    return found


class Evaluator:
    """The value of a token list. defines: a source's own names -> the tokens of their replacement."""

    def __init__(self, defines: Mapping[str, list[CToken]] | None = None):
        self._defines = defines or {}
        self._values: dict[str, int] = {}
        self._active: list[str] = []
        self.depth = 0

    def value(self, items: list[CToken], place: int) -> int:
        """Raises ConstantError; `place` is where an empty expression is reported."""
        if not items:
            raise ConstantError("expected a number", place)
        walk = _Walk(items, self)
        value = walk.binary(0)
        if walk.index < len(items):
            walk.fail(f"expected an operator, found {items[walk.index].text!r}")
        return value

    def name(self, token: CToken) -> int:
        """The value of a name: of the source's own definition, computed once, else of `NAMES`."""
        name = token.text
        if name in self._values:
            return self._values[name]
        if name not in self._defines:
            if name not in NAMES:
                raise ConstantError(f"constant {name!r} is not known; write its value or #define it", token.offset)
            return NAMES[name]
        if name in self._active:
            raise ConstantError(f"{name!r} is defined by itself", token.offset)
        self._active.append(name)
        try:
            self._values[name] = self.value(self._defines[name], token.offset)
        except ConstantError as error:
            raise ConstantError(f"{name!r}: {error.reason}", token.offset) from None
        finally:
            self._active.pop()
        return self._values[name]


class _Walk:
    """Recursive descent over one token list."""

    def __init__(self, items: list[CToken], evaluator: Evaluator):
        self.items = items
        self.evaluator = evaluator
        self.index = 0

    def fail(self, reason: str) -> NoReturn:
        last = self.items[min(self.index, len(self.items) - 1)]
        raise ConstantError(reason, last.offset)

    def next_is(self, *texts: str) -> bool:
        return self.index < len(self.items) and self.items[self.index].text in texts

    def take(self) -> CToken:
        if self.index >= len(self.items):
            self.fail("the expression ends too early")
        self.index += 1
        return self.items[self.index - 1]

    def binary(self, level: int) -> int:
        if level == len(_LEVELS):
            return self.unary()
        value = self.binary(level + 1)
        while self.next_is(*_LEVELS[level]):
            operator = self.take()
            value = self.apply(operator, value, self.binary(level + 1))
        return value

    def apply(self, operator: CToken, left: int, right: int) -> int:
        if operator.text in ("/", "%") and not right:
            raise ConstantError("division by zero", operator.offset)
        if operator.text in ("<<", ">>") and not 0 <= right < 64:
            raise ConstantError(f"cannot shift by {right}", operator.offset)
        value = _OPERATIONS[operator.text](left, right)
        if abs(value) >= 1 << 64:
            raise ConstantError("the value does not fit into 64 bits", operator.offset)
        return value

    def unary(self) -> int:
        self.evaluator.depth += 1
        try:
            if self.evaluator.depth > _MAX_DEPTH:
                self.fail("the expression is nested too deeply")
            token = self.take()
            if token.text in ("-", "+", "~", "!"):
                value = self.unary()
                return {"-": -value, "+": value, "~": ~value, "!": int(not value)}[token.text]
            return self.bracket() if token.text == "(" else self.atom(token)
        finally:
            self.evaluator.depth -= 1

    def bracket(self) -> int:
        """What follows `(`: a cast or an expression."""
        end = self.index
        while end < len(self.items) and self.items[end].kind == "word":
            end += 1
        words = [item.text for item in self.items[self.index : end]]
        if words and end < len(self.items) and self.items[end].text == ")" and (bits := _cast_bits(words)):
            self.index = end + 1
            value = self.unary()
            mask = (1 << abs(bits)) - 1
            value &= mask
            return value - (mask + 1) if bits < 0 and value > mask >> 1 else value
        value = self.binary(0)
        if not self.next_is(")"):
            self.fail("expected ')'")
        self.take()
        return value

    def atom(self, token: CToken) -> int:
        if token.kind == "number":
            return _integer(token)
        if token.kind == "char":
            inner = token.text[1:-1]
            if inner[0] == "\\":
                if inner[1] not in _ESCAPES:
                    raise ConstantError(f"character {token.text} is not understood", token.offset)
                return _ESCAPES[inner[1]]
            return ord(inner)
        if token.kind != "word":
            raise ConstantError(f"expected a number, found {token.text!r}", token.offset)
        if token.text == "sizeof" or self.next_is("("):
            raise ConstantError(f"{token.text}() needs a compiler; write its value", token.offset)
        return self.evaluator.name(token)


def _cast_bits(words: list[str]) -> int:
    """Bits of an integer type, negative for a signed one; 0 where the words are none."""
    if len(words) == 1 and words[0] in _CASTS:
        return _CASTS[words[0]]
    if not set(words) <= _BASE_TYPES:
        return 0
    bits = 8 if "char" in words else 16 if "short" in words else 64 if "long" in words else 32
    return bits if "unsigned" in words else -bits


def _integer(token: CToken) -> int:
    match = TOKEN.fullmatch(token.text)
    assert match is not None
    digits, suffix = match["number"], match["suffix"]
    if not re.fullmatch(r"[uUlL]*", suffix) or len(digits) > 70:
        raise ConstantError(f"{token.text[:40]!r} is not a number", token.offset)
    base = {"0x": 16, "0b": 2}.get(digits[:2].lower(), 8 if digits[0] == "0" else 10)
    try:
        value = int(digits, base)
    except ValueError:
        raise ConstantError(f"{token.text!r} is not a number", token.offset) from None
    if value >= 1 << 64:
        raise ConstantError(f"number {token.text[:40]} does not fit into 64 bits", token.offset)
    return value
