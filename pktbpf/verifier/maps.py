"""The maps of a program as the verifier sees them: identity, sizes, permissions, special fields of the value.

Built from `Program.maps`: slot of a 64-bit immediate to anything with kind, key_size, value_size, max_entries, flags,
inner and name (a MapSpec or a live map). Two slots name the same map when they hold the same object, or equal ones with
the same name. Mirrors resolve_pseudo_ldimm64 and check_map_prog_compatibility.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from pktbpf.abi import map_kinds
from pktbpf.isa.extended import Insn
from pktbpf.program import ValueField
from pktbpf.verifier.errors import invalid, refuse
from pktbpf.verifier.layout import ImmediateResolver
from pktbpf.verifier.profile import Profile

F_RDONLY_PROG, F_WRONLY_PROG = 1 << 7, 1 << 8
MAX_USED_MAPS = 64
_MAX_OFFSET = 1 << 29
_STRUCTS = {
    "ARRAY": "bpf_array", "PERCPU_ARRAY": "bpf_array", "PROG_ARRAY": "bpf_array", "PERF_EVENT_ARRAY": "bpf_array",
    "CGROUP_ARRAY": "bpf_array", "ARRAY_OF_MAPS": "bpf_array", "HASH": "bpf_htab", "PERCPU_HASH": "bpf_htab",
    "LRU_HASH": "bpf_htab", "LRU_PERCPU_HASH": "bpf_htab", "HASH_OF_MAPS": "bpf_htab", "LPM_TRIE": "lpm_trie",
    "QUEUE": "bpf_queue_stack", "STACK": "bpf_queue_stack", "RINGBUF": "bpf_ringbuf_map",
    "USER_RINGBUF": "bpf_ringbuf_map", "BLOOM_FILTER": "bpf_bloom_filter", "STACK_TRACE": "bpf_stack_map",
    "SOCKMAP": "bpf_stab", "SOCKHASH": "bpf_shtab", "DEVMAP": "bpf_dtab", "DEVMAP_HASH": "bpf_dtab",
    "CPUMAP": "bpf_cpu_map", "XSKMAP": "xsk_map", "REUSEPORT_SOCKARRAY": "reuseport_array",
    "CGROUP_STORAGE": "bpf_cgroup_storage_map", "SK_STORAGE": "bpf_local_storage_map",
    "TASK_STORAGE": "bpf_local_storage_map", "INODE_STORAGE": "bpf_local_storage_map",
    "CGRP_STORAGE": "bpf_local_storage_map",
}  # fmt: skip


class MapInfo:
    """One map; compared by identity. name: instead of the spec's, which maps inside a map have forgotten."""

    def __init__(self, spec: Any, name: str | None = None):
        self.spec = spec
        self.kind: str = spec.kind
        self.number = map_kinds.BY_NAME[spec.kind].number
        self.key_size: int = spec.key_size
        self.value_size: int = spec.value_size
        self.max_entries: int = spec.max_entries
        self.flags: int = getattr(spec, "flags", 0)
        self.name: str = name if name is not None else getattr(spec, "name", "") or ""
        inner = getattr(spec, "inner", None)
        self.inner: MapInfo | None = MapInfo(inner, name="") if inner is not None else None
        self.read_only = bool(self.flags & F_RDONLY_PROG) or self.kind in ("DEVMAP", "DEVMAP_HASH")
        self.write_only = bool(self.flags & F_WRONLY_PROG)
        self.has_types = bool(getattr(spec, "has_btf", False) or getattr(spec, "fields", ()))
        self.fields: tuple[ValueField, ...] = tuple(ValueField(*item) for item in getattr(spec, "fields", ()))
        self.frozen: bool = bool(getattr(spec, "frozen", False))
        self.contents: bytes | None = getattr(spec, "contents", None)

    @property
    def struct_name(self) -> str:
        """The kernel's structure behind a pointer to the map."""
        return _STRUCTS.get(self.kind, "bpf_map")

    def field(self, kind: str) -> ValueField | None:
        """The value's field of that kind, if it has one."""
        return next((item for item in self.fields if item.kind == kind), None)

    def pointer_field_at(self, offset: int) -> ValueField | None:
        """The kernel pointer that starts at `offset`."""
        return next((item for item in self.fields if item.target is not None and item.offset == offset), None)

    @property
    def constant_array(self) -> bool:
        """An array whose contents nobody can change any more."""
        return self.kind == "ARRAY" and self.read_only and self.frozen

    def constant(self, offset: int, size: int, signed: bool) -> int | None:
        """The value of some bytes of a constant array, None where they are not known."""
        if self.contents is None:
            return None
        return int.from_bytes(self.contents[offset : offset + size], "little", signed=signed)


class MapTable(ImmediateResolver):
    """The maps that a program's immediates name, in the order they are met."""

    def __init__(self, maps: Mapping[int, Any], rules: Profile):
        self._by_slot = maps
        self._rules = rules
        self.used: list[MapInfo] = []
        self.at: dict[int, tuple[MapInfo, int]] = {}

    def resolve(self, index: int, insn: Insn, second: int) -> None:
        """Check the map of one immediate as the kernel does when it reads the program."""
        spec = self._by_slot.get(index)
        if spec is None:
            refuse(errno.EBADF, f"fd {insn.imm} is not pointing to valid bpf_map", insn=index)
        info = self._find(spec)
        if info is None:
            info = self._add(index, spec)
        if insn.src in (1, 5):
            self.at[index] = (info, 0)
            return
        offset = second & 0xFFFFFFFF
        if offset >= _MAX_OFFSET:
            invalid(f"direct value offset of {offset} is not allowed", insn=index)
        if not map_kinds.BY_NAME[info.kind].direct:
            invalid("no direct value access support for this map type", insn=index)
        if info.max_entries != 1:
            refuse(524, _direct(info, offset), insn=index)
        if offset >= info.value_size:
            invalid(_direct(info, offset), insn=index)
        self.at[index] = (info, offset)

    def _find(self, spec: Any) -> MapInfo | None:
        for info in self.used:
            same = info.spec is spec
            if same or (info.name and info.name == getattr(spec, "name", "") and bool(info.spec == spec)):
                return info
        return None

    def _add(self, index: int, spec: Any) -> MapInfo:
        if len(self.used) >= MAX_USED_MAPS:
            refuse(
                errno.E2BIG,
                f"The total number of maps per program has reached the limit of {MAX_USED_MAPS}",
                insn=index,
            )
        for one in (spec, getattr(spec, "inner", None)):
            if one is not None and one.kind not in map_kinds.BY_NAME:
                invalid(f"map type {one.kind} is none of the kernel's", insn=index)
        info = MapInfo(spec)
        if info.kind not in self._rules.map_kinds:
            since = map_kinds.BY_NAME[info.kind].since
            invalid(f"map type {info.kind} came with Linux {since}", insn=index)
        if info.field("spin_lock") or info.field("res_spin_lock"):
            invalid("socket filter progs cannot use bpf_spin_lock yet", insn=index)
        if info.kind == "STRUCT_OPS":
            invalid("bpf_struct_ops map cannot be used in prog", insn=index)
        self.used.append(info)
        return info




def _direct(info: MapInfo, offset: int) -> str:
    return f"invalid access to map value pointer, value_size={info.value_size} off={offset}"
