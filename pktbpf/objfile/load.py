"""`load_object`: bytes of an ELF object -> Object, in libbpf's order of steps.

The environment comes in by name: `btf` is what CO-RE relocations are fitted to (default: the running kernel's, where
there is one), `kconfig` what `.kconfig` externs read, `cpus` the size of a PERF_EVENT_ARRAY that states none.
"""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, overload

from pktbpf.errors import ObjectError
from pktbpf.objfile.btf import Btf
from pktbpf.objfile.btf_ext import BtfExt, parse_btf_ext
from pktbpf.objfile.core_relocate import CoreRelocator
from pktbpf.objfile.elf import Elf, read_elf
from pktbpf.objfile.externs import KCONFIG, Externs, read_externs
from pktbpf.objfile.kernel_btf import KERNEL_BTF, running_kernel
from pktbpf.objfile.link import Linker, entries
from pktbpf.objfile.map_sections import btf_maps, data_maps, legacy_maps, variables
from pktbpf.objfile.sections import license_of, whole_btf
from pktbpf.objfile.values import MapDefinition, Object
from pktbpf.program import Program

if TYPE_CHECKING:
    from typing import TypeAlias

Source: TypeAlias = "str | os.PathLike[str] | bytes"

@overload
def load_object(
    source: Source,
    *,
    program: None = None,
    btf: Source | None = None,
    kconfig: Mapping[str, str] | None = None,
    cpus: int | None = None,
    path: str | None = None,
) -> Object: ...


@overload
def load_object(
    source: Source,
    *,
    program: str | None,
    btf: Source | None = None,
    kconfig: Mapping[str, str] | None = None,
    cpus: int | None = None,
    path: str | None = None,
) -> Object | Program: ...


def load_object(
    source: Source,
    *,
    program: str | None = None,
    btf: Source | None = None,
    kconfig: Mapping[str, str] | None = None,
    cpus: int | None = None,
    path: str | None = None,
) -> Object | Program:
    """Read an object file, given by path or as bytes; all its socket filters are linked.

    program: name of the one to return instead of the Object. btf: target of CO-RE relocations: raw BTF bytes, or the
    path of raw BTF or of an ELF file with a .BTF section. kconfig: values of `.kconfig` externs (default: the running
    kernel's). cpus: entries of a PERF_EVENT_ARRAY that states none. path: what errors call bytes. Raises
    ObjectError for a damaged object or one that no kernel would take, OSError for an unreadable file.
    """
    name = path or (os.fspath(source) if not isinstance(source, bytes) else "object")
    raw = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        found = _load(raw, name, btf, kconfig, cpus or os.cpu_count() or 1)
    except ObjectError as error:
        if error.path is not None:
            raise
        raise ObjectError(error.reason, path=name, section=error.section) from error
    return found if program is None else found.program(program)


def _load(raw: bytes, path: str, target: Source | None, kconfig: Mapping[str, str] | None, cpus: int) -> Object:
    elf = read_elf(raw, path)
    types, debug = _debug(elf)
    home: dict[str, Program] = {}
    maps: dict[str, MapDefinition] = legacy_maps(elf, types) | btf_maps(elf, types, home, cpus)
    maps |= data_maps(elf, types)
    externs = _externs(elf, types, kconfig)
    if externs.map is not None:
        maps[KCONFIG] = externs.map
    core = CoreRelocator(types, debug, lambda: target_btf(target), path) if types is not None else None
    linker = Linker(elf, maps, externs, core, types, debug)
    ours, others = entries(linker.functions)
    license = license_of(elf)
    for function in ours:
        home[function.name] = linker.link(function, license)
    return Object(path, license, home, maps, variables(elf, types, maps), types, others)


def _debug(elf: Elf) -> tuple[Btf | None, BtfExt]:
    section = elf.section(".BTF")
    if section is None:
        return None, BtfExt()
    types = whole_btf(elf, Btf.parse(section.data))
    ext = elf.section(".BTF.ext")
    return types, parse_btf_ext(ext.data, types) if ext is not None else BtfExt()


def _externs(elf: Elf, types: Btf | None, kconfig: Mapping[str, str] | None) -> Externs:
    wanted = types is not None and bool(types.by_name(KCONFIG))
    return read_externs(elf, types, kernel_config() if wanted and kconfig is None else kconfig or {})


def kernel_config() -> dict[str, str]:
    """The running kernel's configuration (/proc/config.gz or /boot/config-RELEASE) and LINUX_KERNEL_VERSION."""
    release = os.uname().release
    numbers = [int(part) if part.isdecimal() else 0 for part in release.split("-")[0].split(".")[:3]]
    major, minor, patch = [*numbers, 0, 0, 0][:3]
    found = {"LINUX_KERNEL_VERSION": str(major << 16 | minor << 8 | min(patch, 255)), "LINUX_HAS_SYSCALL_WRAPPER": "y"}
    text = ""
    if Path("/proc/config.gz").exists():
        text = gzip.decompress(Path("/proc/config.gz").read_bytes()).decode()
    elif Path(f"/boot/config-{release}").exists():
        text = Path(f"/boot/config-{release}").read_text()
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and key.startswith("CONFIG_"):
            found[key] = value
    return found


def target_btf(source: Source | None) -> Btf:
    """The BTF that CO-RE relocations are fitted to. Raises ObjectError when there is none."""
    if isinstance(source, bytes):
        return Btf.parse(source, "target BTF")
    if source is None:
        running = running_kernel()
        if running is None:
            raise ObjectError(f"the object has CO-RE relocations and {KERNEL_BTF} is not there; give a BTF file")
        return running.btf
    place = Path(source)
    raw = place.read_bytes()
    if raw[:4] == b"\x7fELF":
        section = read_elf_btf(raw, str(place))
        return Btf.parse(section, str(place))
    return Btf.parse(raw, str(place))


def read_elf_btf(raw: bytes, path: str) -> bytes:
    """The .BTF section of any ELF file (vmlinux, a module, another object)."""
    from elftools.elf.elffile import ELFFile

    try:
        section = ELFFile(io.BytesIO(raw)).get_section_by_name(".BTF")
        data = section.data() if section is not None else None
    except Exception as error:  # as in read_elf: pyelftools lets anything escape
        raise ObjectError(f"damaged ELF file: {error}", path=path) from error
    if not data:
        raise ObjectError("no BTF in this file", path=path, section=".BTF")
    return bytes(data)
