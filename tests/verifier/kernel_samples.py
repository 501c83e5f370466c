"""A small kernel: types made by hand that have what a kernel built by another compiler would have, type tags."""

from __future__ import annotations

from pktbpf.objfile.btf import BtfKind, BtfType, Member


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
        return self.add(kind, name, size=size, members=tuple(made))

    def pointer(self, target: int, tag: str = "") -> int:
        """A pointer, perhaps with a type tag."""
        return self.add(BtfKind.PTR, ref=self.add(BtfKind.TYPE_TAG, tag, ref=target) if tag else target)

    def array(self, element: int, count: int) -> int:
        """An array."""
        return self.add(BtfKind.ARRAY, ref=element, count=count)

    def type(self, number: int) -> BtfType:
        """The type with this id."""
        return self.records[number]

    def by_name(self, name: str) -> tuple[int, ...]:
        """Ids of all types of this name."""
        return tuple(one.id for one in self.records if one.name == name and one.id)

    def __len__(self) -> int:
        return len(self.records)


def sample() -> Types:
    """What the table in test_verifier_objects reads."""
    types = Types()
    integer = types.add(BtfKind.INT, "int", size=4, bits=32)
    byte = types.add(BtfKind.INT, "char", size=1, bits=8)
    point = types.struct("point", 8, ("x", integer, 0), ("y", integer, 4))
    alias = types.add(BtfKind.TYPEDEF, "point_t", ref=types.add(BtfKind.CONST, ref=point))
    either = types.struct(
        "", 8, ("one", types.pointer(point), 0), ("other", integer, 0), kind=BtfKind.UNION
    )
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
    return types
