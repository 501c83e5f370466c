"""Map definitions of an object: BTF-defined `.maps`, legacy `SEC("maps")`, and data sections as one-element arrays.

Sizes, defaults and refusals are libbpf's: ring buffers are rounded up to a power-of-two number of pages, an empty
PERF_EVENT_ARRAY gets one entry per processor, .rodata is read-only for programs and frozen.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import PurePath

from pktbpf.abi import map_kinds
from pktbpf.errors import ObjectError
from pktbpf.objfile.btf import COMPOSITES, Btf, BtfKind, BtfType, Member, SectionVariable
from pktbpf.objfile.btf_data import DataType
from pktbpf.objfile.btf_fields import value_fields
from pktbpf.objfile.elf import STT_SECTION, Elf, Section, Symbol
from pktbpf.objfile.sections import BTF_MAPS, LEGACY_MAPS, is_data, is_read_only, section_bytes
from pktbpf.objfile.values import BPF_F_MMAPABLE, BPF_F_RDONLY_PROG, MapDefinition, Variable
from pktbpf.program import Program, ProgramRef, ValueField

PAGE_SIZE = 4096
MAP_IN_MAP = frozenset({"ARRAY_OF_MAPS", "HASH_OF_MAPS"})
# Kinds for which the kernel takes no BTF types of keys and values.
_NO_BTF = MAP_IN_MAP | {
    "PERF_EVENT_ARRAY", "CGROUP_ARRAY", "STACK_TRACE", "DEVMAP", "DEVMAP_HASH", "CPUMAP", "XSKMAP", "SOCKMAP",
    "SOCKHASH", "QUEUE", "STACK",
}  # fmt: skip
_NUMBERS = {
    "type": "kind", "max_entries": "max_entries", "map_flags": "flags", "key_size": "key_size",
    "value_size": "value_size", "numa_node": "numa_node", "pinning": "pinning", "map_extra": "extra",
}  # fmt: skip


class _Fields(dict[str, int]):
    """What a BTF map definition says, by the names of MapDefinition's fields; `inner` and `key_type` beside it."""

    key_type: DataType | None = None
    value_type: DataType | None = None
    inner: MapDefinition | None = None


def btf_maps(elf: Elf, btf: Btf | None, home: Mapping[str, Program], cpus: int) -> dict[str, MapDefinition]:
    """The maps of section .maps by name, first contents included."""
    section = elf.section(BTF_MAPS)
    if section is None:
        return {}
    if btf is None:
        raise ObjectError("BTF-defined maps without BTF; build with clang -g", path=elf.path, section=BTF_MAPS)
    table = btf.find(BTF_MAPS, BtfKind.DATASEC)
    if table is None:
        raise ObjectError("BTF says nothing about this section; build with clang -g", path=elf.path, section=BTF_MAPS)
    maps: dict[str, MapDefinition] = {}
    for entry in table.variables:
        variable = btf.type(entry.type)
        if variable.kind is not BtfKind.VAR:
            raise _wrong(elf, f"a {variable.kind.name} where a variable should be")
        if entry.offset + entry.size > len(section.data):
            raise _wrong(elf, f"map {variable.name!r} reaches past the end of the section")
        maps[variable.name] = _btf_map(elf, btf, variable.name, btf.resolve(variable.ref), cpus)
    return _initial_slots(elf, btf, section, table, maps, home)


def _wrong(elf: Elf, reason: str) -> ObjectError:
    return ObjectError(reason, path=elf.path, section=BTF_MAPS)


def _btf_map(elf: Elf, btf: Btf, name: str, definition: BtfType, cpus: int, inner: bool = False) -> MapDefinition:
    if definition.kind is not BtfKind.STRUCT:
        raise _wrong(elf, f"map {name!r} is a {definition.kind.name}, not a struct")
    fields = _Fields()
    for member in definition.members:
        if member.name in _NUMBERS:
            _set(elf, name, fields, _NUMBERS[member.name], _number(elf, btf, name, member))
        elif member.name in ("key", "value"):
            _set_type(elf, btf, name, fields, member)
        elif member.name == "values" and not inner:
            fields["value_size"] = fields.get("value_size") or 4
            fields.inner = _inner_map(elf, btf, name, member, cpus)
        else:
            raise _wrong(elf, f"map {name!r}: unknown field {member.name!r}")
    kind = map_kinds.BY_NUMBER.get(fields.pop("kind", 0))
    if kind is None or not kind.number:
        raise _wrong(elf, f"map {name!r} has no type, or one that is not known")
    return _definition(elf, name, kind.name, fields, cpus)


def _definition(elf: Elf, name: str, kind: str, fields: _Fields, cpus: int) -> MapDefinition:
    entries = fields.get("max_entries", 0)
    if kind == "PERF_EVENT_ARRAY" and not entries:
        entries = cpus
    if kind in ("RINGBUF", "USER_RINGBUF"):
        entries = _ring_size(entries)
    takes_btf = kind not in _NO_BTF
    return MapDefinition(
        kind,
        fields.get("key_size", 0),
        fields.get("value_size", 0),
        entries,
        fields.get("flags", 0),
        name,
        fields.inner,
        fields.get("extra", 0),
        key_type=fields.key_type,
        value_type=fields.value_type,
        section=BTF_MAPS,
        pinning=fields.get("pinning", 0),
        numa_node=fields.get("numa_node"),
        key_type_id=fields.key_type.id if fields.key_type and takes_btf else 0,
        value_type_id=fields.value_type.id if fields.value_type and takes_btf else 0,
        kernel_name=kernel_name(name),
        fields=_special(fields.value_type),
    )


def _special(value: DataType | None) -> tuple[ValueField, ...]:
    return value_fields(value.btf, value.id) if value is not None else ()


def kernel_name(name: str) -> str:
    """A name as the kernel takes it: at most 15 of letters, digits, `_` and `.`."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", name[:15])


def _ring_size(size: int) -> int:
    pages = size // PAGE_SIZE
    if size == 0 or (size % PAGE_SIZE == 0 and pages & (pages - 1) == 0):
        return size
    wanted = PAGE_SIZE
    while wanted <= size:
        wanted <<= 1
    return wanted if wanted < 1 << 32 else size


def _set(elf: Elf, name: str, fields: _Fields, key: str, value: int) -> None:
    if fields.setdefault(key, value) != value:
        raise _wrong(elf, f"map {name!r}: {key} is both {fields[key]} and {value}")


def _number(elf: Elf, btf: Btf, name: str, member: Member) -> int:
    """__uint(): the length of an array that the field points to; __ulong(): the only value of an enum."""
    found = btf.resolve(member.type)
    if found.kind is BtfKind.PTR:
        found = btf.resolve(found.ref)
        if found.kind is BtfKind.ARRAY:
            return found.count
    elif found.kind in (BtfKind.ENUM, BtfKind.ENUM64) and len(found.values) == 1:
        return found.values[0].value
    raise _wrong(elf, f"map {name!r}: field {member.name!r} is no __uint()")


def _set_type(elf: Elf, btf: Btf, name: str, fields: _Fields, member: Member) -> None:
    found = btf.type(member.type)
    if found.kind is not BtfKind.PTR:
        raise _wrong(elf, f"map {name!r}: field {member.name!r} is no __type()")
    codec = DataType.of(btf, found.ref)
    _set(elf, name, fields, f"{member.name}_size", codec.size)
    if member.name == "key":
        fields.key_type = codec
    else:
        fields.value_type = codec


def _inner_map(elf: Elf, btf: Btf, name: str, member: Member, cpus: int) -> MapDefinition | None:
    """The definition of maps inside a map; None for a program array."""
    array = btf.type(member.type)
    if array.kind is not BtfKind.ARRAY or array.count:
        raise _wrong(elf, f"map {name!r}: `values` is no __array()")
    pointer = btf.resolve(array.ref)
    target = btf.resolve(pointer.ref) if pointer.kind is BtfKind.PTR else pointer
    if target.kind is BtfKind.FUNC_PROTO:
        return None
    if pointer.kind is not BtfKind.PTR or target.kind is not BtfKind.STRUCT:
        raise _wrong(elf, f"map {name!r}: `values` holds neither programs nor maps")
    return _btf_map(elf, btf, f"{name}.inner", target, cpus, inner=True)


def _initial_slots(
    elf: Elf, btf: Btf, section: Section, table: BtfType, maps: dict[str, MapDefinition], home: Mapping[str, Program]
) -> dict[str, MapDefinition]:
    """Apply the relocations of .maps: slot i of `values` is the program or map that the symbol names."""
    slots: dict[str, dict[int, ProgramRef | str]] = {}
    for reloc in elf.relocs.get(section.index, ()):
        entry = next(
            (e for e in table.variables if e.offset <= reloc.offset and reloc.offset + 8 <= e.offset + e.size), None
        )
        if entry is None:
            raise _wrong(elf, f"a first value at offset {reloc.offset} belongs to no map")
        name = btf.type(entry.type).name
        slot = _slot(elf, btf, name, entry, reloc.offset)
        slots.setdefault(name, {})[slot] = _slot_value(elf, maps, maps[name], reloc.symbol)
    home_maps = dict(maps)
    for name, values in slots.items():
        done = {i: home_maps[value] if isinstance(value, str) else value for i, value in sorted(values.items())}
        home_maps[name] = replace(
            maps[name], slots={i: replace(v, home=home) if isinstance(v, ProgramRef) else v for i, v in done.items()}
        )
    return home_maps


def _slot(elf: Elf, btf: Btf, name: str, entry: SectionVariable, offset: int) -> int:
    definition = btf.resolve(btf.type(entry.type).ref)
    member = definition.members[-1] if definition.members else None
    if member is None or member.name != "values":
        raise _wrong(elf, f"map {name!r} has first values but no `values` as its last field")
    start = offset - entry.offset - member.bit_offset // 8
    if start < 0 or start % 8:
        raise _wrong(elf, f"map {name!r}: a first value at an odd place")
    return start // 8


def _slot_value(elf: Elf, maps: Mapping[str, MapDefinition], owner: MapDefinition, symbol: Symbol) -> ProgramRef | str:
    if owner.kind in MAP_IN_MAP:
        if symbol.name not in maps:
            raise _wrong(elf, f"map {owner.name!r}: {symbol.name!r} is no map of the object")
        return symbol.name
    if owner.kind != "PROG_ARRAY":
        raise _wrong(elf, f"map {owner.name!r}: a {owner.kind} cannot have first values")
    where = elf.sections.get(symbol.section)
    if not symbol.name or where is None or not where.executable:
        raise _wrong(elf, f"map {owner.name!r}: {symbol.name or 'a static function'!r} is no program of the object")
    return ProgramRef(symbol.name)


def legacy_maps(elf: Elf, btf: Btf | None) -> dict[str, MapDefinition]:
    """The maps of section "maps": `struct bpf_map_def`, or what iproute2 makes of it."""
    section = elf.section(LEGACY_MAPS)
    if section is None:
        return {}
    symbols = sorted(
        (s for s in elf.symbols if s.section == section.index and s.type != STT_SECTION and s.name),
        key=lambda s: s.value,
    )
    ends = [symbol.value for symbol in symbols[1:]] + [len(section.data)]
    maps = {}
    for symbol, end in zip(symbols, ends, strict=False):
        raw = section.data[symbol.value : min(end, symbol.value + (symbol.size or end))]
        if len(raw) < 16:
            raise ObjectError(f"map {symbol.name!r} has {len(raw)} bytes, not 20", path=elf.path, section=LEGACY_MAPS)
        number, key, value, entries, flags, *more = struct.unpack("<9I", raw[:36].ljust(36, b"\0"))
        if any(raw[36:]) or more[2] or more[3] or (len(raw) != 36 and any(more)):
            raise ObjectError(f"map {symbol.name!r} has options that are not known", path=elf.path, section=LEGACY_MAPS)
        kind = map_kinds.BY_NUMBER.get(number)
        if kind is None or not number:
            raise ObjectError(f"map {symbol.name!r} is of unknown type {number}", path=elf.path, section=LEGACY_MAPS)
        key_type, value_type = _annotated(btf, symbol.name, key, value)
        maps[symbol.name] = MapDefinition(
            kind.name, key, value, entries, flags, symbol.name, section=LEGACY_MAPS, key_type=key_type,
            value_type=value_type, kernel_name=kernel_name(symbol.name), fields=_special(value_type),
        )  # fmt: skip
    return maps


def _annotated(btf: Btf | None, name: str, key_size: int, value_size: int) -> tuple[DataType | None, DataType | None]:
    """Types that BPF_ANNOTATE_KV_PAIR left for a legacy map."""
    found = btf.find(f"____btf_map_{name}", *COMPOSITES) if btf is not None else None
    if btf is None or found is None or [member.name for member in found.members] != ["key", "value"]:
        return None, None
    key, value = (DataType.of(btf, member.type) for member in found.members)
    return (key, value) if (key.size, value.size) == (key_size, value_size) else (None, None)


def data_maps(elf: Elf, btf: Btf | None) -> dict[str, MapDefinition]:
    """Each section of global data as an array of one element."""
    maps = {}
    prefix = PurePath(elf.path).name.removesuffix(".o")
    for section in elf.sections.values():
        if not is_data(section):
            continue
        table = btf.find(section.name, BtfKind.DATASEC) if btf is not None else None
        value = DataType(btf, table.id, len(section.data)) if btf is not None and table is not None else None
        constant = is_read_only(section.name)
        # A section of nothing but static variables is not for user space: the kernel may refuse to map its kinds.
        mapped = btf is None or table is None or any(btf.type(entry.type).linkage for entry in table.variables)
        maps[section.name] = MapDefinition(
            "ARRAY", 4, len(section.data), 1,
            (BPF_F_RDONLY_PROG if constant else 0) | (BPF_F_MMAPABLE if mapped else 0),
            section.name, initial=section_bytes(section), frozen=constant, section=section.name, value_type=value,
            value_type_id=value.id if value is not None else 0, kernel_name=_data_name(prefix, section.name),
            fields=_special(value),
        )  # fmt: skip
    return maps


def _data_name(prefix: str, name: str) -> str:
    if "." in name[1:]:
        return kernel_name(name)
    return kernel_name(prefix[: max(0, 15 - max(7, len(name)))] + name)


def variables(elf: Elf, btf: Btf | None, maps: Mapping[str, MapDefinition]) -> dict[str, Variable]:
    """Global and static variables of the data sections; a static one only where its name is not a global's."""
    found: dict[str, Variable] = {}
    for definition in maps.values():
        if definition.initial is not None and definition.value_type is not None:
            assert btf is not None
            found |= {v.name: v for v in _typed(btf, definition) if v.name not in found}
    for symbol in elf.symbols:
        section = elf.sections.get(symbol.section)
        if section is None or symbol.type == STT_SECTION or not symbol.name or symbol.name in found or not symbol.size:
            continue
        home = maps.get(section.name) if is_data(section) else None
        if home is not None and symbol.value + symbol.size <= home.value_size:
            found[symbol.name] = Variable(symbol.name, section.name, symbol.value, symbol.size)
    return found


def _typed(btf: Btf, definition: MapDefinition) -> Iterator[Variable]:
    assert definition.value_type is not None
    entries = btf.type(definition.value_type.id).variables
    for entry in sorted(entries, key=lambda e: -btf.type(e.type).linkage):
        variable = btf.type(entry.type)
        size = btf.size_of(variable.ref)
        if variable.kind is BtfKind.VAR and entry.offset + size <= definition.value_size:
            yield Variable(variable.name, definition.name, entry.offset, size, DataType(btf, variable.ref, size))
