"""The order of an LRU table's entries, out and in: so that a table that was saved evicts as if it had gone on.

A snapshot names entries by key (hex). Free nodes cannot be told apart, so of them only the numbers are kept, and which
list's mark stands where.
"""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pktbpf.maps import hashtab, layout, lru_lists
from pktbpf.maps.elements import place, read_key, write_value

_NAMES = {0: "active", 1: "inactive", 4: "pending"}
_STEAL = 5


def _arrays(m: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """LINKS, INFO and BLOCKS; the last three blocks that the storage made."""
    links, info, blocks = m.storage.blocks[-3:]
    return links, info, blocks.reshape(-1, lru_lists.BLOCK_WORDS)


def _lists(m: Any) -> list[tuple[int, int, int, int]]:
    """(head, type, block, processor) of every list that entries stand in."""
    first, cpus = int(m.row[layout.MAX_ENTRIES]) + 1, m.possible_cpus
    if m.flags & layout.BPF_F_NO_COMMON_LRU:
        return [(first + 3 * cpu + kind, kind, cpu, cpu) for cpu in range(cpus) for kind in (0, 1)]
    common = [(first + kind, kind, 0, 0) for kind in (0, 1)]
    return common + [(first + 3 + 2 * cpu + 1, 4, 0, cpu) for cpu in range(cpus)]


def _nodes(links: NDArray[Any], head: int) -> list[int]:
    out: list[int] = []
    node = int(links[2 * head])
    while node != head:
        out.append(node)
        node = int(links[2 * node])
    return out


def snapshot(m: Any) -> dict[str, Any]:
    """Lists from the newest entry to the oldest, marks, numbers of free nodes."""
    links, info, blocks = _arrays(m)
    lists = []
    for head, kind, block, cpu in _lists(m):
        nodes = _nodes(links, head)
        entry: dict[str, Any] = {
            "list": _NAMES[kind], "cpu": cpu, "keys": [read_key(m, node).hex() for node in nodes],
            "referenced": [n for n, node in enumerate(nodes) if info[node] & 0x100],
            "owners": [int(info[node] >> 16) for node in nodes],
        }  # fmt: skip
        if kind == 1:
            mark = int(blocks[block, 2])
            entry["mark"] = nodes.index(mark) if mark in nodes else None
        lists.append(entry)
    return {"lists": lists, "free": _free(m, links), "steal": [int(n) for n in blocks[1:, _STEAL]]}


def _free(m: Any, links: NDArray[Any]) -> list[int]:
    """Nodes in each processor's local free list; none where there are no local lists."""
    if m.flags & layout.BPF_F_NO_COMMON_LRU:
        return []
    first = int(m.row[layout.MAX_ENTRIES]) + 4
    return [len(_nodes(links, first + 2 * cpu)) for cpu in range(m.possible_cpus)]


def restore(m: Any, state: dict[str, Any]) -> None:
    """Bring the lists of a table, whose entries have just been put in, into the order of a snapshot."""
    links, info, blocks = _arrays(m)
    own = bool(m.flags & layout.BPF_F_NO_COMMON_LRU)
    first, total = int(m.row[layout.MAX_ENTRIES]) + 1, len(info)
    for head in range(first, total):
        links[2 * head : 2 * head + 2] = head
    blocks[:, :2] = 0
    for entry, (head, kind, block, _) in zip(state["lists"], _lists(m), strict=True):
        nodes = [_slot(m, key) for key in entry["keys"]]
        _chain(links, head, nodes)
        referenced = set(entry["referenced"])
        for n, (node, owner) in enumerate(zip(nodes, entry["owners"], strict=True)):
            info[node] = kind | (0x100 if n in referenced else 0) | owner << 16
        if kind < 2:
            blocks[block, kind] = len(nodes)
        if kind == 1:
            blocks[block, 2] = head if entry["mark"] is None else nodes[entry["mark"]]
    blocks[1:, _STEAL] = state["steal"]
    _free_nodes(m, links, info, blocks, state["free"], own)


def _slot(m: Any, key: str) -> int:
    at, held = place(bytes.fromhex(key))
    slot = int(hashtab.slot_of(m.row, at))
    del held
    return slot


def _chain(links: NDArray[Any], head: int, nodes: list[int]) -> None:
    ring = [head, *nodes, head]
    for left, right in itertools.pairwise(ring):
        links[2 * left], links[2 * right + 1] = right, left


def _free_nodes(
    m: Any, links: NDArray[Any], info: NDArray[Any], blocks: NDArray[Any], local: list[int], own: bool
) -> None:
    """Hand the slots that no entry has to the local free lists and, all others, to the LRU list they belong to."""
    entries, cpus = int(m.row[layout.MAX_ENTRIES]), m.possible_cpus
    used = [_slot(m, key.hex()) for key, _ in m.raw_items()]
    share = entries // cpus
    for number in range(cpus if own else 1):
        low, high = (number * share + 1, (number + 1) * share) if own else (1, entries)
        begin = max((slot for slot in used if low <= slot <= high), default=low - 1) + 1
        if not own:
            for cpu, count in enumerate(local):
                mine = list(range(begin, begin + count))
                _chain(links, entries + 4 + 2 * cpu, mine)
                info[mine] = int(lru_lists.LOCAL_FREE) | cpu << 16
                begin += count
        blocks[number, 3] = begin


def insert(m: Any, entries: list[tuple[bytes, bytes]], owners: dict[bytes, int]) -> None:
    """Put entries into an empty table, the last of a walk first, each into a slot of its owner; nothing is evicted."""
    share = int(m.row[layout.MAX_ENTRIES]) // m.possible_cpus
    own = bool(m.flags & layout.BPF_F_NO_COMMON_LRU)
    following = [cpu * share + 1 if own else 1 for cpu in range(m.possible_cpus)]
    for key, value in reversed(entries):
        owner = owners.get(key, 0) if own else 0
        slot = following[owner]
        following[owner] += 1
        at, held = place(key)
        number = np.uint64(slot)
        ctypes.memmove(int(hashtab.key_of(m.row, number)), key, len(key))
        write_value(m, slot - 1, value)
        hashtab.link_first(m.row, hashtab.bucket_of(m.row, at), number)
        del held
