"""CO-RE relocations: what a field offset, size, type or enum value is in the target BTF, written into instructions.

All thirteen kinds. Several candidates must agree; none poisons the instruction, so that it may stand in dead code and
is refused when reached, exactly as libbpf does it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pktbpf.errors import ObjectError
from pktbpf.isa import fields
from pktbpf.isa.extended import Insn
from pktbpf.objfile.btf import Btf, BtfKind
from pktbpf.objfile.btf_ext import BtfExt, CoreRelo
from pktbpf.objfile.core_match import (
    FIELD_KINDS,
    TYPE_KINDS,
    CoreKind,
    Spec,
    essential,
    kinds_compatible,
    match_spec,
    parse_spec,
)

POISON = 195896080  # the helper number that libbpf puts into what it cannot relocate ("bad relo")
_SIZES = {1: fields.B, 2: fields.H, 4: fields.W, 8: fields.DW}
_U32, _U64 = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True, slots=True)
class _Value:
    """A value on one side. check: whether the instruction must already hold it. size, type_id: of the field that a
    load or store moves, 0 where that is not known. narrow: 32 bits of which older compilers do not say whether they are
    signed; libbpf takes them as signed."""

    value: int
    check: bool = True
    size: int = 0
    type_id: int = 0
    narrow: bool = False


@dataclass(frozen=True, slots=True)
class _Result:
    """new None: no target has it, poison. unsafe: the access size would change in a way that changes its meaning."""

    old: _Value | None
    new: _Value | None
    unsafe: bool = False


class CoreRelocator:
    """The relocations of one object against one target. target: called when the first relocation needs it."""

    def __init__(self, local: Btf, debug: BtfExt, target: Callable[[], Btf], path: str):
        self._local = local
        self._debug = debug
        self._load = target
        self._path = path
        self._target: Btf | None = None
        self._essential: dict[str, list[int]] | None = None

    def apply(self, section: str, start: int, insns: list[Insn]) -> None:
        """Patch the instructions of a function that begins at slot `start` of a section. Raises ObjectError."""
        for relo in self._debug.relos.get(section, ()):
            slot = relo.offset // 8 - start
            if 0 <= slot < len(insns):
                try:
                    self._patch(insns, slot, self._result(relo))
                except ObjectError as error:
                    reason = f"CO-RE relocation at slot {start + slot}: {error.reason}"
                    raise ObjectError(reason, path=self._path, section=section) from None

    def _result(self, relo: CoreRelo) -> _Result:
        try:
            kind = CoreKind(relo.kind)
        except ValueError:
            raise ObjectError(f"unknown kind {relo.kind}") from None
        local = parse_spec(self._local, relo.type_id, relo.access, kind)
        if kind is CoreKind.TYPE_ID_LOCAL:
            same = _Value(relo.type_id, check=False)
            return _Result(same, same)
        found: tuple[Spec, _Result] | None = None
        for candidate in self._candidates(relo.type_id):
            spec = match_spec(local, kind, self.target, candidate)
            if spec is None:
                continue
            result = _both(local, spec, kind)
            if found is None:
                found = spec, result
            elif found[0].bit_offset != spec.bit_offset or _differ(found[1].new, result.new):
                name = self._local.type(relo.type_id).name
                raise ObjectError(f"candidates for {name!r} in the target BTF contradict each other")
        return found[1] if found is not None else _both(local, None, kind)

    @property
    def target(self) -> Btf:
        """The BTF that the object is fitted to."""
        if self._target is None:
            self._target = self._load()
        return self._target

    def _candidates(self, type_id: int) -> list[int]:
        root = self._local.type(type_id)
        if not root.name:
            raise ObjectError("the type has no name to be found by")
        if self._essential is None:
            self._essential = {}
            for name in self.target.names():
                self._essential.setdefault(essential(name), []).extend(self.target.by_name(name))
        ids = self._essential.get(essential(root.name), [])
        return [number for number in sorted(ids) if kinds_compatible(root, self.target.type(number))]

    def _patch(self, insns: list[Insn], slot: int, result: _Result) -> None:
        insn = insns[slot]
        wide = insn.code == 0x18 and slot + 1 < len(insns)
        match fields.class_of(insn.code):
            case fields.ALU | fields.ALU64 if insn.code & fields.X == 0:
                held = insn.imm & _U32
            case fields.LDX | fields.ST | fields.STX:
                held = insn.off
            case fields.LD if wide and insn.src == 0 and insn.off == 0 and insns[slot + 1][:4] == (0, 0, 0, 0):
                held = insn.imm & _U32 | (insns[slot + 1].imm & _U32) << 32
            case _:
                raise ObjectError(f"at an instruction that takes none (code {insn.code:#04x})")
        memory = fields.class_of(insn.code) in (fields.LDX, fields.ST, fields.STX)
        if result.new is None or result.old is None or (memory and result.unsafe):
            poison = Insn(fields.JMP | fields.CALL, imm=POISON)
            insns[slot : slot + 1 + wide] = [poison] * (1 + wide)
            return
        expected = result.old.value if memory or wide else result.old.value & _U32
        unsigned = result.old.narrow and held != expected and held == expected & _U32
        if result.old.check and held != expected and not unsigned:
            raise ObjectError(f"the instruction holds {held}, the object's BTF says {result.old.value}")
        if memory:
            insns[slot] = _memory(insn, result.old, result.new)
        elif wide:
            insns[slot] = insn._replace(imm=_signed(result.new.value))
            insns[slot + 1] = Insn(0, imm=0 if unsigned else _signed(result.new.value >> 32))
        else:
            insns[slot] = insn._replace(imm=_signed(result.new.value))


def _memory(insn: Insn, old: _Value, new: _Value) -> Insn:
    if new.value > 0x7FFF:
        raise ObjectError(f"offset {new.value} does not fit in 16 bits")
    code = insn.code
    if new.size != old.size:
        if fields.size_of(code) != old.size or new.size not in _SIZES:
            raise ObjectError(f"an access of {fields.size_of(code)} bytes cannot become one of {new.size}")
        code = code & ~0x18 | _SIZES[new.size]
    return insn._replace(code=code, off=new.value)


def _differ(a: _Value | None, b: _Value | None) -> bool:
    return (a is None) != (b is None) or (a is not None and b is not None and a.value != b.value)


def _both(local: Spec, target: Spec | None, kind: CoreKind) -> _Result:
    if kind in FIELD_KINDS:
        old, new = _field(local, kind), _field(target, kind)
        unsafe = False
        if target is not None and old is not None and new is not None and old.size != new.size:
            a, b = local.btf.type(old.type_id), target.btf.type(new.type_id)
            pointers = a.kind is BtfKind.PTR and b.kind is BtfKind.PTR
            unsigned = a.kind is BtfKind.INT and b.kind is BtfKind.INT and not (a.signed or b.signed)
            unsafe = not (pointers or unsigned)
        return _Result(old, new, unsafe)
    if kind in TYPE_KINDS:
        return _Result(_type(local, kind), _type(target, kind))
    return _Result(_enumerator(local, kind), _enumerator(target, kind))


def _type(spec: Spec | None, kind: CoreKind) -> _Value:
    if spec is None:
        return _Value(0)
    if kind is CoreKind.TYPE_ID_TARGET:
        return _Value(spec.root, check=False)
    return _Value(spec.btf.size_of(spec.root) if kind is CoreKind.TYPE_SIZE else 1)


def _enumerator(spec: Spec | None, kind: CoreKind) -> _Value | None:
    if kind is CoreKind.ENUMVAL_EXISTS:
        return _Value(int(spec is not None))
    if spec is None:
        return None
    step = spec.steps[0]
    owner = spec.btf.type(step.type_id)
    value = owner.values[step.index].value
    if owner.kind is BtfKind.ENUM:
        return _Value(_signed(value) & _U64, narrow=True)
    return _Value(value & _U64)


def _field(spec: Spec | None, kind: CoreKind) -> _Value | None:
    if kind is CoreKind.FIELD_EXISTS:
        return _Value(int(spec is not None))
    if spec is None:
        return None
    step = spec.steps[-1]
    if step.name is None:
        size = spec.btf.size_of(step.type_id)
        if kind is CoreKind.FIELD_BYTE_OFFSET:
            return _Value(spec.bit_offset // 8, True, size, step.type_id)
        if kind is CoreKind.FIELD_BYTE_SIZE:
            return _Value(size)
        raise ObjectError(f"{kind.name} does not go with an array element")
    member = spec.btf.type(step.type_id).members[step.index]
    kept = spec.btf.resolve(member.type)
    offset, size, bits = _extent(spec, kept.id, member.bit_size)
    bitfield = member.bit_size > 0
    match kind:
        case CoreKind.FIELD_BYTE_OFFSET:
            return _Value(offset, not bitfield, 0 if bitfield else size, 0 if bitfield else kept.id)
        case CoreKind.FIELD_BYTE_SIZE:
            return _Value(size, not bitfield)
        case CoreKind.FIELD_SIGNED:
            return _Value(int(kept.signed))
        case CoreKind.FIELD_LSHIFT_U64:
            return _Value(64 - (spec.bit_offset + bits - offset * 8), not bitfield)
    return _Value(64 - bits)


def _extent(spec: Spec, type_id: int, bits: int) -> tuple[int, int, int]:
    """(byte offset, bytes, bits) of the load that gets a field; a bit field takes the smallest aligned one."""
    size = spec.btf.size_of(type_id)
    if not bits:
        return spec.bit_offset // 8, size, size * 8
    if not size:
        raise ObjectError("a bit field of a type without size")
    while True:
        offset = spec.bit_offset // 8 // size * size
        if spec.bit_offset + bits - offset * 8 <= size * 8:
            return offset, size, bits
        if size >= 8:
            raise ObjectError("a bit field that no 64-bit load covers")
        size *= 2


def _signed(value: int) -> int:
    value &= _U32
    return value - (1 << 32) if value >> 31 else value
