"""The kernel's own types as the verifier reads them: what lies at a place of a structure, and what is inside what.

`KernelTypes` is what a parser of BTF has to offer; `Kernel` answers the verifier's questions about one kernel's types.
Mirrors btf_struct_access, btf_struct_walk, btf_struct_ids_match and btf_nested_type_is_trusted.
"""

from __future__ import annotations

import errno
from collections.abc import Container, Sequence
from typing import NamedTuple, Protocol

from pktbpf.verifier.errors import Refusal, denied, invalid, refuse
from pktbpf.verifier.state import PERCPU, RCU, UNTRUSTED, USER

# BTF_KIND_* of uapi linux/btf.h.
INT, PTR, ARRAY, STRUCT, UNION, ENUM = range(1, 7)
TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(8, 20)
_MODIFIERS = (TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG)
_SIZED = (INT, STRUCT, UNION, ENUM, FLOAT, ENUM64)
_MAX_DEPTH = 32
_TAGS = {"user": USER, "percpu": PERCPU, "rcu": RCU}


class MemberRecord(Protocol):
    """A field of a structure. bit_size: 0 for one that is no bit field."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> int: ...
    @property
    def bit_offset(self) -> int: ...
    @property
    def bit_size(self) -> int: ...


class SectionRecord(Protocol):
    """A variable of a data section: the id of its VAR."""

    @property
    def type(self) -> int: ...


class TypeRecord(Protocol):
    """One type. ref: the type that it points to or stands for. count: elements of an array."""

    @property
    def id(self) -> int: ...
    @property
    def kind(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def flag(self) -> bool: ...
    @property
    def size(self) -> int: ...
    @property
    def ref(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def members(self) -> Sequence[MemberRecord]: ...
    @property
    def variables(self) -> Sequence[SectionRecord]: ...


class KernelTypes(Protocol):
    """A kernel's BTF: pktbpf.objfile.btf.Btf, or anything like it."""

    def type(self, number: int) -> TypeRecord:
        """The type with this id, 0 being void."""

    def by_name(self, name: str) -> Sequence[int]:
        """Ids of all types of this name, lowest first."""

    def __len__(self) -> int:
        """How many types there are, void among them."""


class Found(NamedTuple):
    """What lies at a place: "scalar", "pointer" to the structure `id`, "memory" (a pointer to anything else), or
    "struct" (the structure `id` itself). flags: what type tags and unions say of a pointer. field: its name."""

    what: str
    id: int = 0
    flags: int = 0
    field: str = ""


def _text(named: TypeRecord | MemberRecord) -> str:
    """A name in messages about places in structures."""
    return named.name or "(anon)"


def _endless() -> Refusal:
    """For types that damage has led into a circle."""
    return Refusal(errno.EOPNOTSUPP, "cannot be judged offline: a type of the kernel that never ends", unsupported=True)


class Kernel:
    """One kernel's types, with what was asked before. symbols: names it knows addresses of, None for all."""

    def __init__(self, types: KernelTypes, symbols: Container[str] | None = None):
        self.types = types
        self.symbols = symbols
        self._ids: dict[tuple[str, tuple[int, ...]], int] = {}
        self._accesses: dict[tuple[int, int, int], Found] = {}

    def find(self, name: str, *kinds: int) -> int:
        """Id of the first type with that name and one of the kinds, 0 if there is none."""
        key = name, kinds
        if key not in self._ids:
            self._ids[key] = next((n for n in self.types.by_name(name) if self.types.type(n).kind in kinds), 0)
        return self._ids[key]

    def struct(self, name: str) -> int:
        """Id of the structure or union called `name`, 0 if there is none."""
        return self.find(name, STRUCT, UNION)

    def function(self, number: int) -> str:
        """Name of the function with this id, empty for anything else."""
        if number >= len(self.types):
            return ""
        record = self.types.type(number)
        return record.name if record.kind == FUNC else ""

    def variable(self, number: int) -> str:
        """Name of the variable or function with this id, empty for anything else and where the name means another."""
        if number >= len(self.types) or self.types.type(number).kind not in (VAR, FUNC):
            return ""
        name = self.types.type(number).name
        return name if self.find(name, VAR, FUNC) == number else ""

    def named(self, number: int) -> tuple[str, int]:
        """A structure as registers hold it: its name, and its id where the name alone would mean another."""
        name = self.types.type(number).name
        return name, 0 if name and self.struct(name) == number else number

    def resolve(self, number: int) -> TypeRecord:
        """The type behind typedefs, qualifiers and tags."""
        for _ in range(_MAX_DEPTH):
            record = self.types.type(number)
            if record.kind not in _MODIFIERS:
                return record
            number = record.ref
        raise _endless()

    # ---- places in structures

    def access(self, number: int, offset: int, size: int) -> Found:
        """What `size` bytes at `offset` of the structure are. Fails in the kernel's words."""
        key = number, offset, size
        known = self._accesses.get(key)
        if known is None:
            known = self._accesses[key] = self._descend(number, offset, size, -1)
        return known

    def contains(self, number: int, offset: int, wanted: int) -> tuple[bool, tuple[str, ...]]:
        """Whether the structure `wanted` lies at `offset` of another, and what the kernel's log says on the way."""
        if not offset and number == wanted:
            return True, ()
        try:
            found = self._descend(number, offset, 1, wanted)
        except Refusal as problem:
            if problem.unsupported:
                raise
            return False, problem.lines
        return found.what == "struct", ()

    def _descend(self, number: int, offset: int, size: int, wanted: int) -> Found:
        """Down through nested structures to what is none, or to the one that is wanted."""
        found = self._walk(number, offset, size, 0)
        for _ in range(_MAX_DEPTH):
            if found.what != "struct" or found.id == wanted:
                return found
            found = self._walk(found.id, 0, size, found.flags)
        raise _endless()

    def _walk(self, number: int, offset: int, size: int, flags: int) -> Found:
        """One step down, or several where `offset` lies inside nested structures."""
        record = self.resolve(number)
        for _ in range(_MAX_DEPTH):
            if record.kind not in (STRUCT, UNION):
                invalid(f"Type '{_text(record)}' is not a struct")
            if record.kind == UNION and len(record.members) != 1:
                flags |= UNTRUSTED
            if offset + size > record.size:
                element, start = self._tail(record, offset, size)
                if element.kind == INT:
                    return Found("scalar", flags=flags)
                record, offset = element, (offset - start) % element.size
                continue
            inner = self._member(record, offset, size, flags)
            if isinstance(inner, Found):
                return inner
            record, offset = inner
        raise _endless()

    def _tail(self, record: TypeRecord, offset: int, size: int) -> tuple[TypeRecord, int]:
        """Element type and first byte of the array of unknown length at the end of a structure."""
        beyond = f"access beyond struct {_text(record)} at off {offset} size {size}"
        if not record.members:
            denied(beyond)
        last = record.members[-1]
        array = self.resolve(last.type)
        start = last.bit_offset // 8
        if array.kind != ARRAY or array.count or offset < start:
            denied(beyond)
        element = self.resolve(array.ref)
        if element.kind != INT and (element.kind not in (STRUCT, UNION) or not element.size):
            denied(beyond)
        return element, start

    def _member(self, record: TypeRecord, offset: int, size: int, flags: int) -> Found | tuple[TypeRecord, int]:
        """The field at `offset`, or the nested structure that it lies inside of and the offset there."""
        for member in record.members:
            start = member.bit_offset // 8
            if offset + size <= start:
                break
            if member.bit_size:
                end = (member.bit_offset + member.bit_size + 7) // 8
                if offset <= start and end <= offset + size:
                    return Found("scalar", flags=flags)
                continue
            if offset < start:
                break
            kind, inner, length, count = self._extent(member)
            end = start + length
            if offset >= end:
                continue
            if kind.kind == ARRAY:
                length //= count
                start += (offset - start) // length * length
                kind = self.resolve(inner)
            if kind.kind in (STRUCT, UNION):
                return Found("struct", inner, flags) if offset == start else (kind, offset - start)
            where = f"in struct {_text(record)} with off {offset} size {size}"
            if kind.kind == PTR:
                if length != size or offset != start:
                    denied(f"cannot access ptr member {_text(member)} with moff {start} {where}")
                return self._pointer(kind, member.name, flags)
            if offset + size > end and not flags & UNTRUSTED:
                denied(f"access beyond the end of member {_text(member)} (mend:{end}) {where}")
            return Found("scalar", flags=flags)
        raise Refusal(errno.EINVAL, f"struct {_text(record)} doesn't have field at offset {offset}")

    def _extent(self, member: MemberRecord) -> tuple[TypeRecord, int, int, int]:
        """(an array, or what is behind the modifiers; id of that or of an element; bytes of all; number of elements)"""
        sized = self._sized(member.type)
        if sized is None:
            refuse(errno.EFAULT, f"field {_text(member)} doesn't have size")
        return sized

    def _sized(self, number: int) -> tuple[TypeRecord, int, int, int] | None:
        record = self.types.type(number)
        array: TypeRecord | None = None
        inner, count = number, 1
        for _ in range(_MAX_DEPTH):
            if record.kind in _SIZED or record.kind == PTR:
                return array or record, inner, count * (8 if record.kind == PTR else record.size), count
            if record.kind == ARRAY:
                array = array or record
                inner = record.ref
                count *= record.count
            elif record.kind not in _MODIFIERS:
                return None
            elif array is None:
                inner = record.ref
            record = self.types.type(record.ref)
        return None

    def _pointer(self, pointer: TypeRecord, field: str, flags: int) -> Found:
        tag = self.types.type(pointer.ref)
        if tag.kind == TYPE_TAG and not tag.flag:
            flags |= _TAGS.get(tag.name, 0)
        target = self.resolve(pointer.ref)
        if target.kind in (STRUCT, UNION):
            return Found("pointer", target.id, flags, field)
        return Found("memory", flags=flags)

    def size_of(self, number: int) -> int | None:
        """Bytes of a type; None for one without size."""
        sized = self._sized(number)
        return None if sized is None else sized[2]

    def per_cpu(self, variable: int) -> bool:
        """Whether every processor has a copy of the variable."""
        section = self.find(".data..percpu", DATASEC)
        return any(entry.type == variable for entry in self.types.type(section).variables)

    # ---- trust

    def lists(self, number: int, suffix: str, field: str, target: int) -> bool:
        """Whether the kernel lists the field of a structure as safe: NAME__safe_rcu and the like hold copies of such
        fields."""
        outer = self.types.type(number)
        safe = self.find(outer.name + suffix, outer.kind)
        if not safe:
            return False
        for member in self.types.type(safe).members:
            pointer = self.types.type(member.type)
            if pointer.kind == PTR and member.name == field and self.resolve(pointer.ref).id == target:
                return True
        return False
