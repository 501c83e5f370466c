"""Kinds whose values refer to something: PROG_ARRAY, map-in-map, and arrays of perf events and control groups.

A reference in a map keeps its target alive: `m.targets` holds the objects (index or key bytes -> Map or program), the
row's memory the numbers that compiled code reads. Off a kernel there are no perf events or control groups to put in.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import weakref
from typing import Any

import numpy as np

from pktbpf.maps import hashtab, layout
from pktbpf.maps.elements import Answer, Hash, Indexed, place
from pktbpf.program import Program, Verified


class Descriptors(Indexed):
    """PERF_EVENT_ARRAY and CGROUP_ARRAY: always empty for the system call."""

    def lookup(self, m: Any, key: bytes, value: bytes | None) -> Answer:
        return -layout.ENOTSUPP

    def update(self, m: Any, key: bytes, value: Any, flags: int) -> int:
        if flags:
            return -errno.EINVAL
        if int.from_bytes(key, "little") >= m.spec.max_entries:
            return -errno.E2BIG
        return self.store(m, int.from_bytes(key, "little"), value)

    def store(self, m: Any, index: int, value: Any) -> int:
        """Put what a descriptor stands for into a slot, replacing what is there; an errno when it does not fit."""
        return -errno.EBADF

    def delete(self, m: Any, key: bytes) -> int:
        index = int.from_bytes(key, "little")
        if index >= m.spec.max_entries:
            return -errno.E2BIG
        return self.clear(m, index)

    def clear(self, m: Any, index: int) -> int:
        """Empty a slot; -ENOENT when it is."""
        return -errno.ENOENT

    def count(self, m: Any) -> int:
        return len(m.targets)


class Programs(Descriptors):
    """PROG_ARRAY: the value is a program (Verified, or a Program that the engine checks when it links it)."""

    def lookup(self, m: Any, key: bytes, value: bytes | None) -> Answer:
        found = m.targets.get(int.from_bytes(key, "little"))
        return -errno.ENOENT if found is None else program_id(found).to_bytes(4, "little")

    def store(self, m: Any, index: int, value: Any) -> int:
        if isinstance(value, bytes):
            return -errno.EBADF
        if not isinstance(value, Verified | Program):
            return -errno.EINVAL
        m.targets[index] = value
        m.version += 1
        return 0

    def clear(self, m: Any, index: int) -> int:
        if m.targets.pop(index, None) is None:
            return -errno.ENOENT
        m.version += 1
        return 0


class ArrayOfMaps(Descriptors):
    """ARRAY_OF_MAPS: looked up as the inner map's id."""

    def lookup(self, m: Any, key: bytes, value: bytes | None) -> Answer:
        found = m.targets.get(int.from_bytes(key, "little"))
        return -errno.ENOENT if found is None else int(found.id).to_bytes(4, "little")

    def store(self, m: Any, index: int, value: Any) -> int:
        wrong = fits(m, value)
        if not wrong:
            _poke_number(m, index, value.number)
            m.targets[index] = value
        return wrong

    def clear(self, m: Any, index: int) -> int:
        if m.targets.pop(index, None) is None:
            return -errno.ENOENT
        _poke_number(m, index, 0)
        return 0


class HashOfMaps(Hash):
    """HASH_OF_MAPS: looked up as the inner map's id; the inner map is looked at before the flags."""

    def __init__(self) -> None:
        super().__init__(hashtab)

    def lookup(self, m: Any, key: bytes, value: bytes | None) -> Answer:
        found = m.targets.get(key)
        return -errno.ENOENT if found is None else int(found.id).to_bytes(4, "little")

    def update(self, m: Any, key: bytes, value: Any, flags: int) -> int:
        wrong = fits(m, value)
        if wrong:
            return wrong
        if flags > layout.BPF_EXIST:
            return -errno.EINVAL
        (at, held), (data, also) = place(key), place(int(value.number).to_bytes(8, "little"))
        code = int(hashtab.update(m.row, at, data, np.uint64(flags), np.uint64(0)))
        del held, also
        if not code:
            m.targets[key] = value
        return code

    def delete(self, m: Any, key: bytes) -> int:
        code = super().delete(m, key)
        m.targets.pop(key, None)
        return code

    def take(self, m: Any, key: bytes) -> Answer:
        return -layout.ENOTSUPP


def fits(outer: Any, inner: Any) -> int:
    """0 when a map may stand in a map of maps (map_meta_equal), -EBADF for bytes that name none, -EINVAL otherwise."""
    if isinstance(inner, bytes):
        return -errno.EBADF
    if isinstance(inner, Verified | Program) or not hasattr(inner, "number"):
        return -errno.EINVAL
    wanted, own = outer.spec.inner, inner.spec
    same = (wanted.kind, wanted.key_size, wanted.value_size, wanted.flags) == (
        own.kind, own.key_size, own.value_size, own.flags
    )  # fmt: skip
    if wanted.kind == "ARRAY" and not own.flags & layout.BPF_F_INNER_MAP:
        same = same and wanted.max_entries == own.max_entries
    same = same and sorted(outer.inner_special) == sorted(inner.special)
    return 0 if same else -errno.EINVAL


def _poke_number(m: Any, index: int, number: int) -> None:
    ctypes.memmove(int(m.row[layout.AUX_AT]) + 8 * index, number.to_bytes(8, "little"), 8)


_program_ids: dict[int, int] = {}
_next_id = itertools.count(1)


def program_id(program: Any) -> int:
    """A number for a program that stays the same as long as the program lives, counted from 1."""
    key = id(program)
    if key not in _program_ids:
        _program_ids[key] = next(_next_id)
        weakref.finalize(program, _program_ids.pop, key, None)
    return _program_ids[key]
