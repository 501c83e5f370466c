"""What the sections of an object are for, and BTF made whole with what only the ELF knows.

clang leaves sizes of data sections and offsets of global variables open in BTF; loaders fill them in from the symbol
table, and turn hidden functions into static ones, before the kernel sees the table. Mirrors libbpf.
"""

from __future__ import annotations

import re
import struct

from pktbpf.objfile.btf import Btf, BtfKind
from pktbpf.objfile.elf import SHN_LORESERVE, SHT_NOBITS, STB_LOCAL, STT_FUNC, Elf, Section

SOCKET_FILTER = re.compile(r"\??(?:socket_filter|socket|filter)\d*(?:/.*)?")
EXTERN = 2  # linkage of a VAR or FUNC that the object only declares
BTF_MAPS, LEGACY_MAPS = ".maps", "maps"
TEXT = ".text"


def is_data(section: Section) -> bool:
    """Whether a section is global data: .data, .rodata, .bss and their named variants, if not empty."""
    if not section.data or section.executable:
        return False
    return section.name in (".data", ".rodata", ".bss") or section.name.startswith((".data.", ".rodata.", ".bss."))


def is_read_only(name: str) -> bool:
    """Whether a data section is constant (.rodata, .rodata.NAME)."""
    return name == ".rodata" or name.startswith(".rodata.")


def license_of(elf: Elf) -> str:
    """The string in section "license", "" without one: the kernel takes that for not GPL-compatible."""
    section = elf.section("license")
    return section.data.split(b"\0")[0].decode("utf-8", "replace") if section else ""


def whole_btf(elf: Elf, btf: Btf) -> Btf:
    """The table with sizes of data sections, offsets of variables and linkage of hidden functions filled in."""
    raw = bytearray(btf.raw)
    offsets = {s.name: s.value for s in elf.symbols if s.bind != STB_LOCAL and 0 < s.section < SHN_LORESERVE}
    hidden = {s.name for s in elf.symbols if s.type == STT_FUNC and s.bind != STB_LOCAL and s.hidden}
    for found in btf.types():
        start = btf.starts[found.id - 1]
        if found.kind is BtfKind.FUNC and found.linkage == 1 and found.name in hidden:
            struct.pack_into("<H", raw, start + 4, 0)
        if found.kind is not BtfKind.DATASEC or found.name in (".ksyms", ".kconfig"):
            continue
        section = elf.section(found.name)
        entries = [[entry.offset, entry.type, entry.size] for entry in found.variables]
        if not found.size and section is not None:
            struct.pack_into("<I", raw, start + 8, len(section.data))
            for entry in entries:
                variable = btf.type(entry[1])
                if variable.kind is BtfKind.VAR and variable.linkage and variable.name in offsets:
                    entry[0] = offsets[variable.name] & 0xFFFF_FFFF
        for number, (offset, kind, size) in enumerate(sorted(entries, key=lambda entry: entry[0])):
            struct.pack_into("<III", raw, start + 12 + 12 * number, kind, offset, size)
    return Btf.parse(bytes(raw), btf.origin)


def kernel_bytes(btf: Btf) -> bytes:
    """The table as BPF_BTF_LOAD takes it: externs, which the kernel does not know, become harmless types.

    Sections of externs turn into unnamed structs, extern functions into pointers, extern variables into ints: records
    of the same length, so that no type id changes.
    """
    raw = bytearray(btf.raw)
    whole = next((found.id for found in btf.types() if found.kind is BtfKind.INT and found.size == 4), 0)
    for found in btf.types():
        start = btf.starts[found.id - 1]
        if found.kind is BtfKind.FUNC and found.linkage == EXTERN:
            struct.pack_into("<III", raw, start, 0, BtfKind.PTR << 24, found.ref)
        elif found.kind is BtfKind.VAR and found.linkage == EXTERN:
            struct.pack_into("<II", raw, start + 8, whole, 1)
        elif found.kind is BtfKind.DATASEC and found.name in (".ksyms", ".kconfig"):
            struct.pack_into("<III", raw, start, 0, BtfKind.STRUCT << 24 | len(found.variables), 4)
            for number in range(len(found.variables)):
                struct.pack_into("<III", raw, start + 12 + 12 * number, 0, whole, 0)
    return bytes(raw)


def section_bytes(section: Section) -> bytes:
    """First contents of a data section."""
    return bytes(len(section.data)) if section.type == SHT_NOBITS else section.data
