"""Element calls of bpf(2) on one map, kind by kind: what syscall.c and the families' map_ops do with a key and a value.

Keys and values are bytes of the exact size, or None for a null pointer. A function returns bytes or 0, or a negative
errno; `face` and `pktbpf.bpf` make exceptions of it. Checks that come before the family's (permissions, spin lock, null
pointers) are in `face`.
"""

from __future__ import annotations

import ctypes
import errno
from typing import Any

import numpy as np

from pktbpf.maps import array, bloom, hashtab, layout, queue, trie
from pktbpf.maps.layout import ENOTSUPP

_U0 = np.uint64(0)
Answer = bytes | int


def place(data: bytes | None) -> tuple[np.uint64, Any]:
    """Machine address of bytes that compiled code may read eight at a time, and what keeps them alive."""
    if data is None:
        return _U0, None
    block = ctypes.create_string_buffer(data, len(data) + 8)
    return np.uint64(ctypes.addressof(block)), block


class Family:
    """Kinds without elements that anybody can address: every call fails with the same errno."""

    def __init__(self, lookup: int, update: int, delete: int, following: int) -> None:
        self._errors = (-lookup, -update, -delete, -following)

    def lookup(self, m: Any, key: bytes, value: bytes | None) -> Answer:
        """The value as the call copies it out. value: what the caller's buffer holds (Bloom filters look at it)."""
        return self._errors[0]

    def update(self, m: Any, key: bytes, value: Any, flags: int) -> int:
        """0 or -errno."""
        return self._errors[1]

    def delete(self, m: Any, key: bytes) -> int:
        """0 or -errno."""
        return self._errors[2]

    def following(self, m: Any, key: bytes | None) -> Answer:
        """The key after `key`, the first for None or, in most families, an absent one."""
        return self._errors[3]

    def take(self, m: Any, key: bytes) -> Answer:
        """Lookup and delete in one."""
        return -ENOTSUPP

    def count(self, m: Any) -> int:
        """Number of entries."""
        return 0


class Indexed(Family):
    """Anything with a uint32 index as key."""

    def __init__(self) -> None:
        super().__init__(errno.ENOENT, errno.EINVAL, errno.EINVAL, errno.ENOENT)

    def following(self, m: Any, key: bytes | None) -> Answer:
        entries = m.spec.max_entries
        index = int.from_bytes(key, "little") if key is not None else entries
        if index >= entries:
            return bytes(4)
        return -errno.ENOENT if index == entries - 1 else (index + 1).to_bytes(4, "little")

    def count(self, m: Any) -> int:
        entries: int = m.spec.max_entries
        return entries


class Array(Indexed):
    """ARRAY and PERCPU_ARRAY."""

    def lookup(self, m: Any, key: bytes, value: bytes | None) -> Answer:
        index = int.from_bytes(key, "little")
        if index >= m.spec.max_entries:
            return -errno.ENOENT
        return read(m, index)

    def update(self, m: Any, key: bytes, value: Any, flags: int) -> int:
        index = int.from_bytes(key, "little")
        if not m.percpu:
            (at, held), (data, also) = place(key), place(value)
            code = int(array.update(m.row, at, data, np.uint64(flags), _U0))
            del held, also
            return code
        if flags > layout.BPF_EXIST:
            return -errno.EINVAL
        if index >= m.spec.max_entries:
            return -errno.E2BIG
        if flags == layout.BPF_NOEXIST:
            return -errno.EEXIST
        write_value(m, index, value)
        return 0


class Hash(Family):
    """HASH, PERCPU_HASH and the LRU tables. The system call's lookups leave LRU entries unmarked."""

    def __init__(self, operations: Any) -> None:
        super().__init__(errno.ENOENT, errno.EINVAL, errno.ENOENT, errno.ENOENT)
        self._operations = operations

    def lookup(self, m: Any, key: bytes, value: bytes | None) -> Answer:
        at, held = place(key)
        slot = int(hashtab.slot_of(m.row, at))
        del held
        return read(m, slot - 1) if slot else -errno.ENOENT

    def update(self, m: Any, key: bytes, value: Any, flags: int) -> int:
        (at, held), (data, also) = place(key), place(value)
        code = int(self._operations.update(m.row, at, data, np.uint64(flags), np.uint64(m.cpu)))
        if not code and m.percpu:
            write_value(m, int(hashtab.slot_of(m.row, at)) - 1, value)
        del held, also
        return code

    def delete(self, m: Any, key: bytes) -> int:
        at, held = place(key)
        code = int(self._operations.delete(m.row, at))
        del held
        return code

    def following(self, m: Any, key: bytes | None) -> Answer:
        at, held = place(key)
        slot = int(hashtab.next_slot(m.row, at))
        del held
        return read_key(m, slot) if slot else -errno.ENOENT

    def take(self, m: Any, key: bytes) -> Answer:
        found = self.lookup(m, key, None)
        if isinstance(found, bytes):
            self.delete(m, key)
        return found

    def count(self, m: Any) -> int:
        return state(m, 0)


class Trie(Family):
    """LPM_TRIE."""

    def __init__(self) -> None:
        super().__init__(errno.ENOENT, errno.EINVAL, errno.ENOENT, errno.ENOENT)

    def lookup(self, m: Any, key: bytes, value: bytes | None) -> Answer:
        at, held = place(key)
        slot = int(trie.find(m.row, at))
        del held
        return read(m, slot - 1) if slot else -errno.ENOENT

    def update(self, m: Any, key: bytes, value: Any, flags: int) -> int:
        (at, held), (data, also) = place(key), place(value)
        code = int(trie.update(m.row, at, data, np.uint64(flags)))
        del held, also
        return code

    def delete(self, m: Any, key: bytes) -> int:
        at, held = place(key)
        code = int(trie.delete(m.row, at))
        del held
        return code

    def following(self, m: Any, key: bytes | None) -> Answer:
        at, held = place(key)
        slot = int(trie.next_slot(m.row, at))
        del held
        return read_key(m, slot) if slot else -errno.ENOENT

    def count(self, m: Any) -> int:
        return state(m, 0)


class Queue(Family):
    """QUEUE and STACK: lookup peeks, update pushes, lookup-and-delete pops."""

    def __init__(self) -> None:
        super().__init__(errno.ENOENT, errno.EINVAL, errno.EINVAL, errno.EINVAL)

    def _get(self, m: Any, remove: bool) -> Answer:
        out = ctypes.create_string_buffer(m.spec.value_size + 8)
        code = int(queue.get(m.row, np.uint64(ctypes.addressof(out)), remove))
        return code or out.raw[: m.spec.value_size]

    def lookup(self, m: Any, key: bytes, value: bytes | None) -> Answer:
        return self._get(m, False)

    def update(self, m: Any, key: bytes, value: Any, flags: int) -> int:
        data, held = place(value)
        code = int(queue.push(m.row, data, np.uint64(flags)))
        del held
        return code

    def take(self, m: Any, key: bytes) -> Answer:
        return self._get(m, True)

    def count(self, m: Any) -> int:
        return (state(m, 0) - state(m, 1)) % (int(m.spec.max_entries) + 1)


class Bloom(Family):
    """BLOOM_FILTER: lookup asks whether the caller's value may be in it."""

    def __init__(self) -> None:
        super().__init__(errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP, errno.EOPNOTSUPP)

    def lookup(self, m: Any, key: bytes, value: bytes | None) -> Answer:
        data, held = place(value)
        code = int(bloom.peek(m.row, data))
        del held
        return code or value or b""

    def update(self, m: Any, key: bytes, value: Any, flags: int) -> int:
        data, held = place(value)
        code = int(bloom.push(m.row, data, np.uint64(flags)))
        del held
        return code


class StackTrace(Family):
    """STACK_TRACE: always empty, since a replay has no kernel stacks to record; ids end at the number of buckets."""

    def __init__(self) -> None:
        super().__init__(errno.ENOENT, errno.EINVAL, errno.ENOENT, errno.ENOENT)

    def delete(self, m: Any, key: bytes) -> int:
        buckets = 1 << (int(m.spec.max_entries) - 1).bit_length()
        return -errno.E2BIG if int.from_bytes(key, "little") >= buckets else -errno.ENOENT

    def take(self, m: Any, key: bytes) -> Answer:
        return -errno.ENOENT


def state(m: Any, word: int) -> int:
    """A word of the map's STATE."""
    return int(m.storage.blocks[0][word])


def read_key(m: Any, slot: int) -> bytes:
    """Key of a slot, counted from 1."""
    row = m.row
    return ctypes.string_at(int(row[layout.KEYS_AT]) + (slot - 1) * int(row[layout.KEY_STRIDE]), m.spec.key_size)


def read(m: Any, index: int) -> bytes:
    """Value of an index or slot (from 0): value_size bytes, special fields zeroed; of a per-CPU map all processors'
    values, each rounded up to 8 bytes."""
    row, size = m.row, m.spec.value_size
    cpus, stride = int(row[layout.CPUS]), int(row[layout.STRIDE])
    at = int(row[layout.VALUES_AT]) + index * cpus * stride
    if m.percpu:
        return ctypes.string_at(at, cpus * stride)
    data = ctypes.string_at(at, size)
    for offset, length in m.special:
        data = data[:offset] + bytes(length) + data[offset + length :]
    return data


def write_value(m: Any, index: int, value: bytes) -> None:
    """The bytes of a value as `read` gives them into an index or slot."""
    size = int(m.row[layout.CPUS]) * int(m.row[layout.STRIDE])
    ctypes.memmove(int(m.row[layout.VALUES_AT]) + index * size, value, len(value))
