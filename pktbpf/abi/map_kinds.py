"""Map kinds: number, privilege to create one, and which helpers may work on which kind, as the verifier holds them.

Numbers are BPF_MAP_TYPE_* of uapi linux/bpf.h. The pairing of helpers and kinds goes both ways: a kind may allow only
certain helpers (`helpers`), and a helper may want certain kinds (`HELPER_KINDS`). Both ends mirror the kernel's
check_map_func_compatibility for a socket filter; creation privileges are those of a live 6.18 kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

LOOKUP = "map_lookup_elem"


@dataclass(frozen=True, slots=True)
class MapKind:
    """helpers: the only ones that may take such a map, None for no restriction (`HELPER_KINDS` still applies).

    privilege: none, cap_bpf, or net_admin, what BPF_MAP_CREATE asks for where unprivileged BPF is enabled. direct: its
    value can be addressed by a 64-bit immediate. each: bpf_for_each_map_elem walks it. special: programs of this type
    cannot use it at all. since: first Linux version that has the kind ("5.10" for all that are older).
    """

    name: str
    number: int
    privilege: str
    helpers: tuple[str, ...] | None = None
    direct: bool = False
    each: bool = False
    special: bool = False
    since: str = "5.10"


_SOCK = ("map_update_elem", "map_delete_elem", LOOKUP)
_RING = (
    "ringbuf_output", "ringbuf_reserve", "ringbuf_query", "ringbuf_reserve_dynptr", "ringbuf_submit_dynptr",
    "ringbuf_discard_dynptr",
)  # fmt: skip

# One line per kind.
ROWS: tuple[MapKind, ...] = (
    MapKind("UNSPEC", 0, "cap_bpf", special=True),
    MapKind("HASH", 1, "none", each=True),
    MapKind("ARRAY", 2, "none", direct=True, each=True),
    MapKind("PROG_ARRAY", 3, "none", ("tail_call",)),
    MapKind("PERF_EVENT_ARRAY", 4, "none", ("perf_event_read", "perf_event_output", "perf_event_read_value")),
    MapKind("PERCPU_HASH", 5, "none", each=True),
    MapKind("PERCPU_ARRAY", 6, "none", each=True),
    MapKind("STACK_TRACE", 7, "cap_bpf", ()),
    MapKind("CGROUP_ARRAY", 8, "none", ("current_task_under_cgroup",)),
    MapKind("LRU_HASH", 9, "cap_bpf", each=True),
    MapKind("LRU_PERCPU_HASH", 10, "cap_bpf", each=True),
    MapKind("LPM_TRIE", 11, "cap_bpf"),
    MapKind("ARRAY_OF_MAPS", 12, "cap_bpf", (LOOKUP,)),
    MapKind("HASH_OF_MAPS", 13, "cap_bpf", (LOOKUP,)),
    MapKind("DEVMAP", 14, "net_admin", (LOOKUP,)),
    MapKind("SOCKMAP", 15, "net_admin", _SOCK),
    MapKind("CPUMAP", 16, "cap_bpf", ()),
    MapKind("XSKMAP", 17, "net_admin", (LOOKUP,)),
    MapKind("SOCKHASH", 18, "net_admin", _SOCK),
    MapKind("CGROUP_STORAGE", 19, "none", ()),
    MapKind("REUSEPORT_SOCKARRAY", 20, "cap_bpf", ()),
    MapKind("PERCPU_CGROUP_STORAGE", 21, "none", ()),
    MapKind("QUEUE", 22, "cap_bpf", ("map_peek_elem", "map_pop_elem", "map_push_elem")),
    MapKind("STACK", 23, "cap_bpf", ("map_peek_elem", "map_pop_elem", "map_push_elem")),
    MapKind("SK_STORAGE", 24, "cap_bpf", ("kptr_xchg",)),
    MapKind("DEVMAP_HASH", 25, "net_admin", (LOOKUP,)),
    MapKind("STRUCT_OPS", 26, "cap_bpf", special=True),
    MapKind("RINGBUF", 27, "none", _RING),
    MapKind("INODE_STORAGE", 28, "cap_bpf", ("kptr_xchg",)),
    MapKind("TASK_STORAGE", 29, "cap_bpf", ("task_storage_get", "task_storage_delete", "kptr_xchg"), since="5.11"),
    MapKind("BLOOM_FILTER", 30, "cap_bpf", ("map_peek_elem", "map_push_elem"), since="5.16"),
    MapKind("USER_RINGBUF", 31, "none", ("user_ringbuf_drain",), since="6.1"),
    MapKind("CGRP_STORAGE", 32, "cap_bpf", ("cgrp_storage_get", "cgrp_storage_delete", "kptr_xchg"), since="6.2"),
    MapKind("ARENA", 33, "cap_bpf", special=True, since="6.9"),
)

BY_NAME: dict[str, MapKind] = {row.name: row for row in ROWS}
BY_NUMBER: dict[int, MapKind] = {row.number: row for row in ROWS}

# Helpers that want particular kinds.
HELPER_KINDS: dict[str, tuple[str, ...]] = {
    "tail_call": ("PROG_ARRAY",),
    "perf_event_read": ("PERF_EVENT_ARRAY",),
    "perf_event_output": ("PERF_EVENT_ARRAY",),
    "perf_event_read_value": ("PERF_EVENT_ARRAY",),
    "ringbuf_output": ("RINGBUF",),
    "ringbuf_reserve": ("RINGBUF",),
    "ringbuf_query": ("RINGBUF",),
    "ringbuf_reserve_dynptr": ("RINGBUF",),
    "ringbuf_submit_dynptr": ("RINGBUF",),
    "ringbuf_discard_dynptr": ("RINGBUF",),
    "user_ringbuf_drain": ("USER_RINGBUF",),
    "current_task_under_cgroup": ("CGROUP_ARRAY",),
    "map_pop_elem": ("QUEUE", "STACK"),
    "map_peek_elem": ("QUEUE", "STACK", "BLOOM_FILTER"),
    "map_push_elem": ("QUEUE", "STACK", "BLOOM_FILTER"),
    "map_lookup_percpu_elem": ("PERCPU_ARRAY", "PERCPU_HASH", "LRU_PERCPU_HASH"),
    "task_storage_get": ("TASK_STORAGE",),
    "task_storage_delete": ("TASK_STORAGE",),
    "cgrp_storage_get": ("CGRP_STORAGE",),
    "cgrp_storage_delete": ("CGRP_STORAGE",),
}


def compatible(kind: str, helper: str) -> bool:
    """Whether `helper` may take a map of this kind, asked from both ends."""
    row = BY_NAME[kind]
    if row.helpers is not None and helper not in row.helpers:
        return False
    wanted = HELPER_KINDS.get(helper)
    return wanted is None or kind in wanted
