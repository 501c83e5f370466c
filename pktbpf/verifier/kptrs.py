"""Kernel pointers in map values: plain loads and stores of them, and bpf_kptr_xchg.

A pointer is to a structure of the kernel or to one of the program's own BTF (an object it allocated); registers hold
the name of the one, the PointedStruct of the other. Mirrors map_kptr_match_type, check_map_kptr_access and
process_kptr_func.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pktbpf.abi.kernel_structs import REFERENCED
from pktbpf.program import PointedStruct, ValueField
from pktbpf.verifier import kernel_objects, memory, references, scalar
from pktbpf.verifier.errors import Refusal, denied, invalid, unsupported
from pktbpf.verifier.kernel_types import STRUCT
from pktbpf.verifier.state import (
    ALLOC,
    BASE,
    BTF,
    MAP_VALUE,
    MEM,
    OR_NULL,
    PERCPU,
    RCU,
    TRUSTED,
    UNTRUSTED,
    Reg,
    kind_text,
)

if TYPE_CHECKING:
    from pktbpf.verifier.maps import MapInfo
    from pktbpf.verifier.walk import Walk

OWNING = ("kptr", "percpu_kptr")
_NO_TYPE = -1  # no structure has this id
_TEXT = {"kptr_untrusted": "kptr", "kptr": "kptr", "percpu_kptr": "percpu_kptr", "uptr": "uptr"}
_MEM_MODE, _ST, _LDX = 0x60, 2, 1


def field_text(item: ValueField) -> str:
    """The field as messages name it."""
    return _TEXT.get(item.kind, f"bpf_{item.kind}")


def pointee(walk: Walk, info: MapInfo, item: ValueField) -> str | PointedStruct:
    """What a register holds as the structure: a name for the kernel's, else the program's own.

    Owned ones of the kernel are few. Whether it has another structure of a name is only known with its types; without
    them an unowned pointer is to one of the kernel's, unless the same value owns such an object of the program.
    """
    target = item.target
    assert target is not None
    if target.name in REFERENCED:
        return target.name
    if walk.kernel is not None:
        return target.name if walk.kernel.find(target.name, STRUCT) else target
    if item.kind in OWNING or any(other.kind in OWNING and other.target == target for other in info.fields):
        return target
    return target.name


def check_touched(reg: Reg, item: ValueField, offset: int, size: int, direct: bool) -> None:
    """An access that overlaps a special field: of kernel pointers all 8 bytes, by loads and stores; others never."""
    text = field_text(item)
    if item.target is None:
        denied(f"{text} cannot be accessed directly by load/store")
    if not direct:
        denied(f"{text} cannot be accessed indirectly by helper")
    if reg.v[1]:
        denied(f"{text} access cannot have variable offset")
    place = offset + scalar.signed64(reg.v[0])
    if item.offset != place:
        denied(f"{text} access misaligned expected={item.offset} off={place & (1 << 64) - 1}")
    if size != 8:
        denied(f"{text} access size must be BPF_DW")


def access(walk: Walk, info: MapInfo, item: ValueField, value: int) -> None:
    """A load of the pointer into register `value`, or a store from it (-1: of an immediate)."""
    insn = walk.insns[walk.index]
    if insn.code & 0xE0 != _MEM_MODE:
        denied("kptr in map can only be accessed using BPF_MEM instruction mode")
    kind = insn.code & 7
    if kind != _LDX and item.kind in OWNING:
        denied("store to referenced kptr disallowed")
    if kind != _LDX and item.kind == "uptr":
        denied("store to uptr disallowed")
    if kind == _LDX:
        walk.regs[value] = _loaded(walk, info, item)
    elif kind == _ST:
        if insn.imm:
            denied(f"BPF_ST imm must be 0 when storing to kptr at off={item.offset}")
    elif not walk.regs[value].is_null:
        match(walk, info, item, walk.regs[value], value)


def _loaded(walk: Walk, info: MapInfo, item: ValueField) -> Reg:
    target = item.target
    assert target is not None
    if item.kind == "uptr":
        return Reg(MEM | OR_NULL, id=walk.new_id(), obj=target.types.size_of(target.type_id))
    found = pointee(walk, info, item)
    # Programs that cannot sleep always run under RCU, which all structures that can be owned here are protected by.
    flags = OR_NULL | (RCU if item.kind in OWNING else UNTRUSTED)
    if item.kind == "percpu_kptr":
        flags |= PERCPU
    elif item.kind == "kptr" and isinstance(found, PointedStruct):
        flags |= ALLOC
    return Reg(BTF | flags, id=walk.new_id(), obj=found)


def match(walk: Walk, info: MapInfo, item: ValueField, reg: Reg, number: int) -> None:
    """The pointer in register `number` is one that the field may hold. Fails with EACCES."""
    assert item.target is not None
    own = isinstance(reg.obj, PointedStruct)
    if own:
        allowed = OR_NULL | ALLOC | (PERCPU if item.kind == "percpu_kptr" else 0)
    else:
        allowed = OR_NULL | TRUSTED | RCU | (UNTRUSTED if item.kind == "kptr_untrusted" else 0)
    kind = kind_text(reg.kind)
    expected = f"ptr_{item.target.name}"
    if item.kind == "kptr_untrusted":
        expected += f" or untrusted_ptr_{item.target.name}"
    if reg.kind & BASE != BTF or reg.kind & ~BASE & ~allowed:
        denied(f"invalid kptr access, R{number} type={kind} expected={expected}")
    memory.check_plain_pointer(walk, reg, number, fixed_allowed=True)
    lines = _mismatch(walk, reg, pointee(walk, info, item), strict=item.kind != "kptr_untrusted")
    if lines is not None:
        denied(*lines, f"invalid kptr access, R{number} type={kind}{reg.obj} expected={expected}")


def _mismatch(walk: Walk, reg: Reg, wanted: str | PointedStruct, strict: bool) -> tuple[str, ...] | None:
    """None where the register points to the structure, or (not strict) to one that has it at that place."""
    if isinstance(wanted, PointedStruct) is not isinstance(reg.obj, PointedStruct):
        return () if strict else _of_another(walk, reg)
    if isinstance(wanted, PointedStruct):
        if reg.obj.type_id == wanted.type_id and not reg.off:
            return None
        if strict:
            return ()
        inside, lines = walk.own_types(wanted.types.btf).contains(reg.obj.type_id, reg.off, wanted.type_id)
        return None if inside else lines
    if strict:
        return None if reg.obj == wanted and not reg.off and not reg.uid else ()
    return kernel_objects.mismatch(walk, reg, wanted)


def _of_another(walk: Walk, reg: Reg) -> tuple[str, ...]:
    """What the log says of a structure that can have none of those wanted in it: one is the program's own."""
    if isinstance(reg.obj, PointedStruct):
        return walk.own_types(reg.obj.types.btf).contains(reg.obj.type_id, reg.off, _NO_TYPE)[1]
    if walk.kernel is None:
        return ()
    return walk.kernel.contains(kernel_objects.number_of(walk.kernel, reg), reg.off, _NO_TYPE)[1]


def exchanged(reg: Reg, number: int) -> ValueField:
    """The field that bpf_kptr_xchg works on."""
    if reg.kind != MAP_VALUE:
        unsupported("a kernel pointer in an object of the program")
    info: MapInfo = reg.obj
    if not info.has_types:
        invalid(f"map '{info.name}' has to have BTF in order to use bpf_kptr_xchg")
    if reg.v[1]:
        invalid(f"R{number} doesn't have constant offset. kptr has to be at the constant offset")
    if not any(item.target is not None and item.kind != "uptr" for item in info.fields):
        invalid(f"R{number} has no valid kptr")
    place = reg.off + scalar.signed64(reg.v[0])
    item = info.pointer_field_at(place)
    if item is None or item.kind == "uptr":
        denied(f"off={scalar.signed32(place)} doesn't point to kptr")
    if item.kind not in OWNING:
        denied(f"off={scalar.signed32(place)} kptr isn't referenced kptr")
    return item


def check_given(walk: Walk, info: MapInfo, item: ValueField, reg: Reg, number: int) -> None:
    """What is put in instead: an owned pointer of the field's type (null is let through before)."""
    flags = reg.kind & ~BASE
    if flags in (0, TRUSTED, TRUSTED | OR_NULL, RCU, OR_NULL, OR_NULL | RCU):
        if flags & OR_NULL:
            denied(f"Possibly NULL pointer passed to helper arg{number}")
    elif flags not in (ALLOC, ALLOC | PERCPU):
        raise Refusal(14, "verifier bug: invalid PTR_TO_BTF_ID register for type match")
    match(walk, info, item, reg, number)


def give(walk: Walk, ref: int) -> bool:
    """The map takes over reference `ref`: pointers with it end, but one to per-CPU memory stays usable under RCU."""
    if not references.drop(walk.state, ref):
        return False

    def given(reg: Reg) -> Reg:
        if reg.ref != ref:
            return reg
        if reg.kind & ALLOC and reg.kind & PERCPU:
            return Reg(reg.kind & ~ALLOC | RCU, reg.off, reg.v, reg.id, 0, reg.frame, reg.obj, reg.uid, reg.precise)
        return walk.gone

    references.every_register(walk.state, given)
    return True


def taken(walk: Walk, info: MapInfo, item: ValueField, reference: int) -> Reg:
    """What bpf_kptr_xchg gives back: the pointer that was there, owned, or null."""
    found = pointee(walk, info, item)
    flags = OR_NULL
    if isinstance(found, PointedStruct):
        flags |= ALLOC | (PERCPU if item.kind == "percpu_kptr" else 0)
    return Reg(BTF | flags, id=reference, ref=reference, obj=found)
