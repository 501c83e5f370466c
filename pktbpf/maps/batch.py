"""Batch calls of bpf(2): lookup, lookup-and-delete, update and delete of many elements (syscall.c, hashtab.c).

Hash tables go bucket by bucket and their cursor is a bucket's number (4 bytes); arrays and tries go key by key and the
cursor is the last key. A Batch carries what was done before an error, as the kernel reports the count with it.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pktbpf.maps import layout
from pktbpf.maps.attributes import HASH_KINDS
from pktbpf.maps.elements import read, read_key
from pktbpf.maps.families import FAMILIES
from pktbpf.maps.layout import ENOTSUPP

BY_KEY = frozenset({"ARRAY", "PERCPU_ARRAY", "ARRAY_OF_MAPS", "LPM_TRIE"})
UPDATES = BY_KEY | HASH_KINDS
DELETES = HASH_KINDS | {"LPM_TRIE"}


@dataclass
class Batch:
    """count: elements done. cursor: where to go on, None where the call leaves it unset. errno: 0, or why it ended;
    ENOENT means that a lookup came to the map's end."""

    count: int = 0
    keys: list[bytes] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    cursor: bytes | None = None
    errno: int = 0


def _bad_flags(m: Any, elem_flags: int) -> bool:
    return bool(elem_flags & ~layout.BPF_F_LOCK or (elem_flags & layout.BPF_F_LOCK and not m.row[layout.SPIN_LOCK]))


def lookup(m: Any, cursor: bytes | None, count: int, elem_flags: int, flags: int, remove: bool) -> Batch:
    """BPF_MAP_LOOKUP_BATCH, or with `remove` BPF_MAP_LOOKUP_AND_DELETE_BATCH."""
    kind = m.spec.kind
    if kind in HASH_KINDS:
        if _bad_flags(m, elem_flags) or flags:
            return Batch(errno=errno.EINVAL)
        return _buckets(m, cursor, count, remove) if count else Batch()
    if remove or kind not in BY_KEY:
        return Batch(errno=ENOTSUPP)
    if _bad_flags(m, elem_flags):
        return Batch(errno=errno.EINVAL)
    return _keys(m, cursor, count) if count else Batch()


def _keys(m: Any, cursor: bytes | None, count: int) -> Batch:
    family, done = FAMILIES[m.spec.kind], Batch()
    at = cursor
    while done.count < count:
        key = family.following(m, at)
        if isinstance(key, int):
            done.errno = -key
            break
        value = family.lookup(m, key, None)
        at = key
        if value == -errno.ENOENT:
            continue
        if isinstance(value, int):
            done.errno = -value
            return done
        done.keys.append(key)
        done.values.append(value)
        done.count += 1
    if done.count:
        done.cursor = at
    return done


def _buckets(m: Any, cursor: bytes | None, count: int, remove: bool) -> Batch:
    row = m.row
    number = int.from_bytes(cursor[:4], "little") if cursor is not None else 0
    last = int(row[layout.MASK])
    if number > last:
        return Batch(errno=errno.ENOENT)
    done = Batch()
    while number <= last:
        slots = _chain(row, number)
        if len(slots) > count - done.count:
            done.errno = 0 if done.count else errno.ENOSPC
            break
        _take_chain(m, slots, remove, done)
        number += 1
    else:
        done.errno = errno.ENOENT
    done.cursor = number.to_bytes(4, "little")
    return done


def _chain(row: Any, number: int) -> list[int]:
    heads, links = int(row[layout.HEADS_AT]), int(row[layout.LINKS_AT])
    slots: list[int] = []
    slot = _peek(heads + 4 * number)
    while slot:
        slots.append(slot)
        slot = _peek(links + 4 * slot)
    return slots


def _peek(address: int) -> int:
    return ctypes.c_uint32.from_address(address).value


def _take_chain(m: Any, slots: list[int], remove: bool, done: Batch) -> None:
    family = FAMILIES[m.spec.kind]
    keys = [read_key(m, slot) for slot in slots]
    for slot, key in zip(slots, keys, strict=True):
        value = family.lookup(m, key, None) if m.outer else read(m, slot - 1)
        assert isinstance(value, bytes)
        done.keys.append(key)
        done.values.append(value)
    done.count += len(slots)
    if remove:
        # The kernel frees them in the order of its list, which it fills from the front.
        for key in reversed(keys):
            family.delete(m, key)


def update(m: Any, keys: Sequence[bytes], values: Sequence[Any], elem_flags: int) -> Batch:
    """BPF_MAP_UPDATE_BATCH: one after the other until one fails."""
    if m.spec.kind not in UPDATES:
        return Batch(errno=ENOTSUPP)
    if _bad_flags(m, elem_flags):
        return Batch(errno=errno.EINVAL)
    done = Batch()
    for key, value in zip(keys, values, strict=True):
        done.errno = -FAMILIES[m.spec.kind].update(m, key, value, elem_flags)
        if done.errno:
            break
        done.count += 1
    return done


def delete(m: Any, keys: Sequence[bytes], elem_flags: int) -> Batch:
    """BPF_MAP_DELETE_BATCH: one after the other until one fails."""
    if m.spec.kind not in DELETES:
        return Batch(errno=ENOTSUPP)
    if _bad_flags(m, elem_flags):
        return Batch(errno=errno.EINVAL)
    done = Batch()
    for key in keys:
        done.errno = -FAMILIES[m.spec.kind].delete(m, key)
        if done.errno:
            break
        done.count += 1
    return done
