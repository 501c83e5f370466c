"""Extern symbols: kernel configuration values, kernel variables and kernel functions.

`.kconfig` values are known off a kernel (LINUX_KERNEL_VERSION and CONFIG_*) and become a read-only map, laid out as
libbpf does. Kernel functions (pktbpf.abi.kfuncs) and variables of a type go by name. What no kernel has, and bare
addresses of kernel symbols, is not there: a weak one is absent (address 0), a strong one is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pktbpf.abi import kfuncs
from pktbpf.errors import ObjectError
from pktbpf.isa import fields
from pktbpf.isa.extended import Insn
from pktbpf.objfile import ksyms
from pktbpf.objfile.btf import COMPOSITES, MODIFIERS, Btf, BtfKind, BtfType
from pktbpf.objfile.btf_data import DataType
from pktbpf.objfile.elf import SHN_UNDEF, STB_WEAK, Elf, Symbol
from pktbpf.objfile.values import BPF_F_MMAPABLE, BPF_F_RDONLY_PROG, MapDefinition, Variable
from pktbpf.program import KernelVariable

KCONFIG = ".kconfig"


@dataclass(frozen=True, slots=True)
class Externs:
    """What the undefined symbols of an object mean. map: of the kernel configuration, None without such symbols.
    offsets: name -> place in it. variables: of the kernel, name -> type."""

    path: str
    map: MapDefinition | None
    offsets: Mapping[str, Variable]
    variables: Mapping[str, DataType] = field(default_factory=dict)

    def call(self, symbol: Symbol, insn: Insn) -> tuple[Insn, str | None]:
        """A call of a kernel function and its name; None for one that no kernel has: refused unless weak, when it stays
        as libbpf leaves it, for dead code only."""
        known = kfuncs.exists(symbol.name)
        if not known and symbol.bind != STB_WEAK:
            raise self._missing(symbol, "kernel function")
        return insn._replace(src=fields.PSEUDO_KFUNC_CALL, off=0, imm=0), symbol.name if known else None

    def load(self, symbol: Symbol, insn: Insn) -> tuple[list[Insn], MapDefinition | KernelVariable | None]:
        """The two slots that load the address of an extern variable or function, and what they name."""
        if symbol.name in self.offsets:
            offset = self.offsets[symbol.name].offset
            return [insn._replace(src=fields.PSEUDO_MAP_VALUE, imm=0), Insn(0, imm=offset)], self.map
        if symbol.name in self.variables:
            weak = symbol.bind == STB_WEAK
            variable = KernelVariable(symbol.name, weak, self.variables[symbol.name])
            return [insn._replace(src=fields.PSEUDO_BTF_ID, imm=0), Insn(0)], variable
        if kfuncs.exists(symbol.name):  # `if (bpf_...)`, the test whether the kernel has it
            return [insn._replace(src=0, imm=1), Insn(0)], None
        if symbol.bind != STB_WEAK:
            raise self._missing(symbol, "kernel symbol")
        return [insn._replace(src=0, imm=0), Insn(0)], None

    def _missing(self, symbol: Symbol, what: str) -> ObjectError:
        return ObjectError(
            f"extern {symbol.name!r}, a {what}, means nothing off a kernel; declare it __weak and test for it",
            path=self.path,
        )


def read_externs(elf: Elf, btf: Btf | None, kconfig: Mapping[str, str]) -> Externs:
    """Lay out the kernel configuration map. kconfig: CONFIG_NAME -> y, n, m, a number or a quoted string, and
    LINUX_KERNEL_VERSION -> number. Raises ObjectError for a strong value that is not there."""
    variables = ksyms.declared(btf) if btf is not None else {}
    section = btf.find(KCONFIG, BtfKind.DATASEC) if btf is not None else None
    if btf is None or section is None:
        return Externs(elf.path, None, {}, variables)
    symbols = {symbol.name: symbol for symbol in elf.symbols if symbol.section == SHN_UNDEF and symbol.name}
    wanted = []
    for entry in section.variables:
        variable = btf.type(entry.type)
        size = btf.size_of(variable.ref)
        wanted.append((-_align(btf, variable.ref), -size, variable.name, variable.ref))
    data = b""
    places: dict[str, Variable] = {}
    for align, size, name, kind in sorted(wanted):
        data += bytes(-len(data) % -align)
        places[name] = Variable(name, KCONFIG, len(data), -size, DataType(btf, kind, -size))
        weak = name in symbols and symbols[name].bind == STB_WEAK
        data += _value(elf.path, btf, name, kind, -size, kconfig.get(name), weak)
    flags = BPF_F_RDONLY_PROG | BPF_F_MMAPABLE
    definition = MapDefinition(
        "ARRAY", 4, len(data), 1, flags, KCONFIG, initial=data, frozen=True, section=KCONFIG, kernel_name=KCONFIG
    )
    return Externs(elf.path, definition, places, variables)


def _value(path: str, btf: Btf, name: str, kind: int, size: int, value: str | None, weak: bool) -> bytes:
    if value is None:
        if weak:
            return bytes(size)
        raise ObjectError(f"extern {name!r}: the kernel configuration has no such value", path=path, section=KCONFIG)
    found = btf.resolve(kind)
    if found.kind is BtfKind.ARRAY:
        return value.strip('"').encode()[: size - 1].ljust(size, b"\0")
    if found.kind is BtfKind.ENUM:  # enum libbpf_tristate
        number = {"n": 0, "y": 1, "m": 2}.get(value)
    elif value in ("y", "n", "m"):
        number = (
            ord(value) if found.encoding & 2 or found.name == "char" else int(value == "y") if value != "m" else None
        )
    else:
        number = int(value, 0) if value.lstrip("-").replace("x", "").isalnum() else None
    if number is None:
        raise ObjectError(f"extern {name!r}: {value!r} does not fit its type", path=path, section=KCONFIG)
    return (number & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def _align(btf: Btf, number: int, depth: int = 0) -> int:
    """Natural alignment of a type."""
    found: BtfType = btf.type(number)
    if depth > 32:
        raise ObjectError(f"type {number} never ends", section=btf.origin)
    if found.kind in MODIFIERS or found.kind is BtfKind.ARRAY:
        return _align(btf, found.ref, depth + 1)
    if found.kind in COMPOSITES:
        return max((_align(btf, member.type, depth + 1) for member in found.members), default=1)
    if found.kind is BtfKind.PTR:
        return 8
    return max(1, min(8, found.size))
