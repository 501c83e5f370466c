"""Bytes <-> Python values by BTF type: what variables, keys and values of an object's maps are.

int: int (bool for _Bool); enum: int, read also by name; array of char: str without trailing NULs (surrogateescape, so
nothing is lost); other arrays: list; struct and union: dict by field name, fields of anonymous members lifted up; a
data section: dict by variable; pointer: int; float: float. Little-endian throughout.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pktbpf.errors import ObjectError, UsageError
from pktbpf.objfile.btf import COMPOSITES, ENUMS, MAX_DEPTH, Btf, BtfKind, BtfType, Member

_PATH = re.compile(r"\.?([A-Za-z_$][\w$]*)|\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class DataType:
    """A BTF type as a codec of values. size: bytes of one."""

    btf: Btf
    id: int
    size: int

    @classmethod
    def of(cls, btf: Btf, number: int) -> DataType:
        """The codec of a type id. ObjectError for a type without size."""
        return cls(btf, number, btf.size_of(number))

    def __str__(self) -> str:
        return spell(self.btf, self.id)

    def decode(self, raw: bytes) -> Any:
        """The value that `size` bytes hold. ValueError for another length."""
        if len(raw) != self.size:
            raise ValueError(f"{self} has {self.size} bytes, not {len(raw)}")
        return _Decoder(self.btf).value(self.id, raw, 0)

    def encode(self, value: Any) -> bytes:
        """The bytes of a value; fields that a dict leaves out are zero. UsageError for one that does not fit."""
        out = bytearray(self.size)
        _encode(self.btf, self.id, value, out, str(self), 0)
        return bytes(out)

    def replace(self, raw: bytes, value: Any) -> bytes:
        """`raw` with the value written over it; fields that a dict leaves out stay."""
        out = bytearray(raw)
        _encode(self.btf, self.id, value, out, str(self), 0)
        return bytes(out)

    def part(self, path: str) -> tuple[int, DataType]:
        """Byte offset and type of `.field[3].sub` inside; UsageError if there is no such part or it is a bit field."""
        offset, number, at = 0, self.id, 0
        while at < len(path):
            step = _PATH.match(path, at)
            if step is None:
                raise UsageError(f"{path!r} is no path of fields and indices")
            at = step.end()
            found = self.btf.resolve(number)
            if step[2] is not None:
                if found.kind is not BtfKind.ARRAY or int(step[2]) >= found.count:
                    raise UsageError(f"{spell(self.btf, number)} has no element {step[2]}")
                number = found.ref
                offset += int(step[2]) * self.btf.size_of(number)
            else:
                member, base = find_member(self.btf, found, step[1])
                if member is None or member.bit_size:
                    raise UsageError(
                        f"{spell(self.btf, number)} has no field {step[1]} that stands in bytes of its own"
                    )
                offset += base // 8
                number = member.type
        return offset, DataType.of(self.btf, number)


def find_member(btf: Btf, owner: BtfType, name: str, depth: int = 0) -> tuple[Member | None, int]:
    """A field by name, also inside anonymous members, and its bit offset from the start of `owner`."""
    if owner.kind in COMPOSITES and depth < MAX_DEPTH:
        for member in owner.members:
            if member.name == name:
                return member, member.bit_offset
            if not member.name:
                found, offset = find_member(btf, btf.resolve(member.type), name, depth + 1)
                if found is not None:
                    return found, member.bit_offset + offset
    return None, 0


def spell(btf: Btf, number: int, depth: int = 0) -> str:
    """A type as C words, without declarator syntax: `const struct flow *`, `char[16]`."""
    found = btf.type(number)
    if depth > MAX_DEPTH:
        return "..."
    match found.kind:
        case BtfKind.PTR:
            return f"{spell(btf, found.ref, depth + 1)} *"
        case BtfKind.ARRAY:
            return f"{spell(btf, found.ref, depth + 1)}[{found.count}]"
        case BtfKind.CONST | BtfKind.VOLATILE | BtfKind.RESTRICT:
            return f"{found.kind.name.lower()} {spell(btf, found.ref, depth + 1)}"
        case BtfKind.STRUCT | BtfKind.UNION:
            return f"{found.kind.name.lower()} {found.name or '{...}'}"
        case BtfKind.ENUM | BtfKind.ENUM64:
            return f"enum {found.name or '{...}'}"
        case BtfKind.TYPE_TAG | BtfKind.VAR:
            return spell(btf, found.ref, depth + 1)
        case BtfKind.FUNC_PROTO:
            return f"{spell(btf, found.ref, depth + 1)} (*)()"
    return found.name or found.kind.name.lower()


def _is_char(btf: Btf, number: int) -> bool:
    found = btf.resolve(number)
    return found.kind is BtfKind.INT and found.size == 1 and (bool(found.encoding & 2) or found.name == "char")


@dataclass(slots=True)
class _Decoder:
    """Decodes one value; `left` bounds the parts that a damaged table can make of it."""

    btf: Btf
    left: int = 1 << 20

    def value(self, number: int, raw: bytes, depth: int) -> Any:
        found = self.btf.resolve(number)
        self.left -= 1
        if depth > MAX_DEPTH or self.left < 0 or len(raw) < self.btf.size_of(number):
            raise ObjectError(f"{spell(self.btf, number)} is nested without end", section=self.btf.origin)
        match found.kind:
            case BtfKind.INT | BtfKind.ENUM | BtfKind.ENUM64:
                whole = int.from_bytes(raw[: found.size], "little", signed=found.signed)
                return bool(whole) if found.encoding & 4 else whole
            case BtfKind.FLOAT:
                return struct.unpack({4: "<f", 8: "<d"}[found.size], raw)[0] if found.size in (4, 8) else raw.hex()
            case BtfKind.ARRAY:
                return self.array(found, raw, depth)
            case BtfKind.STRUCT | BtfKind.UNION:
                return self.fields(found, raw, depth)
            case BtfKind.DATASEC:
                out = {}
                for entry in found.variables:
                    variable = self.btf.type(entry.type)
                    out[variable.name] = self.value(variable.ref, raw[entry.offset :][: entry.size], depth + 1)
                return out
        return int.from_bytes(raw, "little")

    def array(self, found: BtfType, raw: bytes, depth: int) -> Any:
        if _is_char(self.btf, found.ref):
            return raw[: found.count].rstrip(b"\0").decode("utf-8", "surrogateescape")
        size = self.btf.size_of(found.ref)
        count = found.count if size else 0
        return [self.value(found.ref, raw[i * size : (i + 1) * size], depth + 1) for i in range(count)]

    def fields(self, found: BtfType, raw: bytes, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for member in found.members:
            part = self.member(member, raw, depth)
            out.update(part if not member.name and isinstance(part, dict) else {member.name: part})
        return out

    def member(self, member: Member, raw: bytes, depth: int) -> Any:
        if member.bit_size:
            bits = int.from_bytes(raw, "little") >> member.bit_offset & ((1 << member.bit_size) - 1)
            if self.btf.resolve(member.type).signed and bits >> (member.bit_size - 1):
                bits -= 1 << member.bit_size
            return bits
        start = member.bit_offset // 8
        return self.value(member.type, raw[start : start + self.btf.size_of(member.type)], depth + 1)


def _encode(btf: Btf, number: int, value: Any, out: bytearray | memoryview, where: str, depth: int) -> None:
    found = btf.resolve(number)
    if depth > MAX_DEPTH:
        raise UsageError(f"{where} is nested too deeply")
    if isinstance(value, bytes | bytearray):
        if len(value) > len(out):
            raise UsageError(f"{where}: {len(value)} bytes do not fit in {len(out)}")
        out[:] = bytes(value).ljust(len(out), b"\0")
    elif found.kind is BtfKind.ARRAY:
        _encode_array(btf, found, value, out, where, depth)
    elif found.kind in COMPOSITES:
        _encode_fields(btf, found, value, out, where, depth)
    elif found.kind is BtfKind.FLOAT:
        out[:] = struct.pack({4: "<f", 8: "<d"}.get(found.size, "<d"), _number(value, where, float))[: len(out)]
    else:
        signed = found.signed if found.kind is not BtfKind.PTR else False
        out[:] = _integer(_integer_of(found, value, where), len(out) * 8, signed, where).to_bytes(len(out), "little")


def _encode_array(btf: Btf, found: BtfType, value: Any, out: bytearray | memoryview, where: str, depth: int) -> None:
    size = btf.size_of(found.ref)
    if isinstance(value, str) and _is_char(btf, found.ref):
        _encode(btf, found.id, value.encode("utf-8", "surrogateescape"), out, where, depth + 1)
        return
    if isinstance(value, str):
        value = _json(value, where)
    if not isinstance(value, Sequence) or len(value) > found.count:
        raise UsageError(f"{where} takes at most {found.count} elements")
    view = memoryview(out)
    for i, element in enumerate(value):
        _encode(btf, found.ref, element, view[i * size : (i + 1) * size], f"{where}[{i}]", depth + 1)


def _encode_fields(btf: Btf, found: BtfType, value: Any, out: bytearray | memoryview, where: str, depth: int) -> None:
    if isinstance(value, str):
        value = _json(value, where)
    if not isinstance(value, Mapping):
        raise UsageError(f"{where} takes a mapping of its fields")
    view = memoryview(out)
    for name, part in value.items():
        member, bits = find_member(btf, found, str(name))
        if member is None:
            raise UsageError(f"{where} has no field {name!r}")
        label = f"{where}.{name}"
        if member.bit_size:
            whole = int.from_bytes(out, "little")
            mask = (1 << member.bit_size) - 1
            resolved = btf.resolve(member.type)
            number = _integer(_integer_of(resolved, part, label), member.bit_size, resolved.signed, label)
            view[:] = ((whole & ~(mask << bits)) | number << bits).to_bytes(len(out), "little")
        else:
            start = bits // 8
            _encode(btf, member.type, part, view[start : start + btf.size_of(member.type)], label, depth + 1)


def _integer_of(found: BtfType, value: Any, where: str) -> int:
    if isinstance(value, str) and found.kind in ENUMS:
        for enumerator in found.values:
            if enumerator.name == value:
                return enumerator.value
    if isinstance(value, str) and value in ("true", "false"):
        return int(value == "true")
    number = _number(value, where, lambda text: int(text, 0) if isinstance(text, str) else int(text))
    return int(number)


def _number(value: Any, where: str, make: Any) -> Any:
    if isinstance(value, float) and make is not float:
        raise UsageError(f"{where} takes a whole number, not {value}")
    try:
        return make(value)
    except (TypeError, ValueError):
        raise UsageError(f"{where} takes a number, not {value!r}") from None


def _integer(value: int, bits: int, signed: bool, where: str) -> int:
    low = -(1 << (bits - 1)) if signed else 0
    high = (1 << (bits - 1)) - 1 if signed else (1 << bits) - 1
    if not low <= value <= high:
        raise UsageError(f"{where}: {value} is not in {low}..{high}")
    return value & ((1 << bits) - 1)


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"{where} takes JSON: {error}") from None
