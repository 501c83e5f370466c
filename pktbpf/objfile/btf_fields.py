"""Fields of map values that BTF marks as special: locks, timers, work items, kernel pointers, heads of lists.

`value_fields` gives what the kernel finds in a value's type. Where it finds something wrong with one of them (a unique
field twice, an unknown tag, more than eleven) it forgets them all and the value is plain bytes. Mirrors
btf_parse_fields and btf_find_field.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pktbpf.errors import ObjectError
from pktbpf.objfile.btf import Btf, BtfKind, BtfType
from pktbpf.program import PointedStruct, ValueField

MAX_FIELDS = 11  # BTF_FIELDS_MAX
_MAX_DEPTH = 32
_POINTERS = ("kptr", "kptr_untrusted", "percpu_kptr", "uptr")


@dataclass(frozen=True, slots=True)
class _Row:
    """How a structure of that name is recognised. unique: once per value, never in an array."""

    kind: str
    size: int
    align: int
    unique: bool


_STRUCTS = {
    "bpf_spin_lock": _Row("spin_lock", 4, 4, True),
    "bpf_res_spin_lock": _Row("res_spin_lock", 4, 4, True),
    "bpf_timer": _Row("timer", 16, 8, True),
    "bpf_wq": _Row("wq", 16, 8, True),
    "bpf_task_work": _Row("task_work", 8, 8, True),
    "bpf_list_head": _Row("list_head", 16, 8, False),
    "bpf_rb_root": _Row("rb_root", 16, 8, False),
    "bpf_refcount": _Row("refcount", 4, 4, False),
}
_REPEATED = (*_POINTERS, "list_head", "rb_root")


@dataclass(frozen=True, slots=True)
class OwnTypes:
    """What the verifier asks of the structures that kernel pointers point to."""

    btf: Btf

    def resolve(self, number: int) -> BtfType:
        """The type behind typedefs and modifiers."""
        return self.btf.resolve(number)

    def size_of(self, number: int) -> int:
        """Bytes of a value of the type."""
        return self.btf.size_of(number)

    def fields(self, number: int) -> tuple[ValueField, ...]:
        """The special fields inside."""
        return value_fields(self.btf, number)


class _Unusable(Exception):
    """The kernel takes the value for plain bytes."""


def value_fields(btf: Btf, number: int) -> tuple[ValueField, ...]:
    """The special fields of a value, in order of their offsets; () where the kernel sees none."""
    owner = btf.resolve(number)
    try:
        if owner.kind is BtfKind.DATASEC:
            found = list(_of_section(btf, owner))
        elif owner.kind is BtfKind.STRUCT:
            found = list(_of_struct(btf, owner, 0, 0))
        else:
            return ()
        _check(found)
    except (_Unusable, ObjectError):
        return ()
    return tuple(sorted(found, key=lambda field: field.offset))


def _check(found: list[ValueField]) -> None:
    """What holds for all fields of a value together."""
    kinds = [field.kind for field in found]
    locks = ("spin_lock" in kinds) + ("res_spin_lock" in kinds)
    heads = "list_head" in kinds or "rb_root" in kinds
    end = 0
    for field in found:
        if field.offset < end:
            raise _Unusable
        end = field.offset + field.size
    if len(found) > MAX_FIELDS or locks > 1 or (heads and not locks):
        raise _Unusable


def _of_section(btf: Btf, owner: BtfType) -> Iterator[ValueField]:
    seen: set[str] = set()
    for entry in owner.variables:
        yield from _one(btf, btf.type(btf.type(entry.type).ref), entry.offset, seen, 0, entry.size)


def _of_struct(btf: Btf, owner: BtfType, base: int, depth: int) -> Iterator[ValueField]:
    seen: set[str] = set()
    for member in owner.members:
        if member.bit_offset % 8:
            raise _Unusable
        yield from _one(btf, btf.type(member.type), base + member.bit_offset // 8, seen, depth)


def _one(btf: Btf, found: BtfType, offset: int, seen: set[str], depth: int, room: int = 0) -> Iterator[ValueField]:
    """The fields of one member, which may be an array or hold more. Types behind a typedef or const are not seen."""
    count, dimensions = 1, 0
    while found.kind is BtfKind.ARRAY:
        count, found, dimensions = count * found.count, btf.type(found.ref), dimensions + 1
        if dimensions >= _MAX_DEPTH:
            raise _Unusable
    if not count:
        return
    row = _STRUCTS.get(found.name)
    if row is not None:
        yield from _struct(found, row, offset, count, seen, room)
    elif found.kind is BtfKind.STRUCT:
        if not room or room == found.size * count:
            yield from _nested(btf, found, offset, count, depth)
    elif found.kind is BtfKind.PTR and offset % 8 == 0 and room in (0, 8 * count):
        field = _pointer(btf, found, offset)
        if field is not None:
            yield from _copies([field], 8, count)


def _struct(
    found: BtfType, row: _Row, offset: int, count: int, seen: set[str], room: int
) -> Iterator[ValueField]:
    if row.unique:
        if row.kind in seen:
            raise _Unusable
        seen.add(row.kind)
    if offset % row.align or room not in (0, row.size * count):
        return
    if found.kind is BtfKind.STRUCT and found.size == row.size:
        yield from _copies([ValueField(row.kind, offset, row.size)], row.size, count)


def _nested(btf: Btf, found: BtfType, offset: int, count: int, depth: int) -> Iterator[ValueField]:
    if depth + 1 >= _MAX_DEPTH:
        raise _Unusable
    yield from _copies(list(_of_struct(btf, found, offset, depth + 1)), found.size, count)


def _copies(fields: list[ValueField], stride: int, count: int) -> Iterator[ValueField]:
    """The fields of every element of an array."""
    if count > 1 and any(field.kind not in _REPEATED for field in fields):
        raise _Unusable
    if len(fields) * count > MAX_FIELDS:
        raise _Unusable
    for number in range(count if fields else 0):
        for field in fields:
            yield field._replace(offset=field.offset + number * stride)


def _pointer(btf: Btf, pointer: BtfType, offset: int) -> ValueField | None:
    """A pointer with one known tag, to a structure."""
    tag = btf.type(pointer.ref)
    if tag.kind is not BtfKind.TYPE_TAG:
        return None
    if btf.type(tag.ref).kind is BtfKind.TYPE_TAG or tag.name not in _POINTERS:
        raise _Unusable
    target = btf.resolve(tag.ref)
    if target.kind is not BtfKind.STRUCT:
        raise _Unusable
    return ValueField(tag.name, offset, 8, PointedStruct(target.name, target.id, OwnTypes(btf)))
