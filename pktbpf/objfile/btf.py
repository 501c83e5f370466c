"""BTF, the kernel's type format (Documentation/bpf/btf.rst): all kinds, parsed when asked for.

`Btf.parse` checks the header and walks the type records once; `type(id)` decodes one record and keeps it. A damaged
table ends in ObjectError, also when found late. Names and layouts are those of uapi linux/btf.h.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from pktbpf.errors import ObjectError
from pktbpf.objfile.elf import printable

MAGIC = 0xEB9F
MAX_DEPTH = 64  # of typedefs and nested types; the kernel allows 32
_HEADER = struct.Struct("<HBBIIIII")
_RECORD = struct.Struct("<III")


class BtfKind(enum.IntEnum):
    """BTF_KIND_* of uapi linux/btf.h."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


MODIFIERS = frozenset({BtfKind.TYPEDEF, BtfKind.VOLATILE, BtfKind.CONST, BtfKind.RESTRICT, BtfKind.TYPE_TAG})
COMPOSITES = frozenset({BtfKind.STRUCT, BtfKind.UNION})
ENUMS = frozenset({BtfKind.ENUM, BtfKind.ENUM64})
_SIZED = frozenset(
    {BtfKind.INT, BtfKind.STRUCT, BtfKind.UNION, BtfKind.ENUM, BtfKind.DATASEC, BtfKind.FLOAT, BtfKind.ENUM64}
)
# Bytes after the 12 of every record: (fixed, for each of vlen).
_TAIL: dict[int, tuple[int, int]] = {
    BtfKind.INT: (4, 0),
    BtfKind.ARRAY: (12, 0),
    BtfKind.STRUCT: (0, 12),
    BtfKind.UNION: (0, 12),
    BtfKind.ENUM: (0, 8),
    BtfKind.FUNC_PROTO: (0, 8),
    BtfKind.VAR: (4, 0),
    BtfKind.DATASEC: (0, 12),
    BtfKind.DECL_TAG: (4, 0),
    BtfKind.ENUM64: (0, 12),
}


@dataclass(frozen=True, slots=True)
class Member:
    """A field of a struct or union. bit_size: 0 for one that is no bit field."""

    name: str
    type: int
    bit_offset: int
    bit_size: int = 0


@dataclass(frozen=True, slots=True)
class Enumerator:
    """A name of an enum and its value."""

    name: str
    value: int


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of a function prototype; type 0 ends a variadic one."""

    name: str
    type: int


@dataclass(frozen=True, slots=True)
class SectionVariable:
    """Where a data section has a variable: the id of its VAR, byte offset and size."""

    type: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class BtfType:
    """One type record.

    flag: the record's kind_flag (bit fields in a struct, a signed enum, a union behind FWD). size: bytes, of kinds that
    have one. ref: the type id a record points to (pointer target, element, return type, ...). count: array length.
    encoding, bits, bit_offset: of INT (1 signed, 2 char, 4 bool). linkage: of VAR and FUNC (0 static, 1 global,
    2 extern). component: of DECL_TAG.
    """

    id: int
    kind: BtfKind
    name: str
    flag: bool = False
    size: int = 0
    ref: int = 0
    members: tuple[Member, ...] = ()
    values: tuple[Enumerator, ...] = ()
    params: tuple[Param, ...] = ()
    variables: tuple[SectionVariable, ...] = ()
    index: int = 0
    count: int = 0
    encoding: int = 0
    bits: int = 0
    bit_offset: int = 0
    linkage: int = 0
    component: int = 0

    @property
    def signed(self) -> bool:
        """Whether an INT or enum is signed."""
        return self.flag if self.kind in ENUMS else bool(self.encoding & 1)


_VOID = BtfType(0, BtfKind.VOID, "void")


@dataclass(frozen=True, slots=True)
class Btf:
    """A table of types. raw: the section's bytes. starts: offset of each type's record in raw, type 1 first."""

    raw: bytes = field(repr=False)
    origin: str
    starts: tuple[int, ...] = field(repr=False)
    strings: bytes = field(repr=False)
    _types: dict[int, BtfType] = field(default_factory=dict, repr=False, compare=False)
    _names: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def parse(cls, raw: bytes, origin: str = ".BTF") -> Btf:
        """From the bytes of a .BTF section or of /sys/kernel/btf/vmlinux. Raises ObjectError."""
        if len(raw) < _HEADER.size:
            raise ObjectError("BTF is shorter than its header", section=origin)
        magic, version, _, header, type_off, type_len, str_off, str_len = _HEADER.unpack_from(raw)
        if magic != MAGIC:
            swapped = magic == int.from_bytes(MAGIC.to_bytes(2, "little"), "big")
            raise ObjectError("big-endian BTF" if swapped else f"BTF magic is {magic:#06x}", section=origin)
        if version != 1:
            raise ObjectError(f"BTF version {version} is not 1", section=origin)
        types, strings = header + type_off, header + str_off
        if header < _HEADER.size or types + type_len > len(raw) or strings + str_len > len(raw) or not str_len:
            raise ObjectError("BTF header points past the end", section=origin)
        text = raw[strings : strings + str_len]
        if text[0] or text[-1]:
            raise ObjectError("BTF strings do not begin and end with NUL", section=origin)
        return cls(raw, origin, _starts(raw, types, types + type_len, origin), text)

    def __len__(self) -> int:
        return len(self.starts) + 1

    def type(self, number: int) -> BtfType:
        """The type with this id; 0 is void. ObjectError for an id that is not there."""
        if number == 0:
            return _VOID
        known = self._types.get(number)
        if known is None:
            if number > len(self.starts):
                raise ObjectError(f"type id {number} is not in the table of {len(self)}", section=self.origin)
            known = self._types[number] = self._decode(number)
        return known

    def types(self) -> Iterator[BtfType]:
        """All types in order of their ids, void left out."""
        return (self.type(number) for number in range(1, len(self)))

    def string(self, offset: int) -> str:
        """The string at an offset of the string section."""
        if offset >= len(self.strings):
            raise ObjectError(f"string offset {offset} is past the end", section=self.origin)
        return self.strings[offset : self.strings.index(0, offset)].decode("utf-8", "replace")

    def name(self, offset: int) -> str:
        """The string at an offset as a name, fit to stand in a message."""
        return printable(self.string(offset))

    def resolve(self, number: int) -> BtfType:
        """The type behind typedefs, const, volatile, restrict and type tags."""
        for _ in range(MAX_DEPTH):
            found = self.type(number)
            if found.kind not in MODIFIERS:
                return found
            number = found.ref
        raise ObjectError(f"type {number} never ends", section=self.origin)

    def size_of(self, number: int) -> int:
        """Bytes of a value of this type; ObjectError for void, functions and forward declarations."""
        scale = 1
        for _ in range(MAX_DEPTH):
            found = self.resolve(number)
            if found.kind is BtfKind.PTR:
                return 8 * scale
            if found.kind is BtfKind.ARRAY:
                scale *= found.count
                number = found.ref
            elif found.kind is BtfKind.VAR:
                number = found.ref
            elif found.kind in _SIZED:
                return found.size * scale
            else:
                raise ObjectError(f"a {found.kind.name} ({found.name or 'anonymous'}) has no size", section=self.origin)
        raise ObjectError(f"array type {number} never ends", section=self.origin)

    def by_name(self, name: str) -> tuple[int, ...]:
        """Ids of all types that have this name."""
        if not self._names:
            index: dict[str, list[int]] = {}
            for number, start in enumerate(self.starts, 1):
                (offset,) = struct.unpack_from("<I", self.raw, start)
                if offset:
                    index.setdefault(self.name(offset), []).append(number)
            self._names.update((key, tuple(ids)) for key, ids in index.items())
        return self._names.get(name, ())

    def names(self) -> Iterator[str]:
        """All names of types."""
        self.by_name("")
        return iter(self._names)

    def find(self, name: str, *kinds: BtfKind) -> BtfType | None:
        """The first type of this name and one of the kinds."""
        return next((t for t in map(self.type, self.by_name(name)) if t.kind in kinds), None)

    def _decode(self, number: int) -> BtfType:
        start = self.starts[number - 1]
        name_off, info, word = _RECORD.unpack_from(self.raw, start)
        kind, vlen, flag = BtfKind(info >> 24 & 0x1F), info & 0xFFFF, bool(info >> 31)
        name = self.name(name_off)
        at = start + _RECORD.size
        match kind:
            case BtfKind.INT:
                (data,) = struct.unpack_from("<I", self.raw, at)
                return BtfType(
                    number,
                    kind,
                    name,
                    flag,
                    word,
                    encoding=data >> 24 & 15,
                    bit_offset=data >> 16 & 255,
                    bits=data & 255,
                )
            case BtfKind.ARRAY:
                element, index, count = struct.unpack_from("<III", self.raw, at)
                return BtfType(number, kind, name, flag, ref=element, index=index, count=count)
            case BtfKind.STRUCT | BtfKind.UNION:
                return BtfType(number, kind, name, flag, word, members=tuple(self._members(at, vlen, flag)))
            case BtfKind.ENUM | BtfKind.ENUM64:
                return BtfType(number, kind, name, flag, word, values=tuple(self._values(kind, at, vlen, flag)))
            case BtfKind.FUNC_PROTO:
                params = struct.iter_unpack("<II", self.raw[at : at + 8 * vlen])
                return BtfType(
                    number, kind, name, flag, ref=word, params=tuple(Param(self.name(n), t) for n, t in params)
                )
            case BtfKind.VAR:
                return BtfType(number, kind, name, flag, ref=word, linkage=struct.unpack_from("<I", self.raw, at)[0])
            case BtfKind.DATASEC:
                entries = struct.iter_unpack("<III", self.raw[at : at + 12 * vlen])
                return BtfType(number, kind, name, flag, word, variables=tuple(SectionVariable(*e) for e in entries))
            case BtfKind.DECL_TAG:
                component = struct.unpack_from("<i", self.raw, at)[0]
                return BtfType(number, kind, name, flag, ref=word, component=component)
            case BtfKind.FUNC:
                return BtfType(number, kind, name, flag, ref=word, linkage=vlen)
            case BtfKind.FLOAT:
                return BtfType(number, kind, name, flag, word)
        return BtfType(number, kind, name, flag, ref=word)

    def _members(self, at: int, count: int, flag: bool) -> Iterator[Member]:
        for name, kind, offset in struct.iter_unpack("<III", self.raw[at : at + 12 * count]):
            bits = offset >> 24 if flag else 0
            yield Member(self.name(name), kind, offset & 0xFFFFFF if flag else offset, bits)

    def _values(self, kind: BtfKind, at: int, count: int, signed: bool) -> Iterator[Enumerator]:
        if kind is BtfKind.ENUM:
            for name, value in struct.iter_unpack("<Ii" if signed else "<II", self.raw[at : at + 8 * count]):
                yield Enumerator(self.name(name), value)
        else:
            for name, low, high in struct.iter_unpack("<IIi" if signed else "<III", self.raw[at : at + 12 * count]):
                yield Enumerator(self.name(name), high << 32 | low)


def _starts(raw: bytes, at: int, end: int, origin: str) -> tuple[int, ...]:
    starts: list[int] = []
    while at < end:
        if at + _RECORD.size > end:
            raise ObjectError(f"type {len(starts) + 1} is cut off", section=origin)
        info = int.from_bytes(raw[at + 4 : at + 8], "little")
        kind = info >> 24 & 0x1F
        if not 0 < kind <= BtfKind.ENUM64:
            raise ObjectError(f"type {len(starts) + 1} is of unknown kind {kind}", section=origin)
        starts.append(at)
        fixed, each = _TAIL.get(kind, (0, 0))
        at += _RECORD.size + fixed + each * (info & 0xFFFF)
        if at > end:
            raise ObjectError(f"type {len(starts)} is cut off", section=origin)
    return tuple(starts)
