"""Variables of the kernel: what an object declares of them (`extern ... __ksym`), and what a kernel's BTF says.

A declaration with a type names a variable of that type; one of type void is an address that means nothing off a kernel.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pktbpf.errors import ProgramRefused, UsageError
from pktbpf.objfile.btf import Btf, BtfKind
from pktbpf.objfile.btf_data import DataType
from pktbpf.objfile.core_match import types_compatible
from pktbpf.objfile.kernel_btf import LazyBtf, given
from pktbpf.objfile.values import Variable
from pktbpf.program import KernelVariable, Program

KSYMS, PERCPU = ".ksyms", ".data..percpu"
_PROCESSOR = re.compile(r"\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class KernelSymbol:
    """What a kernel has under a name. type: of a variable; None for a function. per_cpu: a copy for each processor."""

    name: str
    type: DataType | None
    per_cpu: bool


def declared(btf: Btf) -> dict[str, DataType]:
    """The typed variables that an object declares, by name."""
    section = btf.find(KSYMS, BtfKind.DATASEC)
    found = {}
    for entry in section.variables if section is not None else ():
        variable = btf.type(entry.type)
        if variable.kind is BtfKind.VAR and btf.resolve(variable.ref).kind is not BtfKind.VOID:
            found[variable.name] = DataType(btf, variable.ref, _size(btf, variable.ref))
    return found


def _size(btf: Btf, number: int) -> int:
    """Bytes of a type, 0 for one that the object only declares."""
    return 0 if btf.resolve(number).kind is BtfKind.FWD else btf.size_of(number)


def table(types: Any) -> Btf:
    """The table itself of what stands for a kernel's BTF. UsageError for anything that is none."""
    types = given(types)
    if isinstance(types, LazyBtf):
        return types.btf
    if isinstance(types, Btf):
        return types
    raise UsageError(f"kernel_btf is {type(types).__name__}, no BTF that says what variables of the kernel are")


def symbol(types: Any, name: str) -> KernelSymbol | None:
    """The variable or function of the kernel with that name, None where there is none."""
    btf = table(types)
    found = btf.find(name, BtfKind.VAR, BtfKind.FUNC)
    if found is None:
        return None
    if found.kind is BtfKind.FUNC:
        return KernelSymbol(name, None, False)
    section = btf.find(PERCPU, BtfKind.DATASEC)
    per_cpu = section is not None and any(entry.type == found.id for entry in section.variables)
    return KernelSymbol(name, DataType.of(btf, found.ref), per_cpu)


def check_declarations(program: Program, types: Any) -> None:
    """Types of variables in the object against the kernel's, as libbpf compares them. Raises ProgramRefused."""
    if not isinstance(types, Btf | LazyBtf):
        return
    for slot, variable in _declarations(program.kvars).items():
        btf = table(types)
        found = btf.find(variable.name, BtfKind.VAR)
        own = variable.declared
        if found is None or types_compatible(own.btf, own.btf.resolve(own.id).id, btf, btf.resolve(found.ref).id):
            continue
        kernel = DataType(btf, found.ref, 0)
        raise ProgramRefused(
            errno.EINVAL, slot,
            f"extern (var ksym) '{variable.name}': incompatible types, expected {own}, but kernel has {kernel}",
        )  # fmt: skip


def _declarations(variables: Mapping[int, Any]) -> dict[int, KernelVariable]:
    """The variables whose types an object states."""
    return {
        slot: one for slot, one in variables.items() if isinstance(one, KernelVariable) and one.declared is not None
    }



def initial(found: KernelSymbol, cpus: int, values: Mapping[str, Any]) -> bytes:
    """First bytes of a variable, of a per-CPU one a copy for each of `cpus` processors, rounded up to 8 bytes each.

    values: by name or part (`NAME`, `NAME.field`), for one processor `NAME[2].field`; what is not given is zero. Raises
    UsageError for a part that is not there or a value that does not fit.
    """
    assert found.type is not None, "functions have no bytes"
    size = found.type.size
    variable = Variable(found.name, "", 0, size, found.type)
    copies = [bytes(size)] * (cpus if found.per_cpu else 1)
    for path, value in values.items():
        rest = _part(found.name, path)
        if rest is None:
            continue
        chosen = list(range(len(copies)))
        if found.per_cpu and (number := _PROCESSOR.match(rest)):
            chosen, rest = [int(number[1])], rest[number.end() :]
            if chosen[0] >= cpus:
                raise UsageError(f"{path}: {found.name} has copies for {cpus} processors")
        for cpu in chosen:
            copies[cpu] = variable.replace(copies[cpu], rest, value)
    return b"".join(copy.ljust((size + 7) // 8 * 8, b"\0") for copy in copies) if found.per_cpu else copies[0]


def _part(name: str, path: str) -> str | None:
    """What follows a variable's name in a path; None where the path is of another one."""
    if path == name or path.startswith((f"{name}.", f"{name}[")):
        return path[len(name) :]
    return None
