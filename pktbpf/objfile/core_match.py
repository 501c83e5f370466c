"""CO-RE: reading an access ("0:3:1" into a type) and finding the same field, type or enumerator in another BTF.

The rules of what matches are libbpf's: names without their `___flavor`, typedefs and qualifiers ignored, anonymous
members searched through, integer sizes free, arrays within their bounds.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field

from pktbpf.errors import ObjectError
from pktbpf.objfile.btf import COMPOSITES, ENUMS, Btf, BtfKind, BtfType

MAX_SPEC = 64  # levels of one access
MAX_LEVEL = 32  # of types compared recursively
_FLAVOR = re.compile(r"(.*[^_])___[^_]", re.DOTALL)


class CoreKind(enum.IntEnum):
    """enum bpf_core_relo_kind of uapi linux/bpf.h."""

    FIELD_BYTE_OFFSET = 0
    FIELD_BYTE_SIZE = 1
    FIELD_EXISTS = 2
    FIELD_SIGNED = 3
    FIELD_LSHIFT_U64 = 4
    FIELD_RSHIFT_U64 = 5
    TYPE_ID_LOCAL = 6
    TYPE_ID_TARGET = 7
    TYPE_EXISTS = 8
    TYPE_SIZE = 9
    ENUMVAL_EXISTS = 10
    ENUMVAL_VALUE = 11
    TYPE_MATCHES = 12


FIELD_KINDS = frozenset(kind for kind in CoreKind if kind.name.startswith("FIELD_"))
TYPE_KINDS = frozenset(kind for kind in CoreKind if kind.name.startswith("TYPE_"))


@dataclass(frozen=True, slots=True)
class Accessor:
    """One meaningful step: a named member, or (name None) an array element."""

    type_id: int
    index: int
    name: str | None = None


@dataclass(slots=True)
class Spec:
    """An access into a type of one BTF: its steps and the bit offset they add up to."""

    btf: Btf
    root: int
    steps: list[Accessor] = field(default_factory=list)
    bit_offset: int = 0
    depth: int = 0


def essential(name: str) -> str:
    """A type name without its flavor: `sk_buff` of `sk_buff___old`."""
    match = _FLAVOR.match(name)
    return match[1] if match else name


def kinds_compatible(a: BtfType, b: BtfType) -> bool:
    """Whether two types are of the same kind, enum and enum64 counting as one."""
    return a.kind is b.kind or (a.kind in ENUMS and b.kind in ENUMS)


def parse_spec(btf: Btf, root: int, access: str, kind: CoreKind) -> Spec:
    """The access that a relocation of the object states. Raises ObjectError."""
    spec = Spec(btf, root)
    parts = access.split(":")
    if not all(part.isdecimal() and len(part) < 10 for part in parts) or len(parts) > MAX_SPEC:
        raise ObjectError(f"CO-RE access string {access!r} is damaged", section=".BTF.ext")
    if kind in TYPE_KINDS:
        return spec
    indices = [int(part) for part in parts]
    found = btf.resolve(root)
    if kind not in FIELD_KINDS:
        if found.kind not in ENUMS or len(indices) > 1 or indices[0] >= len(found.values):
            raise ObjectError(f"CO-RE access {access!r} names no enumerator", section=".BTF.ext")
        spec.steps.append(Accessor(found.id, indices[0], found.values[indices[0]].name))
        return spec
    spec.steps.append(Accessor(found.id, indices[0]))
    spec.bit_offset = indices[0] * btf.size_of(found.id) * 8
    number = found.id
    for index in indices[1:]:
        number = _step(spec, btf.resolve(number), index)
    return spec


def _step(spec: Spec, found: BtfType, index: int) -> int:
    if found.kind in COMPOSITES and index < len(found.members):
        member = found.members[index]
        spec.bit_offset += member.bit_offset
        if member.name:
            spec.steps.append(Accessor(found.id, index, member.name))
        return member.type
    if found.kind is BtfKind.ARRAY and (_flexible(spec, found) or index < found.count):
        element = spec.btf.resolve(found.ref).id
        spec.steps.append(Accessor(element, index))
        spec.bit_offset += index * spec.btf.size_of(element) * 8
        return element
    raise ObjectError(f"CO-RE access goes to part {index} of a {found.kind.name}", section=".BTF.ext")


def _flexible(spec: Spec, array: BtfType) -> bool:
    """Whether an array is the open end of the struct that the last step went into."""
    last = spec.steps[-1]
    if last.name is None or array.count:
        return False
    return last.index == len(spec.btf.type(last.type_id).members) - 1


def match_spec(local: Spec, kind: CoreKind, target: Btf, root: int) -> Spec | None:
    """The same access in a candidate type of another BTF, or None where it has no such thing."""
    spec = Spec(target, root)
    if kind in TYPE_KINDS:
        matches = types_match if kind is CoreKind.TYPE_MATCHES else types_compatible
        return spec if matches(local.btf, local.root, target, root) else None
    if kind not in FIELD_KINDS:
        return _match_enumerator(local, spec)
    number = root
    for position, step in enumerate(local.steps):
        found = target.resolve(number)
        if step.name is not None:
            member_type = _match_member(local, step, spec, found)
            if member_type is None:
                return None
            number = member_type
            continue
        if position:
            if found.kind is not BtfKind.ARRAY or not (_flexible(spec, found) or step.index < found.count):
                return None
            found = target.resolve(found.ref)
        number = found.id
        spec.steps.append(Accessor(number, step.index))
        spec.bit_offset += step.index * target.size_of(number) * 8
    return spec


def _match_enumerator(local: Spec, spec: Spec) -> Spec | None:
    found = spec.btf.resolve(spec.root)
    wanted = essential(local.steps[0].name or "")
    if found.kind in ENUMS:
        for index, enumerator in enumerate(found.values):
            if essential(enumerator.name) == wanted:
                spec.steps.append(Accessor(found.id, index, enumerator.name))
                return spec
    return None


def _match_member(local: Spec, step: Accessor, spec: Spec, found: BtfType, depth: int = 0) -> int | None:
    """Find the member that `step` names, also inside anonymous ones; its type id, or None."""
    if found.kind not in COMPOSITES:
        return None
    if depth > MAX_LEVEL:
        raise ObjectError("types are nested too deeply", section=spec.btf.origin)
    wanted = local.btf.type(step.type_id).members[step.index]
    for index, member in enumerate(found.members):
        if not member.name:
            spec.bit_offset += member.bit_offset
            inside = _match_member(local, step, spec, spec.btf.resolve(member.type), depth + 1)
            if inside is not None:
                return inside
            spec.bit_offset -= member.bit_offset
        elif member.name == step.name:
            if not fields_compatible(local.btf, wanted.type, spec.btf, member.type):
                return None
            spec.steps.append(Accessor(found.id, index, member.name))
            spec.bit_offset += member.bit_offset
            return member.type
    return None


def fields_compatible(a: Btf, a_id: int, b: Btf, b_id: int) -> bool:
    """Whether a field of one type can stand for a field of the other."""
    for _ in range(MAX_LEVEL):
        x, y = a.resolve(a_id), b.resolve(b_id)
        if x.kind in COMPOSITES and y.kind in COMPOSITES:
            return True
        if not kinds_compatible(x, y):
            return False
        if x.kind is BtfKind.ARRAY:
            a_id, b_id = x.ref, y.ref
            continue
        if x.kind is BtfKind.INT:
            return x.bit_offset == 0 and y.bit_offset == 0
        if x.kind in ENUMS or x.kind is BtfKind.FWD:
            return not x.name or not y.name or essential(x.name) == essential(y.name)
        return x.kind in (BtfKind.PTR, BtfKind.FLOAT)
    raise ObjectError("types are nested too deeply", section=b.origin)


def types_compatible(a: Btf, a_id: int, b: Btf, b_id: int, level: int = MAX_LEVEL) -> bool:
    """Loose likeness for type_exists, type_size and type_id: kinds agree, pointers and arrays followed."""
    if not kinds_compatible(a.type(a_id), b.type(b_id)):
        return False
    for _ in range(MAX_LEVEL):
        x, y = a.resolve(a_id), b.resolve(b_id)
        if not kinds_compatible(x, y):
            return False
        if x.kind is BtfKind.INT:
            return x.bit_offset == 0 and y.bit_offset == 0
        if x.kind is BtfKind.FUNC_PROTO:
            if len(x.params) != len(y.params):
                return False
            if level <= 0:
                break
            for p, q in zip(x.params, y.params, strict=True):
                if not types_compatible(a, a.resolve(p.type).id, b, b.resolve(q.type).id, level - 1):
                    return False
        elif x.kind not in (BtfKind.PTR, BtfKind.ARRAY):
            return x.kind in COMPOSITES or x.kind in ENUMS or x.kind in (BtfKind.FWD, BtfKind.VOID)
        a_id, b_id = x.ref, y.ref
    raise ObjectError("types are nested too deeply", section=b.origin)


def types_match(a: Btf, a_id: int, b: Btf, b_id: int, behind: bool = False, level: int = MAX_LEVEL) -> bool:
    """Strict likeness for type_matches. behind: reached through a pointer; of structs only name and kind count."""
    if level <= 0:
        raise ObjectError("types are nested too deeply", section=b.origin)
    for _ in range(MAX_LEVEL):
        x, y = a.resolve(a_id), b.resolve(b_id)
        if essential(x.name) != essential(y.name) and not (x.id == 0 and y.id == 0):
            return False
        if x.kind in ENUMS:
            return y.kind in ENUMS and _enums_match(x, y)
        if x.kind is BtfKind.FWD or x.kind in COMPOSITES:
            return _structs_match(a, x, b, y, behind, level)
        if x.kind is not y.kind:
            return False
        if x.kind is BtfKind.INT:
            return x.size == y.size and x.signed == y.signed
        if x.kind is BtfKind.FUNC_PROTO:
            if len(x.params) != len(y.params):
                return False
            pairs = zip(x.params, y.params, strict=True)
            if not all(types_match(a, p.type, b, q.type, behind, level - 1) for p, q in pairs):
                return False
        elif x.kind is BtfKind.ARRAY:
            if x.count != y.count:
                return False
        elif x.kind is BtfKind.PTR:
            behind = True
        else:
            return x.kind is BtfKind.VOID
        a_id, b_id = x.ref, y.ref
    raise ObjectError("types are nested too deeply", section=b.origin)


def _enums_match(x: BtfType, y: BtfType) -> bool:
    names = {essential(value.name) for value in y.values}
    return x.size == y.size and len(x.values) <= len(y.values) and all(essential(v.name) in names for v in x.values)


def _structs_match(a: Btf, x: BtfType, b: Btf, y: BtfType, behind: bool, level: int) -> bool:
    forward = BtfKind.FWD
    if x.kind is forward and y.kind is forward:
        return x.flag == y.flag
    if x.kind is forward or y.kind is forward:
        other, ahead = (y, x) if x.kind is forward else (x, y)
        return behind and other.kind is (BtfKind.UNION if ahead.flag else BtfKind.STRUCT)
    if x.kind is not y.kind:
        return False
    if behind:
        return True
    if len(x.members) > len(y.members):
        return False
    return all(
        any(
            essential(mine.name) == essential(theirs.name)
            and types_match(a, mine.type, b, theirs.type, False, level - 1)
            for theirs in y.members
        )
        for mine in x.members
    )
