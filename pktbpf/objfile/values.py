"""What an object file gives: `Object` with programs, map definitions, variables; all frozen.

A MapDefinition is a FilledMap that also knows its types and pinning. Slots of a program array hold
ProgramRef, which finds the program when asked, since programs and arrays of programs refer to each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pktbpf.errors import ObjectError, UsageError
from pktbpf.objfile.btf import Btf
from pktbpf.objfile.btf_data import DataType
from pktbpf.objfile.btf_info import FunctionInfo
from pktbpf.program import FilledMap, MapSpec, Program, ProgramRef, ValueField

BPF_F_RDONLY_PROG, BPF_F_MMAPABLE = 1 << 7, 1 << 10


@dataclass(frozen=True, slots=True)
class MapDefinition(FilledMap):
    """A map of an object.

    key_type, value_type: BTF types, None where the object says nothing. section: where it was defined. pinning: 1 for
    by name. key_type_id, value_type_id: what BPF_MAP_CREATE is told, 0 for kinds that take none. kernel_name: what
    libbpf calls it towards the kernel. fields: locks, timers, kernel pointers in a value.
    """

    key_type: DataType | None = field(default=None, compare=False, repr=False)
    value_type: DataType | None = field(default=None, compare=False, repr=False)
    section: str = ""
    pinning: int = 0
    numa_node: int | None = None
    key_type_id: int = 0
    value_type_id: int = 0
    kernel_name: str = ""
    fields: tuple[ValueField, ...] = ()

    @property
    def has_btf(self) -> bool:
        """Whether the kernel gets types with the map."""
        return bool(self.value_type_id)


@dataclass(frozen=True, slots=True)
class Variable:
    """A global variable: the data map it lies in, byte offset, size, and its type where the object has BTF."""

    name: str
    map: str
    offset: int
    size: int
    type: DataType | None = field(default=None, compare=False)

    def decode(self, data: bytes) -> Any:
        """Its value in the bytes of the data map; an int (or bytes, for odd sizes) without BTF."""
        raw = data[self.offset : self.offset + self.size]
        if self.type is not None:
            return self.type.decode(raw)
        return int.from_bytes(raw, "little") if self.size in (1, 2, 4, 8) else raw

    def replace(self, data: bytes, path: str, value: Any) -> bytes:
        """`data` with the variable, or the part of it that `path` names, set. UsageError for what does not fit."""
        start, end = self.offset, self.offset + self.size
        kind = self.type
        if kind is not None:
            # The last field goes by name, so that it may be a bit field.
            parent, dot, name = path.rpartition(".")
            if dot and name.isidentifier():
                path, value = parent, {name: value}
            if path:
                start_in, kind = kind.part(path)
                start += start_in
                end = start + kind.size
            try:
                raw = kind.replace(data[start:end], value)
            except UsageError as error:
                raise UsageError(f"{self.name}{path}: {error}") from None
        else:
            raw = self._untyped(path, value)
        return data[:start] + raw + data[end:]

    def _untyped(self, path: str, value: Any) -> bytes:
        if path:
            raise UsageError(f"{self.name}: the object has no BTF to know {path!r} from")
        if isinstance(value, bytes):
            raw = value
        else:
            try:
                number = int(value, 0) if isinstance(value, str) else int(value)
                raw = (number % (1 << 8 * self.size) if number < 0 else number).to_bytes(self.size, "little")
            except (TypeError, ValueError, OverflowError):
                raise UsageError(f"{self.name}: {value!r} does not fit in {self.size} bytes") from None
        if len(raw) != self.size:
            raise UsageError(f"{self.name}: {len(raw)} bytes do not fit in {self.size}")
        return raw


@dataclass(frozen=True, slots=True)
class ProgramBtf:
    """What BPF_PROG_LOAD wants beside the instructions.

    raw: the object's BTF as BPF_BTF_LOAD takes it: sizes and offsets filled in, externs made harmless. functions: first
    slot of each function -> what the BTF says of it. lines: (slot, offset of the file's name, offset of the line's
    text, line << 10 | column). btf: the object's BTF, whose strings those are.
    """

    raw: bytes = field(repr=False)
    functions: Mapping[int, FunctionInfo] = field(default_factory=dict)
    lines: tuple[tuple[int, int, int, int], ...] = field(default=(), repr=False)
    btf: Btf | None = field(default=None, repr=False, compare=False)

    @property
    def line_texts(self) -> dict[int, str]:
        """First slot of each line -> `text @ file.c:12`, as the verifier's log writes it; lines without a text, which
        it refuses, left out."""
        btf = self.btf
        if btf is None:
            return {}
        return {
            slot: f"{btf.string(text).lstrip()} @ {btf.name(file).rpartition('/')[2]}:{place >> 10}"
            for slot, file, text, place in self.lines
            if max(file, text) < len(btf.strings)
        }

    @property
    def func_info(self) -> bytes:
        """`struct bpf_func_info[]`, 8 bytes each."""
        records = ((slot, info.type_id) for slot, info in sorted(self.functions.items()))
        return b"".join(value.to_bytes(4, "little") for record in records for value in record)

    @property
    def line_info(self) -> bytes:
        """`struct bpf_line_info[]`, 16 bytes each."""
        return b"".join(value.to_bytes(4, "little") for record in self.lines for value in record)


@dataclass(frozen=True, repr=False)
class Object:
    """A loaded object file.

    programs: the socket filters by function name, in the file's order. maps: all maps by name, data sections among them
    (".rodata"). variables: global variables by name. others: entry functions of other sections -> section name.
    """

    path: str
    license: str
    programs: Mapping[str, Program]
    maps: Mapping[str, MapDefinition]
    variables: Mapping[str, Variable] = field(default_factory=dict)
    btf: Btf | None = field(default=None, repr=False)
    others: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Program:
        return self.program(name)

    def __repr__(self) -> str:
        names = ", ".join(self.programs) or "no socket filter"
        maps = f"; maps {', '.join(self.maps)}" if self.maps else ""
        return f"<Object {self.path}: {names}{maps}>"

    def program(self, name: str | None = None) -> Program:
        """The program of this name; without a name the only one. UsageError lists what there is to choose from,
        ObjectError says that there is no socket filter."""
        have = ", ".join(self.programs)
        if name is None:
            if len(self.programs) == 1:
                return next(iter(self.programs.values()))
            if self.programs:
                count = len(self.programs)
                raise UsageError(f"{self.path}: {count} programs, choose one with --program NAME: {have}")
            raise ObjectError(self._none(), path=self.path)
        if name in self.programs:
            return self.programs[name]
        if name in self.others:
            raise ObjectError(f"program {name!r} is in section {self.others[name]!r}, no socket filter", path=self.path)
        raise UsageError(f"{self.path}: no program {name!r}; there are {have or 'none'}")

    def _none(self) -> str:
        if not self.others:
            return 'no socket filter; mark the function with SEC("socket")'
        found = ", ".join(f"{name} in {section}" for name, section in self.others.items())
        return f'no socket filter, only {found}; mark the function with SEC("socket")'

    def value(self, name: str) -> Any:
        """The first value of a global variable, or of a part of it (`cfg.limit`, `ports[2]`)."""
        variable, path = self._variable(name)
        value = variable.decode(self._data(variable))
        for step in re.findall(r"\w+", path):
            value = value[int(step)] if isinstance(value, list) else value[step]
        return value

    def with_values(self, values: Mapping[str, Any]) -> Object:
        """The object with variables set, by name or by part: `{"threshold": 7, "cfg.limit": "0x10"}`.

        Strings are read as numbers, enum names, text of char arrays or JSON, as the type wants. UsageError for a name
        that is not there and for a value that does not fit.
        """
        data: dict[str, bytes] = {}
        for name, value in values.items():
            variable, path = self._variable(name)
            data[variable.map] = variable.replace(data.get(variable.map, self._data(variable)), path, value)
        return self._rebuild({name: replace(self.maps[name], initial=raw) for name, raw in data.items()})

    def _variable(self, name: str) -> tuple[Variable, str]:
        # The longest name first: a static variable of a function is called `function.variable`.
        for end in (len(name), *(match.start() for match in reversed(list(re.finditer(r"[.\[]", name))))):
            if name[:end] in self.variables:
                return self.variables[name[:end]], name[end:]
        have = ", ".join(sorted(self.variables)) or "none"
        raise UsageError(f"{self.path}: no global variable {name!r}; there are {have}")

    def _data(self, variable: Variable) -> bytes:
        data = self.maps[variable.map].initial
        assert data is not None
        return data

    def _rebuild(self, changed: Mapping[str, MapDefinition]) -> Object:
        home: dict[str, Program] = {}
        maps: dict[str, MapDefinition] = {}
        for name, definition in self.maps.items():
            slots: dict[int, ProgramRef | MapSpec] = {
                i: ProgramRef(target.name, home) if isinstance(target, ProgramRef) else target
                for i, target in definition.slots.items()
            }
            maps[name] = replace(changed.get(name, definition), slots=slots)
        for name, program in self.programs.items():
            used = {slot: maps[spec.name] for slot, spec in program.maps.items()}
            home[name] = replace(program, maps=used)
        return replace(self, programs=home, maps=maps)
