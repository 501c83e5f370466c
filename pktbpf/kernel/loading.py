"""A Program in the live kernel: its maps created and filled, its references to them set, the program loaded.

What libbpf does between opening an object and attaching it: types, functions and lines go along where the program has
them, names of kernel functions and variables become this kernel's numbers. Everything is closed again with the `Loaded`
it returned.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pktbpf.errors import KernelUnavailable
from pktbpf.isa.extended import Insn
from pktbpf.isa.fields import PSEUDO_BTF_ID, PSEUDO_MAP_FD, PSEUDO_MAP_IDX_VALUE, PSEUDO_MAP_VALUE
from pktbpf.kernel import syscall
from pktbpf.kernel.maps import LiveMap
from pktbpf.objfile.btf import Btf, BtfKind
from pktbpf.objfile.kernel_btf import running_kernel
from pktbpf.program import KernelVariable, MapSpec, Program

_VALUE_SOURCES = (PSEUDO_MAP_VALUE, PSEUDO_MAP_IDX_VALUE)


class Loaded:
    """Programs and maps of one object in the kernel. `program(p)` gives a descriptor; `close` lets go of them all."""

    def __init__(self) -> None:
        self._maps: dict[str, int] = {}
        self._anonymous: dict[int, int] = {}
        self._programs: dict[int, int] = {}
        self._types: dict[bytes, int] = {}
        self._held: list[Any] = []  # keeps id() of definitions and programs unique

    def program(self, program: Program) -> int:
        """The program's file descriptor; its maps are shared by name with the programs loaded before. Raises
        syscall.LoadRefused, KernelUnavailable, OSError (a map that the kernel refuses)."""
        if id(program) not in self._programs:
            self._held.append(program)
            code, options = self.parts(program)
            self._programs[id(program)] = syscall.load_program(code, name=program.name, **options)
        return self._programs[id(program)]

    def log(self, program: Program, level: int = 4) -> tuple[int, str]:
        """(0 or errno, log) of the live verifier at `level`, bits as in BPF_PROG_LOAD. Raises as `program` does."""
        code, options = self.parts(program)
        return syscall.program_log(code, level=level, log_size=1 << 24, **options)

    def parts(self, program: Program) -> tuple[bytes, dict[str, Any]]:
        """Code and what goes with it into BPF_PROG_LOAD, descriptors put in. Raises as `program` does."""
        types = self._btf(program)
        code = _encode(numbered(program), {slot: self.map(spec, types) for slot, spec in program.maps.items()})
        debug = {"func_info": program.btf.func_info, "line_info": program.btf.line_info} if types else {}
        return code, {"license": program.license, "btf_fd": types, **debug}

    def _btf(self, program: Program) -> int:
        """The file descriptor of the program's types, 0 without any or where the kernel takes none such."""
        raw: bytes = getattr(program.btf, "raw", b"")
        if raw and raw not in self._types:
            try:
                self._types[raw] = syscall.load_btf(raw)
            except OSError:  # as libbpf does: a program that needs them is refused for that, with the reason
                self._types[raw] = 0
        return self._types.get(raw, 0)

    def map(self, definition: Any, types: int = 0) -> int:
        """The file descriptor of a definition (or of the definition behind a live map), created on first use. types:
        file descriptor of the BTF that locks, timers and kernel pointers in its values are found by."""
        spec: MapSpec = getattr(definition, "spec", definition)
        if spec.name in self._maps:
            return self._maps[spec.name]
        if id(spec) in self._anonymous:
            return self._anonymous[id(spec)]
        self._held.append(spec)
        inner = self.map(spec.inner, types) if spec.inner is not None else 0
        typed = bool(types and getattr(spec, "fields", None))
        fd = syscall.create_map(
            spec.kind, spec.key_size, spec.value_size, spec.max_entries, flags=spec.flags, inner_fd=inner,
            extra=spec.extra, btf_fd=types if typed else 0, key_type=_type_id(spec, "key_type") if typed else 0,
            value_type=_type_id(spec, "value_type") if typed else 0,
        )  # fmt: skip
        if spec.name:
            self._maps[spec.name] = fd
        else:
            self._anonymous[id(spec)] = fd
        self._fill(fd, spec, types)
        return fd

    def _fill(self, fd: int, definition: Any, types: int) -> None:
        """First contents: a data section's bytes, the slots of a program array or a map of maps."""
        initial: bytes | None = getattr(definition, "initial", None)
        if initial is not None:
            syscall.map_element(syscall.MAP_UPDATE_ELEM, fd, bytes(4), initial)
        slots: Mapping[int, Any] = getattr(definition, "slots", {})
        for index, target in slots.items():
            value = self.map(target, types) if isinstance(target, MapSpec) else self.program(target.program)
            syscall.map_element(syscall.MAP_UPDATE_ELEM, fd, struct.pack("=I", index), struct.pack("=I", value))
        if getattr(definition, "frozen", False):
            syscall.bpf(syscall.MAP_FREEZE, struct.pack("=I", fd))

    def live(self, spec: MapSpec) -> LiveMap:
        """The map of a definition as an object to read and write; close it. KeyError for one that no program named."""
        return LiveMap.of(self._maps[spec.name] if spec.name else self._anonymous[id(spec)], spec)

    def read(self, name: str, key: bytes, size: int) -> bytes:
        """`size` bytes of a value in the map called `name` (per-CPU maps: all processors'). Raises OSError."""
        value = ctypes.create_string_buffer(size)
        syscall.map_element(syscall.MAP_LOOKUP_ELEM, self._maps[name], key, value)
        return value.raw

    def close(self) -> None:
        """Close every descriptor."""
        tables: tuple[dict[Any, int], ...] = (self._programs, self._maps, self._anonymous, self._types)
        for table in tables:
            for fd in filter(None, table.values()):
                os.close(fd)
            table.clear()


def _type_id(spec: Any, which: str) -> int:
    return int(getattr(getattr(spec, which, None), "id", 0))


def _encode(program: Program, fds: Mapping[int, int]) -> bytes:
    """`struct bpf_insn[]` with descriptors in place of map references."""
    insns: list[Insn] = list(program.insns)
    for slot, fd in fds.items():
        source = PSEUDO_MAP_VALUE if insns[slot].src in _VALUE_SOURCES else PSEUDO_MAP_FD
        insns[slot] = insns[slot]._replace(src=source, imm=fd)
    return b"".join(insn.encode() for insn in insns)


def numbered(program: Program) -> Program:
    """The program with the running kernel's numbers of the kernel functions it calls and the variables it names; its
    tag is then the kernel's. Raises LoadRefused, KernelUnavailable."""
    if not program.kfuncs and not program.kvars:
        return program
    insns = list(program.insns)
    for slot, name in program.kfuncs.items():
        insns[slot] = insns[slot]._replace(imm=kfunc_number(name))
    for slot, variable in program.kvars.items():
        number = variable_number(variable)
        insns[slot] = insns[slot]._replace(src=PSEUDO_BTF_ID if number else 0, imm=number)
    return replace(program, insns=tuple(insns))


def _kernel_types() -> Btf:
    types = running_kernel()
    if types is None:
        raise KernelUnavailable(errno.ENOENT, "the kernel's BTF (/sys/kernel/btf/vmlinux)")
    return types.btf


def variable_number(variable: KernelVariable) -> int:
    """Number of a variable (or function) in the running kernel's BTF, 0 for a weak one that is not there. Raises
    LoadRefused (ESRCH) for another that is not, KernelUnavailable where there is no BTF."""
    found = _kernel_types().find(variable.name, BtfKind.VAR, BtfKind.FUNC)
    if found is None and not variable.weak:
        raise syscall.LoadRefused(errno.ESRCH, f"extern (var ksym) '{variable.name}': not found in kernel BTF")
    return found.id if found is not None else 0


def kfunc_number(name: str) -> int:
    """Number of a kernel function in the running kernel's BTF. Raises LoadRefused (EINVAL) for one it does not have,
    KernelUnavailable where there is no BTF."""
    found = _kernel_types().find(name, BtfKind.FUNC)
    if found is None:
        raise syscall.LoadRefused(errno.EINVAL, f"extern (func ksym) '{name}': not found in kernel BTF")
    return found.id
