""".BTF.ext: which function and source line each instruction is of, and the CO-RE relocations.

Offsets in the section are bytes from the start of the named code section. A damaged section ends in ObjectError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pktbpf.errors import ObjectError
from pktbpf.objfile.btf import MAGIC, Btf

_HEADER = struct.Struct("<HBBI")
_SECTION = ".BTF.ext"


@dataclass(frozen=True, slots=True)
class CoreRelo:
    """`struct bpf_core_relo`: byte offset of the instruction, root type, access string ("0:1:2"), kind."""

    offset: int
    type_id: int
    access: str
    kind: int


@dataclass(frozen=True, slots=True)
class BtfExt:
    """Records by code section. functions: (byte offset, FUNC id). lines: (byte offset, file, line text, line << 10 |
    column), file and text as offsets into the strings of the BTF. relos: CO-RE relocations."""

    functions: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    lines: Mapping[str, tuple[tuple[int, int, int, int], ...]] = field(default_factory=dict)
    relos: Mapping[str, tuple[CoreRelo, ...]] = field(default_factory=dict)


def parse_btf_ext(raw: bytes, btf: Btf) -> BtfExt:
    """Parse the section; names and access strings come from `btf`. Raises ObjectError."""
    if len(raw) < 24:
        raise ObjectError("shorter than its header", section=_SECTION)
    magic, version, _, header = _HEADER.unpack_from(raw)
    if magic != MAGIC or version != 1:
        raise ObjectError(f"magic {magic:#06x}, version {version}", section=_SECTION)
    parts: dict[str, Iterator[tuple[str, bytes]]] = {}
    for name, at, smallest in (("functions", 8, 8), ("lines", 16, 16), ("relos", 24, 16)):
        if header < at + 8:
            break
        if len(raw) < at + 8:
            raise ObjectError("header is cut off", section=_SECTION)
        offset, length = struct.unpack_from("<II", raw, at)
        if header + offset + length > len(raw):
            raise ObjectError(f"{name} reach past the end", section=_SECTION)
        parts[name] = _records(raw[header + offset : header + offset + length], smallest, btf)
    functions: dict[str, list[tuple[int, int]]] = {}
    for section, record in parts.get("functions", iter(())):
        functions.setdefault(section, []).append(struct.unpack_from("<II", record))
    lines: dict[str, list[tuple[int, int, int, int]]] = {}
    for section, record in parts.get("lines", iter(())):
        lines.setdefault(section, []).append(struct.unpack_from("<IIII", record))
    relos: dict[str, list[CoreRelo]] = {}
    for section, record in parts.get("relos", iter(())):
        offset, type_id, access, kind = struct.unpack_from("<IIII", record)
        relos.setdefault(section, []).append(CoreRelo(offset, type_id, btf.name(access), kind))
    return BtfExt(
        {key: tuple(sorted(found)) for key, found in functions.items()},
        {key: tuple(sorted(entries, key=lambda entry: entry[0])) for key, entries in lines.items()},
        {key: tuple(sorted(entries, key=lambda relo: relo.offset)) for key, entries in relos.items()},
    )


def _records(part: bytes, smallest: int, btf: Btf) -> Iterator[tuple[str, bytes]]:
    """(code section, record) of all records of a part; records may be longer than what this version knows."""
    if not part:
        return
    size = int.from_bytes(part[:4], "little")
    if size < smallest or size % 4:
        raise ObjectError(f"records of {size} bytes", section=_SECTION)
    at = 4
    while at < len(part):
        if at + 8 > len(part):
            raise ObjectError("a section head is cut off", section=_SECTION)
        name, count = struct.unpack_from("<II", part, at)
        at += 8
        if at + size * count > len(part):
            raise ObjectError("records reach past the end", section=_SECTION)
        section = btf.name(name)
        for start in range(at, at + size * count, size):
            yield section, part[start : start + size]
        at += size * count
