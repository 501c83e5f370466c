"""Loads from structures of the kernel through typed pointers, and whether such a pointer is of a wanted type.

A register with such a pointer holds the structure's name, and in `uid` its number where several have that name. Without
the kernel's types only what needs none is judged. Mirrors check_ptr_to_btf_access and check_ptr_to_map_access.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pktbpf.program import PointedStruct
from pktbpf.verifier.errors import denied, invalid, refuse, unsupported
from pktbpf.verifier.kernel_types import STRUCT, UNION, Found, Kernel
from pktbpf.verifier.state import (
    ALLOC,
    BASE,
    BTF,
    MEM,
    OR_NULL,
    PERCPU,
    RCU,
    RDONLY,
    TRUSTED,
    UNTRUSTED,
    USER,
    Reg,
)

if TYPE_CHECKING:
    from pktbpf.verifier.maps import MapInfo
    from pktbpf.verifier.walk import Walk

_FIELD_TEXT = {"kptr": "kptr", "kptr_untrusted": "kptr", "percpu_kptr": "percpu_kptr"}
_UNSAFE = ~(BASE | TRUSTED | ALLOC)


def pointer(kernel: Kernel | None, number: int, flags: int, id: int = 0) -> Reg:
    """A pointer to the structure with that number."""
    assert kernel is not None
    name, uid = kernel.named(number)
    return Reg(BTF | flags, id=id, obj=name, uid=uid)


def number_of(kernel: Kernel, reg: Reg) -> int:
    """Number of the structure that a register points to, 0 for one that this kernel does not have."""
    return reg.uid or kernel.struct(str(reg.obj))


def load(walk: Walk, reg: Reg, number: int, offset: int, size: int, write: bool, value: int) -> None:
    """Check an access to `size` bytes at `offset`; a load leaves its result in register `value` (-1: nowhere)."""
    name = reg.obj
    if not walk.leaks_pointers:
        refuse(errno.EPERM, f"'struct {name}' access is allowed only to CAP_PERFMON and CAP_SYS_ADMIN")
    own = isinstance(name, PointedStruct)
    if not walk.gpl and not own:
        invalid(f"Cannot access kernel 'struct {name}' from non-GPL compatible program")
    if offset < 0:
        denied(f"R{number} is ptr_{name} invalid negative access: off={offset}")
    if reg.v[0] or reg.v[1]:
        denied(f"R{number} is ptr_{name} invalid variable offset: off={offset}, var_off={walk.words.tnum(reg.v)}")
    if reg.kind & USER:
        denied(f"R{number} is ptr_{name} access user memory: off={offset}")
    if reg.kind & PERCPU:
        denied(f"R{number} is ptr_{name} access percpu memory: off={offset}")
    if write and not reg.kind & ALLOC:
        denied("only read is supported")
    if own:
        _load_own(walk, reg, offset, size, -1 if write else value)
        return
    kernel = walk.kernel
    source = number_of(kernel, reg) if kernel is not None else 0
    if kernel is None or not source:
        unsupported(f"a load from the kernel's 'struct {name}', whose layout is not known")
    found = kernel.access(source, offset, size)
    if value >= 0:
        flags = _trust(kernel, reg, source, found) if found.what == "pointer" else 0
        walk.regs[value] = _loaded(walk, kernel, found, flags)


def _load_own(walk: Walk, reg: Reg, offset: int, size: int, value: int) -> None:
    """An object of the program's own BTF; its special fields are for helpers only."""
    target: PointedStruct = reg.obj
    for item in target.types.fields(target.type_id) if reg.kind & ALLOC else ():
        overlaps = offset < item.offset + item.size and item.offset < offset + size
        if overlaps and item.kind not in ("timer", "wq", "task_work", "uptr"):
            denied(f"direct access to {_FIELD_TEXT.get(item.kind, f'bpf_{item.kind}')} is disallowed")
    types = walk.own_types(target.types.btf)
    found = types.access(target.type_id, offset, size)
    if value < 0:
        return
    if found.what == "pointer" and not reg.kind & ALLOC:
        name, _ = types.named(found.id)
        walk.regs[value] = Reg(BTF | UNTRUSTED, obj=PointedStruct(name, found.id, target.types))
    elif found.what == "memory":
        walk.regs[value] = Reg(MEM | RDONLY | UNTRUSTED, obj=0)
    else:
        # What an object of the program holds is never a pointer to another.
        walk.regs[value] = walk.unknown


def load_map(walk: Walk, number: int, offset: int, size: int, write: bool, value: int) -> None:
    """The same through a pointer to a map: the fields of its `struct bpf_map` and what follows it."""
    info: MapInfo = walk.regs[number].obj
    name = info.struct_name
    if not walk.leaks_pointers:
        refuse(errno.EPERM, f"'struct {name}' access is allowed only to CAP_PERFMON and CAP_SYS_ADMIN")
    if offset < 0:
        denied(f"R{number} is {name} invalid negative access: off={offset}")
    if write:
        denied(f"only read from {name} is supported")
    kernel = walk.kernel
    source = kernel.struct(name) if kernel is not None else 0
    if kernel is None or not source:
        unsupported(f"a load from the kernel's 'struct {name}', whose layout is not known")
    found = kernel.access(source, offset, size)
    if value >= 0:
        walk.regs[value] = _loaded(walk, kernel, found, found.flags)


def _loaded(walk: Walk, kernel: Kernel, found: Found, flags: int) -> Reg:
    if found.what == "scalar":
        return walk.unknown
    if found.what == "memory":
        return Reg(MEM | RDONLY | UNTRUSTED, obj=0)
    return pointer(kernel, found.id, flags, walk.new_id() if flags & OR_NULL else 0)


def trusted(reg: Reg) -> bool:
    """Whether the pointer is known to be valid as long as the program runs."""
    return bool(reg.ref or (reg.kind & (TRUSTED | ALLOC) and not reg.kind & _UNSAFE))


def _trust(kernel: Kernel, reg: Reg, source: int, found: Found) -> int:
    """Flags of a pointer that was loaded through `reg`. A socket filter cannot sleep, so it always stands in an RCU
    read-side region."""
    flags, field, target = found.flags, found.field, found.id
    if reg.kind & UNTRUSTED:
        return UNTRUSTED
    if not trusted(reg) and not reg.kind & RCU:
        return flags & ~(TRUSTED | ALLOC | RCU)
    if kernel.lists(source, "__safe_trusted", field, target):
        return flags | TRUSTED
    if kernel.lists(source, "__safe_trusted_or_null", field, target):
        return flags | TRUSTED | OR_NULL
    if reg.kind & OR_NULL:
        return UNTRUSTED
    if kernel.lists(source, "__safe_rcu", field, target):
        return flags | RCU
    or_null = kernel.lists(source, "__safe_rcu_or_null", field, target)
    if flags & RCU or or_null:
        return (flags & ~UNTRUSTED if or_null else flags) | RCU | OR_NULL
    if flags & (PERCPU | USER):
        return flags
    return flags & ~(TRUSTED | ALLOC | RCU)


def this_copy(walk: Walk, reg: Reg, *, or_null: bool) -> Reg:
    """One processor's copy of what a per-CPU pointer stands for: a structure, or plain memory to read."""
    null, id = (OR_NULL, walk.new_id()) if or_null else (0, 0)
    kernel = walk.kernel
    assert kernel is not None, "per-CPU variables come out of the kernel's types"
    number = number_of(kernel, reg)
    if kernel.resolve(number).kind in (STRUCT, UNION):
        return Reg(BTF | null, id=id, obj=reg.obj, uid=reg.uid)
    size = kernel.size_of(number)
    if size is None:
        invalid(f"unable to resolve the size of type '{kernel.resolve(number).name}': -22")
    return Reg(MEM | RDONLY | null, id=id, obj=size)


def mismatch(walk: Walk, reg: Reg, wanted: str) -> tuple[str, ...] | None:
    """None where the register points to a structure `wanted`, or to one that has it at that offset; else what the log
    says before the error."""
    if reg.obj == wanted and not reg.off and not reg.uid:
        return None
    if isinstance(reg.obj, PointedStruct):
        return ()
    kernel = walk.kernel
    if kernel is None:
        if reg.off:
            unsupported(f"whether the kernel's 'struct {reg.obj}' has a 'struct {wanted}' at {reg.off}")
        # Sockets of all kinds begin with the part that they have in common, other structures do not.
        return None if wanted == "sock_common" and str(reg.obj).endswith("_sock") else ()
    inside, lines = kernel.contains(number_of(kernel, reg), reg.off, kernel.struct(wanted))
    return None if inside else lines
