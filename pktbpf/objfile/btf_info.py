"""What BTF tells the verifier of functions: linkage, result and arguments, and what is wrong with a global one.

Mirrors check_btf_func and btf_prepare_func_args of the kernel, as far as they read types.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass

from pktbpf.errors import ObjectError
from pktbpf.objfile.btf import COMPOSITES, ENUMS, Btf, BtfKind, BtfType

MAX_ARGS = 5
_LINKAGE = ("static", "global", "extern")
_TAG = "arg:"
_TAGS = ("ctx", "trusted", "untrusted", "nonnull", "nullable", "arena")
_SIZED = (BtfKind.INT, BtfKind.PTR, BtfKind.ARRAY, BtfKind.FLOAT, *COMPOSITES, *ENUMS)
_CONTEXT = "__sk_buff"


@dataclass(frozen=True, slots=True)
class FunctionInfo:
    """A function of a program.

    type_id: of its FUNC. linkage: static, global or extern. returns_int: the result is a small integer or an enum.
    args: `int`, `ctx`, `dynptr`, `arena`, `mem:SIZE`, `mem:SIZE:nonnull`, `rdonly` (anything, read only),
    `trusted:NAME` (a kernel structure, `:nullable` after it) or `untrusted:NAME`. problem: (errno, the kernel's line)
    where its type cannot be used for a global function.
    """

    type_id: int
    name: str
    linkage: str
    returns_int: bool
    args: tuple[str, ...]
    problem: tuple[int, str] | None = None


class _Wrong(Exception):
    """The kernel refuses the type: errno and line."""


def function_info(btf: Btf, number: int) -> FunctionInfo:
    """What a FUNC and its prototype say. A damaged record gives a static function without arguments."""
    function = btf.type(number)
    prototype = btf.type(function.ref)
    linkage = _LINKAGE[function.linkage] if function.linkage < len(_LINKAGE) else "static"
    result = btf.resolve(prototype.ref)
    small = result.kind in ENUMS or (result.kind is BtfKind.INT and result.size in (1, 2, 4, 8))
    args: tuple[str, ...] = ()
    problem = None
    try:
        args = _arguments(btf, function, prototype, linkage == "global", result)
    except _Wrong as wrong:
        problem = (wrong.args[0], wrong.args[1])
    return FunctionInfo(number, function.name, linkage, small, args, problem)


def _arguments(
    btf: Btf, function: BtfType, prototype: BtfType, is_global: bool, result: BtfType
) -> tuple[str, ...]:
    """The words for all arguments. Raises _Wrong; a static function's first fault needs no words."""
    name, count = function.name, len(prototype.params)
    if count > MAX_ARGS:
        line = f"Global function {name}() with {count} > {MAX_ARGS} args. Buggy compiler."
        raise _Wrong(errno.EINVAL, line if is_global else "")
    if result.kind is not BtfKind.INT and result.kind not in ENUMS:
        line = f"Global function {name}() doesn't return scalar. Only those are supported."
        raise _Wrong(errno.EINVAL, line if is_global else "")
    return tuple(
        _argument(btf, function, position, btf.resolve(param.type), is_global)
        for position, param in enumerate(prototype.params)
    )


def _argument(btf: Btf, function: BtfType, position: int, found: BtfType, is_global: bool) -> str:
    tags = _tags(btf, function.id, position, is_global)
    if found.kind is BtfKind.PTR:
        word = _pointer(btf, position, found, tags, is_global)
        if word:
            return word
    if tags:
        raise _Wrong(errno.EINVAL, f"arg#{position} has pointer tag, but is not a pointer type")
    if found.kind is BtfKind.INT or found.kind in ENUMS:
        return "int"
    line = f"Arg#{position} type {found.kind.name} in {function.name}() is not supported yet."
    raise _Wrong(errno.EINVAL, line if is_global else "")


def _tags(btf: Btf, number: int, position: int, is_global: bool) -> set[str]:
    """What `arg:...` declaration tags say of an argument."""
    found = set()
    for tag in _declared(btf, number, position):
        if not is_global:
            raise _Wrong(errno.EOPNOTSUPP, f"arg#{position} type tag is not supported in static functions")
        if tag not in _TAGS:
            raise _Wrong(errno.EOPNOTSUPP, f"arg#{position} has unsupported set of tags")
        found.add(tag)
    return found


def _declared(btf: Btf, number: int, position: int) -> Iterator[str]:
    for name in btf.names():
        if name.startswith(_TAG):
            for tag in map(btf.type, btf.by_name(name)):
                if tag.kind is BtfKind.DECL_TAG and tag.ref == number and tag.component == position:
                    yield name.removeprefix(_TAG)


def _pointer(btf: Btf, position: int, pointer: BtfType, tags: set[str], is_global: bool) -> str:
    """The word for a pointer; empty for one in a static function that says nothing."""
    target = btf.resolve(pointer.ref)
    combination = _Wrong(errno.EINVAL, f"arg#{position} has invalid combination of tags")
    if "ctx" in tags or (target.kind in COMPOSITES and target.name == _CONTEXT):
        if tags - {"ctx"}:
            raise combination
        if "ctx" in tags and target.kind is not BtfKind.VOID and target.name != _CONTEXT:
            raise _Wrong(errno.EINVAL, f"arg#{position} should be `struct {_CONTEXT} *`")
        return "ctx"
    if target.kind is BtfKind.STRUCT and target.name == "bpf_dynptr":
        if tags:
            raise combination
        return "dynptr"
    if "trusted" in tags:
        if tags - {"trusted", "nullable"}:
            raise combination
        return f"trusted:{target.name}" + (":nullable" if "nullable" in tags else "")
    for word in ("untrusted", "arena"):
        if word in tags and len(tags) > 1:
            raise _Wrong(errno.EINVAL, f"arg#{position} {word} cannot be combined with any other tags")
    if "untrusted" in tags:
        plain = target.kind in (BtfKind.VOID, BtfKind.INT, *ENUMS)
        return "rdonly" if plain else f"untrusted:{target.name}"
    if "arena" in tags:
        return "arena"
    return _memory(btf, position, target, tags, combination) if is_global else ""


def _memory(btf: Btf, position: int, target: BtfType, tags: set[str], combination: _Wrong) -> str:
    """A pointer to memory of a known size."""
    if "nullable" in tags:
        raise combination
    try:
        size = btf.size_of(target.id) if target.kind in _SIZED else None
    except ObjectError:
        size = None
    if size is None:
        kind = "UNKNOWN" if target.kind is BtfKind.VOID else target.kind.name
        name = "" if target.kind is BtfKind.VOID else target.name
        raise _Wrong(
            errno.EINVAL, f"arg#{position} reference type('{kind} {name}') size cannot be determined: -{errno.EINVAL}"
        )
    return f"mem:{size}" + (":nonnull" if "nonnull" in tags else "")
