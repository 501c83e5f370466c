"""What BTF tells the verifier: special fields of map values, and linkage, result and arguments of functions.

Mirrors btf_parse_fields, check_btf_func and btf_prepare_func_args of the kernel, as far as they read types.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pktbpf.objfile.btf import ENUMS, Btf, BtfKind, BtfType

MAX_FIELDS = 11  # BTF_FIELDS_MAX
_STRUCTS = {
    "bpf_spin_lock": "spin_lock",
    "bpf_res_spin_lock": "res_spin_lock",
    "bpf_timer": "timer",
    "bpf_wq": "wq",
    "bpf_list_head": "list_head",
    "bpf_rb_root": "rb_root",
    "bpf_refcount": "refcount",
    "bpf_task_work": "task_work",
}
_POINTERS = {"kptr", "kptr_untrusted", "percpu_kptr", "uptr"}
_LINKAGE = ("static", "global", "extern")


@dataclass(frozen=True, slots=True)
class FunctionInfo:
    """A function of a program. type_id: of its FUNC. linkage: static, global or extern. returns_int: the result is an
    integer or enum. args: `int`, `ctx`, `mem:SIZE`, `mem:SIZE:nonnull`, or `other:C TYPE` for what global functions
    cannot take."""

    type_id: int
    name: str
    linkage: str
    returns_int: bool
    args: tuple[str, ...]


def value_fields(btf: Btf, number: int) -> tuple[tuple[str, int, int], ...]:
    """(kind, byte offset, size) of the locks, timers, kernel pointers, ... in a value, in order of their offsets."""
    found = []
    for field in _fields(btf, number, 0, 8):
        found.append(field)
        if len(found) > MAX_FIELDS:
            break
    return tuple(sorted(found, key=lambda field: field[1]))


def _fields(btf: Btf, number: int, base: int, depth: int) -> Iterator[tuple[str, int, int]]:
    owner = btf.resolve(number)
    if owner.kind is BtfKind.DATASEC:
        for entry in owner.variables:
            yield from _member_fields(btf, btf.type(entry.type).ref, base + entry.offset, depth)
    elif owner.kind is BtfKind.STRUCT:
        for member in owner.members:
            if not member.bit_size and member.bit_offset % 8 == 0:
                yield from _member_fields(btf, member.type, base + member.bit_offset // 8, depth)


def _member_fields(btf: Btf, number: int, offset: int, depth: int) -> Iterator[tuple[str, int, int]]:
    found = btf.resolve(number)
    count = 1
    while found.kind is BtfKind.ARRAY and depth:
        count, number, depth = count * found.count, found.ref, depth - 1
        found = btf.resolve(number)
    if found.kind is BtfKind.PTR:
        tag = btf.type(found.ref)
        if tag.kind is BtfKind.TYPE_TAG and tag.name in _POINTERS:
            yield from ((tag.name, offset + 8 * i, 8) for i in range(min(count, MAX_FIELDS + 1)))
    elif found.kind is BtfKind.STRUCT and found.name in _STRUCTS:
        yield from (
            (_STRUCTS[found.name], offset + found.size * i, found.size) for i in range(min(count, MAX_FIELDS + 1))
        )
    elif found.kind is BtfKind.STRUCT and depth:
        for i in range(min(count, MAX_FIELDS + 1)):
            yield from _fields(btf, number, offset + found.size * i, depth - 1)


def function_info(btf: Btf, number: int) -> FunctionInfo:
    """What a FUNC and its prototype say. A damaged record gives a static function without arguments."""
    function = btf.type(number)
    prototype = btf.type(function.ref)
    tags = {tag.component: tag.name for tag in _argument_tags(btf, number)}
    args = tuple(_argument(btf, param.type, tags.get(i, "")) for i, param in enumerate(prototype.params))
    linkage = _LINKAGE[function.linkage] if function.linkage < len(_LINKAGE) else "static"
    return FunctionInfo(number, function.name, linkage, _is_integer(btf.resolve(prototype.ref)), args)


def _argument_tags(btf: Btf, number: int) -> Iterator[BtfType]:
    """The `arg:...` declaration tags of a function."""
    for name in ("arg:ctx", "arg:nonnull", "arg:nullable", "arg:trusted", "arg:arena"):
        for tag in map(btf.type, btf.by_name(name)):
            if tag.kind is BtfKind.DECL_TAG and tag.ref == number:
                yield tag


def _is_integer(found: BtfType) -> bool:
    return found.kind in ENUMS or (found.kind is BtfKind.INT and found.size in (1, 2, 4, 8))


def _argument(btf: Btf, number: int, tag: str) -> str:
    found = btf.resolve(number)
    if _is_integer(found):
        return "int"
    if found.kind is BtfKind.PTR:
        target = btf.resolve(found.ref)
        if tag == "arg:ctx" or (target.kind is BtfKind.STRUCT and target.name == "__sk_buff"):
            return "ctx"
        if target.kind in (BtfKind.INT, BtfKind.STRUCT, BtfKind.UNION, BtfKind.ARRAY, BtfKind.PTR, *ENUMS):
            return f"mem:{btf.size_of(target.id)}" + (":nonnull" if tag == "arg:nonnull" else "")
    return f"other:{found.kind.name}"
