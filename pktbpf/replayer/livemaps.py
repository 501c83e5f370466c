"""The live maps of a replay: which maps its programs name, who shares them, and where they are kept between runs.

Programs of one object share their maps, as programs that libbpf loads do; maps that are given (by hand or from a
directory) are shared by name between all programs, as pinned maps are.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from pktbpf.engine.base import Env
from pktbpf.filter import verify
from pktbpf.instance import Instance
from pktbpf.maps import layout
from pktbpf.maps.face import Map
from pktbpf.program import MapSpec, Program, Verified

# Kinds whose contents are programs or nothing: not worth keeping.
UNKEPT = frozenset({"PROG_ARRAY", "CGROUP_ARRAY", "STACK_TRACE"})
# Kinds whose contents are for a reader: kept for it, but the next run begins with empty ones.
HANDED_OUT = frozenset({"RINGBUF", "PERF_EVENT_ARRAY"})


def definitions(program: Program) -> dict[str, MapSpec]:
    """Every map definition by name that a program can reach, through program arrays and maps of maps as well."""
    found: dict[str, MapSpec] = {}
    seen: set[int] = set()
    pending: list[Any] = list(program.maps.values())
    while pending:
        one = pending.pop(0)
        if id(one) in seen or not isinstance(one, MapSpec):
            continue
        seen.add(id(one))
        if one.name:
            found[one.name] = one
        for target in getattr(one, "slots", {}).values():
            pending += [target] if isinstance(target, MapSpec) else target.program.maps.values()
    return found


def kept(definition: MapSpec) -> bool:
    """Whether a map is worth keeping between runs: not constants, which come with the object, nor what UNKEPT says."""
    return definition.kind not in UNKEPT and not getattr(definition, "frozen", False)


def is_section(name: str) -> bool:
    """Whether a map of this name holds a data section, the variables of one object: no map in C begins with a dot."""
    return name.startswith(".")


class MapSpace:
    """Makes the maps of programs live. given: maps that exist already, by name. cpus: processors of per-CPU maps.
    env: the kernel that programs of program arrays are verified with and variables are of. own: maps that exist already
    for one object only, such as its variables, by id() of their definitions. shared: maps that a program makes are
    given to the objects after it, as pinned ones are; data sections never."""

    def __init__(
        self, given: Mapping[str, Map] | None = None, *, cpus: int = 1, env: Env | None = None,
        own: Mapping[int, Map] | None = None, shared: bool = False,
    ):  # fmt: skip
        self._given = dict(given or {})
        self._own = dict(own or {})
        self._shared = shared
        self._env = env or Env()
        self._admit = partial(verify, kernel_btf=self._env.kernel_btf)
        self._cpus = cpus
        self._instances: list[tuple[set[int], Instance]] = []
        self._definitions: list[MapSpec] = []  # keeps id() unique

    def bind(self, verified: Verified) -> tuple[Verified, dict[str, Map]]:
        """The program with live maps, and these by name. Raises UsageError when a given map does not fit."""
        program = verified.program
        if not program.kvars and not any(isinstance(one, MapSpec) for one in program.maps.values()):
            named = (one for one in program.maps.values() if isinstance(one, Map))
            return verified, {one.spec.name or f"map{number}": one for number, one in enumerate(named)}
        wanted = definitions(program)
        instance = self._instance(list(program.maps.values()), wanted)
        bound = instance.bind(verified)
        if self._shared:
            for name in wanted.keys() & instance.maps.keys():
                if not is_section(name) and kept(wanted[name]):
                    self._given.setdefault(name, instance.maps[name])
        return bound, {name: one for name, one in instance.maps.items() if name in wanted or not one.spec.name}

    def _instance(self, direct: Iterable[Any], wanted: Mapping[str, MapSpec]) -> Instance:
        """The one that knows any of these definitions already, else a new one."""
        all_of_them = [one for one in (*direct, *wanted.values()) if isinstance(one, MapSpec)]
        identities = {id(one) for one in all_of_them}
        for known, instance in self._instances:
            if known & identities:
                known |= identities
                self._definitions += all_of_them
                for name in wanted.keys() & self._given.keys():
                    instance.maps.setdefault(name, self._given[name])
                return instance
        given = {name: self._given[name] for name in wanted if name in self._given}
        instance = Instance(given, admit=self._admit, cpus=self._cpus, env=self._env, own=self._own)
        self._instances.append((identities, instance))
        self._definitions += all_of_them
        return instance


def entries(one: Map) -> int:
    """How many entries hold something: of arrays those that are not zero, of others those that are there; records that
    a ring buffer holds, events of a perf event array."""
    if one.kind in ("ARRAY", "PERCPU_ARRAY"):
        return _not_zero(one)
    if one.kind == "RINGBUF":
        return len(one.records(consume=False))
    if one.kind == "PERF_EVENT_ARRAY":
        return len(one.events(consume=False))
    return 0 if one.kind in _UNCOUNTED else len(one)


_UNCOUNTED = ("USER_RINGBUF", "STACK_TRACE", "BLOOM_FILTER")


def _not_zero(one: Map) -> int:
    """Entries of an array with any byte set, counted in its memory: walking a million in Python takes seconds."""
    stride, cpus = int(one.row[layout.STRIDE]), int(one.row[layout.CPUS])
    size = one.max_entries * stride * cpus
    memory = memoryview((ctypes.c_uint8 * size).from_address(int(one.row[layout.VALUES_AT])))
    values = np.frombuffer(memory, dtype=np.uint8).reshape(one.max_entries, stride * cpus)
    return int(values.any(axis=1).sum())
