"""A small kernel: types made by hand that have what a kernel built by another compiler would have, type tags."""

from __future__ import annotations

import struct

from pktbpf.objfile.btf import Btf, BtfKind, BtfType, Member, SectionVariable


class Types:
    """A table of types that grows; see pktbpf.verifier.kernel_types.KernelTypes."""

    def __init__(self) -> None:
        self.records = [BtfType(0, BtfKind.VOID, "void")]

    def add(self, kind: BtfKind, name: str = "", **fields: object) -> int:
        """A new type; its number."""
        self.records.append(BtfType(len(self.records), kind, name, **fields))  # type: ignore[arg-type]
        return len(self.records) - 1

    def struct(self, name: str, size: int, *members: tuple[str, int, float], kind: BtfKind = BtfKind.STRUCT) -> int:
        """A structure of (name, type, byte offset); an offset of n.05 is a bit field of 5 bits at n."""
        made = [Member(n, t, int(at) * 8, round(at % 1 * 100)) for n, t, at in members]
        return self.add(kind, name, flag=any(m.bit_size for m in made), size=size, members=tuple(made))

    def pointer(self, target: int, tag: str = "") -> int:
        """A pointer, perhaps with a type tag."""
        return self.add(BtfKind.PTR, ref=self.add(BtfKind.TYPE_TAG, tag, ref=target) if tag else target)

    def array(self, element: int, count: int) -> int:
        """An array."""
        return self.add(BtfKind.ARRAY, ref=element, index=1, count=count)

    def per_cpu(self, **variables: int) -> None:
        """The section of per-CPU variables: name and type of each."""
        made = [self.add(BtfKind.VAR, name, ref=kind, linkage=1) for name, kind in variables.items()]
        places = tuple(SectionVariable(number, 64 * at, 8) for at, number in enumerate(made))
        self.add(BtfKind.DATASEC, ".data..percpu", size=64 * len(made), variables=places)

    def type(self, number: int) -> BtfType:
        """The type with this id."""
        return self.records[number]

    def by_name(self, name: str) -> tuple[int, ...]:
        """Ids of all types of this name."""
        return tuple(one.id for one in self.records if one.name == name and one.id)

    def __len__(self) -> int:
        return len(self.records)

    def btf(self) -> Btf:
        """The same as real BTF, by way of its bytes."""
        strings, records = bytearray(1), b""
        for one in self.records[1:]:
            name = _string(strings, one.name)
            tail, count = _tail(one, strings)
            info = int(one.flag) << 31 | one.kind << 24 | count
            records += struct.pack("<III", name, info, one.size or one.ref) + tail
        return Btf.parse(
            struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(records), len(records), len(strings)) + records + strings
        )


def _string(strings: bytearray, text: str) -> int:
    if not text:
        return 0
    strings += text.encode() + b"\0"
    return len(strings) - len(text) - 1


def _tail(one: BtfType, strings: bytearray) -> tuple[bytes, int]:
    """What follows the record of a type, and how many there are of it."""
    match one.kind:
        case BtfKind.INT:
            return struct.pack("<I", one.encoding << 24 | one.bits), 0
        case BtfKind.ARRAY:
            return struct.pack("<III", one.ref, one.index, one.count), 0
        case BtfKind.STRUCT | BtfKind.UNION:
            places = (m.bit_size << 24 | m.bit_offset for m in one.members)
            parts = [struct.pack("<III", _string(strings, m.name), m.type, at)
                     for m, at in zip(one.members, places, strict=True)]  # fmt: skip
            return b"".join(parts), len(parts)
        case BtfKind.VAR:
            return struct.pack("<I", one.linkage), 0
        case BtfKind.DATASEC:
            entries = [struct.pack("<III", v.type, v.offset, v.size) for v in one.variables]
            return b"".join(entries), len(entries)
    return b"", 0


def sample() -> Types:
    """What the tables of the tests read."""
    types = Types()
    integer = types.add(BtfKind.INT, "int", size=4, bits=32, encoding=1)
    byte = types.add(BtfKind.INT, "char", size=1, bits=8)
    point = types.struct("point", 8, ("x", integer, 0), ("y", integer, 4))
    alias = types.add(BtfKind.TYPEDEF, "point_t", ref=types.add(BtfKind.CONST, ref=point))
    either = types.struct("", 8, ("one", types.pointer(point), 0), ("other", integer, 0), kind=BtfKind.UNION)
    cell = types.struct("cell", 16, ("next", types.pointer(point), 0), ("n", integer, 8))
    types.struct("grid", 24, ("n", integer, 0), ("tail", types.array(cell, 0), 8))
    types.struct("text", 4, ("n", integer, 0), ("tail", types.array(byte, 0), 4))
    types.struct(
        "task_struct", 160, ("at", alias, 0), ("grid", types.array(types.array(alias, 2), 2), 8),
        ("bits", integer, 40.03), ("more", integer, 40.05), ("name", types.array(byte, 5), 44), ("either", either, 56),
        ("words", types.array(types.pointer(cell), 2), 64), ("user", types.pointer(cell, "user"), 80),
        ("percpu", types.pointer(cell, "percpu"), 88), ("rcu", types.pointer(cell, "rcu"), 96),
        ("parent", types.pointer(cell), 104), ("owner", types.pointer(cell), 112), ("file", types.pointer(cell), 120),
        ("inode", types.pointer(cell), 128), ("plain", types.pointer(cell), 136), ("data", types.pointer(0), 144),
        ("forward", types.add(BtfKind.FWD, "unknown"), 152),
    )  # fmt: skip
    safe = {"rcu": "parent", "rcu_or_null": "owner", "trusted": "file", "trusted_or_null": "inode"}
    for suffix, field in safe.items():
        types.struct(f"task_struct__safe_{suffix}", 8, (field, types.pointer(cell), 0))
    queue = types.struct("rq", 32, ("lock", integer, 0), ("nr_running", integer, 8), ("cpu", integer, 24))
    types.per_cpu(
        counter=integer, numbers=types.array(integer, 3), here=cell, there=alias, current_cell=types.pointer(cell),
        bpf_prog_active=integer, runqueues=queue,
    )  # fmt: skip
    types.add(BtfKind.VAR, "total", ref=integer, linkage=1)
    types.add(BtfKind.VAR, "origin", ref=cell, linkage=1)
    types.add(BtfKind.FUNC, "kernel_function", ref=types.add(BtfKind.FUNC_PROTO))
    return types
