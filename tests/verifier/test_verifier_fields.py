# ruff: noqa: E501
"""Special fields of map values, from BTF: which the kernel sees, and when one wrong field makes it forget them all."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable

import pytest
from verifier_oracle import NUMBERS, _bpf, load, parse
from verifier_types import CONST, PTR, TYPE_TAG, TYPEDEF, UNION, Types

from pktbpf.isa.extended import Insn
from pktbpf.objfile.btf import Btf
from pktbpf.objfile.btf_fields import value_fields

Member = tuple[str, int, int]


class Made:
    """Types that the rows below put together."""

    def __init__(self) -> None:
        t = self.types = Types()
        self.int = t.integer("int", 4, 1)
        self.u64 = t.integer("u64", 8)
        self.u32 = t.integer("u32", 4)
        pair = (("a", self.u64, 0), ("b", self.u64, 8))
        self.timer = t.composite("bpf_timer", 16, *pair)
        self.long_timer = t.composite("bpf_timer", 24, *pair, ("c", self.u64, 16))
        self.task = t.composite("task_struct", 8, ("a", self.u64, 0))
        self.mask = t.composite("bpf_cpumask", 8, ("a", self.u64, 0))
        self.either = t.composite("either", 8, ("a", self.u64, 0), kind=UNION)

    def value(self, size: int, *members: Member, kind: int = 4) -> int:
        return self.types.composite("value", size, *members, kind=kind)

    def kptr(self, to: int, tag: str = "kptr") -> int:
        return self.types.tagged(tag, to)


def inner(m: Made) -> int:
    return m.types.composite("inner", 24, ("t", m.timer, 0), ("x", m.u64, 16))


def held(m: Made) -> int:
    return m.types.composite("held", 16, ("a", m.kptr(m.task), 0), ("x", m.u64, 8))


def over(m: Made) -> int:
    return m.types.composite("over", 8, ("a", m.kptr(m.task), 0), ("x", m.u64, 0), kind=UNION)


# name -> (how the value is made, (kind, offset) of what is seen)
ROWS: dict[str, tuple[Callable[[Made], int], tuple[tuple[str, int], ...]]] = {
    "timer": (lambda m: m.value(24, ("t", m.timer, 0), ("x", m.u64, 16)), (("timer", 0),)),
    "two timers": (lambda m: m.value(40, ("t", m.timer, 0), ("u", m.timer, 16), ("x", m.u64, 32)), ()),
    "array of timers": (lambda m: m.value(40, ("t", m.types.array(m.timer, 2), 0), ("x", m.u64, 32)), ()),
    "a timer of another size": (lambda m: m.value(32, ("t", m.long_timer, 0), ("x", m.u64, 24)), ()),
    "timer behind a typedef": (lambda m: m.value(24, ("t", m.types.add(TYPEDEF, "tt", m.timer), 0), ("x", m.u64, 16)), ()),
    "nested timer": (lambda m: m.value(40, ("x", m.u64, 0), ("i", inner(m), 8), ("y", m.u64, 32)), (("timer", 8),)),
    "array of nested timers": (lambda m: m.value(48, ("i", m.types.array(inner(m), 2), 0)), ()),
    "pointer": (lambda m: m.value(16, ("p", m.kptr(m.task), 0), ("x", m.u64, 8)), (("kptr", 0),)),
    "unowned pointer": (lambda m: m.value(16, ("p", m.kptr(m.task, "kptr_untrusted"), 8)), (("kptr_untrusted", 8),)),
    "pointer to const": (
        lambda m: m.value(16, ("p", m.types.add(PTR, size=m.types.add(TYPE_TAG, "kptr", m.types.add(CONST, size=m.task))), 0)),
        (("kptr", 0),)),
    "const pointer": (lambda m: m.value(16, ("p", m.types.add(CONST, size=m.kptr(m.mask)), 0), ("x", m.u64, 8)), ()),
    "unknown tag": (lambda m: m.value(16, ("p", m.kptr(m.task, "other"), 0), ("x", m.u64, 8)), ()),
    "two tags": (
        lambda m: m.value(16, ("p", m.types.add(PTR, size=m.types.add(TYPE_TAG, "kptr", m.types.add(TYPE_TAG, "kptr", m.task))), 0)),
        ()),
    "pointer to a number": (lambda m: m.value(16, ("p", m.kptr(m.int), 0), ("x", m.u64, 8)), ()),
    "pointer to a union": (lambda m: m.value(16, ("p", m.kptr(m.either), 0), ("x", m.u64, 8)), ()),
    "array of nested pointers": (
        lambda m: m.value(40, ("x", m.u64, 0), ("i", m.types.array(held(m), 2), 8)), (("kptr", 8), ("kptr", 24))),
    "eleven pointers": (
        lambda m: m.value(88, ("p", m.types.array(m.kptr(m.task), 11), 0)), tuple(("kptr", 8 * n) for n in range(11))),
    "twelve pointers": (lambda m: m.value(96, ("p", m.types.array(m.kptr(m.task), 12), 0)), ()),
    "in a union": (lambda m: m.value(24, ("u", over(m), 0), ("x", m.u64, 16)), ()),
    "union value": (lambda m: m.value(16, ("t", m.timer, 0), kind=UNION), ()),
    "plain pointer": (lambda m: m.value(24, ("p", m.types.pointer(m.task), 0), ("q", m.kptr(m.task), 8)), (("kptr", 8),)),
}  # fmt: skip


def made(name: str) -> tuple[bytes, int]:
    m = Made()
    number = ROWS[name][0](m)
    return m.types.blob(), number


@pytest.mark.parametrize("name", ROWS)
def test_fields_of_a_value(name: str) -> None:
    raw, number = made(name)
    assert tuple((item.kind, item.offset) for item in value_fields(Btf.parse(raw), number)) == ROWS[name][1]


def refused_bytes(fd: int, size: int) -> set[int]:
    """Offsets of 4-byte words that a program must not load."""
    found = set()
    for offset in range(0, size, 4):
        code = (Insn(0x62, 10, 0, -4, 0), Insn(0x18, 1, 1, 0, fd), Insn(0), Insn(0xBF, 2, 10), Insn(7, 2, 0, 0, -4),
                Insn(0x85, 0, 0, 0, 1), Insn(0x15, 0, 0, 1, 0), Insn(0x61, 1, 0, offset), Insn(0xB7), Insn(0x95))  # fmt: skip
        if parse(*load(b"".join(insn.encode() for insn in code))).errno:
            found.add(offset)
    return found


@pytest.mark.kernel
@pytest.mark.parametrize("name", ROWS)
def test_kernel_sees_the_same_fields(name: str) -> None:
    if os.geteuid():
        pytest.skip("loading types needs root")
    raw, number = made(name)
    types = Btf.parse(raw)
    buffer = ctypes.create_string_buffer(raw, len(raw))
    table = _bpf(18, struct.pack("<QQI", ctypes.addressof(buffer), 0, len(raw)))
    assert table >= 0, os.strerror(-table)
    attr = bytearray(168)
    size = types.size_of(number)
    struct.pack_into("<IIIIII", attr, 0, NUMBERS["ARRAY"], 4, size, 2, 0, 0)
    struct.pack_into("<III", attr, 48, table, next(t.id for t in types.types() if t.name == "int"), number)
    fd = _bpf(0, bytes(attr))
    try:
        assert fd >= 0, os.strerror(-fd)
        wanted = {word for item in value_fields(types, number) for word in range(item.offset, item.offset + item.size, 4)}
        assert refused_bytes(fd, size) == wanted
    finally:
        for descriptor in (fd, table):
            if descriptor >= 0:
                os.close(descriptor)
