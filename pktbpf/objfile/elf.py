"""The parts of an ELF object that BPF loading needs, read through pyelftools into plain frozen values.

Anything pyelftools cannot digest, and anything that is no little-endian 64-bit relocatable BPF object, ends in
ObjectError. pyelftools is imported when the first object is read.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pktbpf.errors import ObjectError

EM_BPF = 247
SECTION_HEADER_SIZE = 64
SHT_PROGBITS, SHT_NOBITS = 1, 8
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_COMPRESSED = 0x1, 0x2, 0x4, 0x800
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_SECTION = 0, 1, 2, 3
STV_INTERNAL, STV_HIDDEN = 1, 2
SHN_UNDEF, SHN_LORESERVE = 0, 0xFF00
R_BPF_64_64, R_BPF_64_32 = 1, 10

MAX_BSS = 64 << 20  # an array element of this size would be no kernel's; keeps damaged headers from eating the memory
MAX_SYMBOLS = 1 << 20

_BIND = {"STB_LOCAL": STB_LOCAL, "STB_GLOBAL": STB_GLOBAL, "STB_WEAK": STB_WEAK}
_TYPE = {"STT_NOTYPE": STT_NOTYPE, "STT_OBJECT": STT_OBJECT, "STT_FUNC": STT_FUNC, "STT_SECTION": STT_SECTION}
_VISIBILITY = {"STV_INTERNAL": STV_INTERNAL, "STV_HIDDEN": STV_HIDDEN}
_SECTION = {"SHN_UNDEF": SHN_UNDEF, "SHN_ABS": 0xFFF1, "SHN_COMMON": 0xFFF2}


@dataclass(frozen=True, slots=True)
class Section:
    """One section: number, name, type, flags and bytes (zeros for .bss)."""

    index: int
    name: str
    type: int
    flags: int
    data: bytes = field(repr=False)

    @property
    def executable(self) -> bool:
        """Whether it holds instructions."""
        return self.type == SHT_PROGBITS and bool(self.flags & SHF_EXECINSTR)


@dataclass(frozen=True, slots=True)
class Symbol:
    """One entry of .symtab; section is its number, 0 for an undefined (extern) one, 0xff00 and above for special."""

    index: int
    name: str
    value: int
    size: int
    bind: int
    type: int
    visibility: int
    section: int

    @property
    def hidden(self) -> bool:
        """Whether visibility is hidden or internal."""
        return self.visibility in (STV_HIDDEN, STV_INTERNAL)


@dataclass(frozen=True, slots=True)
class Reloc:
    """One relocation: byte offset in its section, the symbol, R_BPF_* type."""

    offset: int
    symbol: Symbol
    type: int


@dataclass(frozen=True, slots=True)
class Elf:
    """An object: sections by number, symbols in order, relocations of code and maps by the section they change."""

    path: str
    sections: Mapping[int, Section]
    symbols: tuple[Symbol, ...]
    relocs: Mapping[int, tuple[Reloc, ...]]

    def section(self, name: str) -> Section | None:
        """The first section of this name."""
        return next((section for section in self.sections.values() if section.name == name), None)


def printable(name: str) -> str:
    """A name as it may stand in a message: control characters of a damaged table are escaped."""
    return name if name.isprintable() else name.encode("unicode_escape", "surrogatepass").decode()


def read_elf(raw: bytes, path: str) -> Elf:
    """Parse an object. path: what errors call it. Raises ObjectError."""
    if raw[:4] != b"\x7fELF":
        raise ObjectError("not an ELF object", path=path)
    if len(raw) < 64:
        raise ObjectError("damaged ELF object: shorter than its header", path=path)
    if raw[4] != 2:
        raise ObjectError("not a 64-bit ELF object; build with clang -target bpf", path=path)
    if raw[5] != 1:
        raise ObjectError("a big-endian object (clang -target bpfeb); build with clang -target bpfel", path=path)
    machine = int.from_bytes(raw[18:20], "little")
    if machine not in (EM_BPF, 0):
        raise ObjectError(f"machine {machine} is not BPF ({EM_BPF}); build with clang -target bpf", path=path)
    if int.from_bytes(raw[16:18], "little") != 1:
        raise ObjectError("not a relocatable object (ET_REL); give the .o that clang -c writes", path=path)
    _check_length(raw, path)
    try:
        return _parse(raw, path)
    except ObjectError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # pyelftools lets a dozen kinds of exceptions escape on damaged files
        reason = printable(" ".join(str(error).split())) or type(error).__name__
        raise ObjectError(f"damaged ELF object: {reason}", path=path) from error


def _check_length(raw: bytes, path: str) -> None:
    """Whether the file holds its section table and all sections. Raises ObjectError for one that was cut."""
    table = int.from_bytes(raw[40:48], "little")
    size, count = (int.from_bytes(raw[at : at + 2], "little") for at in (58, 60))
    advice = f"the file has {len(raw)} bytes; build or copy it anew"
    if table + size * count > len(raw):
        raise ObjectError(f"truncated: the section table ends at {table + size * count}, {advice}", path=path)
    if size != SECTION_HEADER_SIZE:
        return  # no table that pyelftools reads either
    for number in range(count):
        header = raw[table + number * size : table + (number + 1) * size]
        kind = int.from_bytes(header[4:8], "little")
        end = int.from_bytes(header[24:32], "little") + int.from_bytes(header[32:40], "little")
        if kind not in (0, SHT_NOBITS) and end > len(raw):
            raise ObjectError(f"truncated: section {number} ends at {end}, {advice}", path=path)


def _parse(raw: bytes, path: str) -> Elf:
    from elftools.elf.elffile import ELFFile

    elf = ELFFile(io.BytesIO(raw))
    sections: dict[int, Section] = {}
    symbols: tuple[Symbol, ...] = ()
    reloc_sections = []
    for index, section in enumerate(elf.iter_sections()):
        kind = section["sh_type"]
        if kind == "SHT_SYMTAB":
            symbols = _symbols(section, path)
        elif kind == "SHT_REL":
            reloc_sections.append(section)
        elif kind == "SHT_RELA":
            raise ObjectError("RELA relocations are not BPF's", path=path, section=printable(section.name))
        sections[index] = _section(index, section, raw, path)
    relocs = {}
    for section in reloc_sections:
        target = sections.get(section["sh_info"])
        # Debug sections have relocations, too; only those of code and of maps mean anything to a loader.
        if target is not None and (target.executable or target.name == ".maps"):
            relocs[target.index] = _relocs(section, symbols, path)
    return Elf(path, sections, symbols, relocs)


def _section(index: int, section: Any, raw: bytes, path: str) -> Section:
    number = {"SHT_PROGBITS": SHT_PROGBITS, "SHT_NOBITS": SHT_NOBITS}.get(section["sh_type"], 0)
    offset, size, flags = section["sh_offset"], section["sh_size"], section["sh_flags"]
    if number == SHT_NOBITS:
        if size > MAX_BSS:
            raise ObjectError(
                f"{size} bytes of zeros are more than {MAX_BSS}", path=path, section=printable(section.name)
            )
        data = bytes(size)
    elif index == 0 or section["sh_type"] == "SHT_NULL":
        data = b""
    else:
        if offset + size > len(raw):
            raise ObjectError(
                "damaged ELF object: section reaches past the end", path=path, section=printable(section.name)
            )
        data = raw[offset : offset + size]
    if flags & SHF_COMPRESSED:
        raise ObjectError(
            "compressed sections are not supported by BPF loaders", path=path, section=printable(section.name)
        )
    return Section(index, printable(section.name), number, flags, data)


def _symbols(section: Any, path: str) -> tuple[Symbol, ...]:
    if section.num_symbols() > MAX_SYMBOLS:
        raise ObjectError(
            f"{section.num_symbols()} symbols are more than {MAX_SYMBOLS}", path=path, section=section.name
        )
    out = []
    for index, symbol in enumerate(section.iter_symbols()):
        entry = symbol.entry
        where = entry["st_shndx"]
        out.append(
            Symbol(
                index,
                printable(symbol.name),
                entry["st_value"],
                entry["st_size"],
                _number(entry["st_info"]["bind"], _BIND),
                _number(entry["st_info"]["type"], _TYPE),
                _number(entry["st_other"]["visibility"], _VISIBILITY),
                where if isinstance(where, int) else _SECTION.get(where, 0xFFFF),
            )
        )
    return tuple(out)


def _number(value: Any, names: Mapping[str, int]) -> int:
    return value if isinstance(value, int) else names.get(value, 0)


def _relocs(section: Any, symbols: tuple[Symbol, ...], path: str) -> tuple[Reloc, ...]:
    if section.num_relocations() > MAX_SYMBOLS:
        raise ObjectError("too many relocations", path=path, section=printable(section.name))
    out = []
    for reloc in section.iter_relocations():
        number = reloc["r_info_sym"]
        if number >= len(symbols):
            raise ObjectError(
                f"relocation names symbol {number}, which is not there", path=path, section=printable(section.name)
            )
        out.append(Reloc(reloc["r_offset"], symbols[number], reloc["r_info_type"]))
    return tuple(sorted(out, key=lambda entry: entry.offset))
