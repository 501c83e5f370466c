"""Maps made live for programs: what libbpf does between opening an object and attaching its program.

In: a Program whose maps are definitions. Out: a Verified of the same program whose maps are live Map objects with their
first contents, shared by name between all programs of the object, and the programs behind its program arrays likewise.
A variable of the kernel becomes a map that no program can write: of one element, or one per processor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pktbpf.engine.base import Env
from pktbpf.errors import UsageError
from pktbpf.isa.extended import Insn
from pktbpf.isa.fields import PSEUDO_MAP_FD, PSEUDO_MAP_VALUE
from pktbpf.maps.face import Map
from pktbpf.maps.layout import BPF_F_RDONLY_PROG
from pktbpf.objfile import ksyms
from pktbpf.program import KernelVariable, MapSpec, Program, Verified

_FUNCTION = -0x7F00_0000  # low half of an address where kernels have their code


class Instance:
    """Live maps by name.

    given: maps that exist already and are used in place of fresh ones. admit: the
    check that programs of program arrays go through. cpus: processors that per-CPU maps have values for. env: whose
    kernel's types and values the kernel's variables have; they are in `variables` by name. own: as given, by id() of
    the definition that a map stands for.

    Raises UsageError when a given map has other attributes than the program's definition.
    """

    def __init__(
        self, given: Mapping[str, Map] | None = None, *, admit: Callable[[Program], Verified], cpus: int = 1,
        env: Env | None = None, own: Mapping[int, Map] | None = None,
    ):  # fmt: skip
        self.admit = admit
        self.env = env or Env()
        self.variables: dict[str, Map] = {}
        self.maps: dict[str, Map] = dict(given or {})
        self.cpus = cpus
        self._by_definition: dict[int, Map] = dict(own or {})
        self._definitions: list[MapSpec] = []
        self._programs: dict[int, Verified] = {}

    def bind(self, verified: Verified) -> Verified:
        """The same program with live maps; what was proven stays proven."""
        program = verified.program
        if id(program) in self._programs:
            return self._programs[id(program)]
        if not program.maps and not program.kvars:
            return verified
        live: dict[int, Map] = {}
        insns = self._variables(program, live)
        bound = replace(verified, program=replace(program, insns=insns, maps=live, kvars={}))
        self._programs[id(program)] = bound
        for slot, definition in program.maps.items():
            live[slot] = definition if isinstance(definition, Map) else self.live(definition)
            self.maps.setdefault(live[slot].spec.name or f"map{slot}", live[slot])
        return bound

    def _variables(self, program: Program, live: dict[int, Map]) -> tuple[Insn, ...]:
        """Instructions that name the kernel's variables made to name the maps that stand for them; functions of the
        kernel become addresses that cannot be read, a weak variable that is not there 0."""
        insns = list(program.insns)
        for slot, variable in program.kvars.items():
            value = 0
            if isinstance(variable, KernelVariable):
                found = ksyms.symbol(self.env.kernel_btf, variable.name)
                if found is not None and found.type is not None:
                    one = live[slot] = self._variable(found)
                    insns[slot] = insns[slot]._replace(src=PSEUDO_MAP_FD if one.percpu else PSEUDO_MAP_VALUE, imm=0)
                    continue
                value = 0 if found is None else _FUNCTION
            insns[slot] = insns[slot]._replace(src=0, imm=value)
            insns[slot + 1] = insns[slot + 1]._replace(imm=-1 if value else 0)
        return tuple(insns)

    def _variable(self, found: ksyms.KernelSymbol) -> Map:
        """The map that stands for a variable."""
        if found.name not in self.variables:
            assert found.type is not None
            kind = "PERCPU_ARRAY" if found.per_cpu else "ARRAY"
            spec = MapSpec(kind, 4, found.type.size, 1, BPF_F_RDONLY_PROG, found.name)
            one = Map.from_spec(spec, possible_cpus=self.cpus, value_type=found.type)
            one.update(bytes(4), ksyms.initial(found, self.cpus, self.env.variables))
            self.variables[found.name] = one
        return self.variables[found.name]

    def live(self, definition: MapSpec) -> Map:
        """The live map of a definition, made on first use."""
        known = self._by_definition.get(id(definition))
        if known is not None:
            return known
        given = self.maps.get(definition.name) if definition.name else None
        if given is not None:
            _same(given.spec, definition)
        found = given or Map.from_spec(definition, possible_cpus=self.cpus)
        self._by_definition[id(definition)] = found
        self._definitions.append(definition)  # keeps id() unique
        if definition.name:
            self.maps[definition.name] = found
        if given is None:
            self._fill(found, definition)
        return found

    def _fill(self, found: Map, definition: Any) -> None:
        """First contents of a program array or a map of maps; a data section's are in the definition."""
        for index, target in getattr(definition, "slots", {}).items():
            key = index.to_bytes(4, "little")
            found.update(key, self.live(target) if isinstance(target, MapSpec) else self._admit(target.program))

    def _admit(self, program: Program) -> Verified:
        return self.bind(self.admit(program))


def _same(have: MapSpec, want: MapSpec) -> None:
    for name in ("kind", "key_size", "value_size", "max_entries"):
        if getattr(have, name) != getattr(want, name):
            raise UsageError(
                f"map {want.name!r} has {name} {getattr(have, name)}, the program wants {getattr(want, name)}"
            )
