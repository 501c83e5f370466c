"""Maps made live for programs: what libbpf does between opening an object and attaching its program.

In: a Program whose maps are definitions. Out: a Verified of the same program whose maps are live Map objects with their
first contents, shared by name between all programs of the object, and the programs behind its program arrays likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pktbpf.errors import UsageError
from pktbpf.maps.face import Map
from pktbpf.program import MapSpec, Program, Verified


class Instance:
    """Live maps by name.

    given: maps that exist already and are used in place of fresh ones. admit: the
    check that programs of program arrays go through. cpus: processors that per-CPU maps have values for.

    Raises UsageError when a given map has other attributes than the program's definition.
    """

    def __init__(
        self, given: Mapping[str, Map] | None = None, *, admit: Callable[[Program], Verified], cpus: int = 1
    ):  # fmt: skip
        self.admit = admit
        self.maps: dict[str, Map] = dict(given or {})
        self.cpus = cpus
        self._by_definition: dict[int, Map] = {}
        self._definitions: list[MapSpec] = []
        self._programs: dict[int, Verified] = {}

    def bind(self, verified: Verified) -> Verified:
        """The same program with live maps; what was proven stays proven."""
        program = verified.program
        if id(program) in self._programs:
            return self._programs[id(program)]
        if not program.maps:
            return verified
        live: dict[int, Map] = {}
        bound = replace(verified, program=replace(program, maps=live))
        self._programs[id(program)] = bound
        for slot, definition in program.maps.items():
            live[slot] = definition if isinstance(definition, Map) else self.live(definition)
            self.maps.setdefault(live[slot].spec.name or f"map{slot}", live[slot])
        return bound

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
