"""A map as Python code uses it: `m[key]`, `in`, `len`, items, keys and values in Python's own types."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

from pktbpf.errors import MapError
from pktbpf.maps import codec, events
from pktbpf.maps.attributes import REFERENCE_KINDS
from pktbpf.maps.families import FAMILIES
from pktbpf.maps.layout import round_up
from pktbpf.maps.rawcalls import RawCalls


class PythonFace(RawCalls):
    """The mapping half of `Map`."""

    key_type: Any
    value_type: Any
    targets: dict[Any, Any]
    outer: bool

    def _key(self, key: Any) -> bytes | None:
        if key is None:
            return None
        if isinstance(key, str) and self.kind == "LPM_TRIE" and self.key_type is None:
            return codec.prefix(key, self.key_size)
        if not self.key_size:
            return b""  # the checks of the call refuse it, in their order
        return codec.encode(key, self.key_size, self.key_type, f"key of {self.title}")

    def _value(self, value: Any) -> Any:
        if value is None or self.kind in REFERENCE_KINDS:
            return value
        if not self.value_size:
            return b""
        what = f"value of {self.title}"
        if self.percpu:
            return self._percpu_value(value, what)
        return codec.encode(value, self.value_size, self.value_type, what)

    def _percpu_value(self, value: Any, what: str) -> bytes:
        """All processors' values: bytes as the system call takes them, a list, or one value for all."""
        size = round_up(self.value_size)
        if isinstance(value, bytes | bytearray | memoryview) and len(value) == size * self.possible_cpus:
            return bytes(value)
        if isinstance(value, list | tuple) and self.value_type is None:
            if len(value) != self.possible_cpus:
                raise MapError(errno.EINVAL, f"{what} takes {self.possible_cpus} values, not {len(value)}")
            values = list(value)
        elif isinstance(value, list | tuple) and len(value) == self.possible_cpus:
            values = list(value)
        else:
            values = [value] * self.possible_cpus
        parts = (codec.encode(part, self.value_size, self.value_type, what) for part in values)
        return b"".join(part.ljust(size, b"\0") for part in parts)

    def python_key(self, key: bytes) -> Any:
        """A key as items() gives it."""
        return codec.decode(key, self.key_type)

    def python_value(self, value: bytes, key: bytes) -> Any:
        """A value as `m[key]` gives it; see the class."""
        if self.outer or self.kind == "PROG_ARRAY":
            return self.targets[key if self.kind == "HASH_OF_MAPS" else int.from_bytes(key, "little")]
        if not self.percpu:
            return codec.decode(value, self.value_type)
        size = round_up(self.value_size)
        parts = (value[at : at + self.value_size] for at in range(0, len(value), size))
        return [codec.decode(part, self.value_type) for part in parts]

    def __getitem__(self, key: Any) -> Any:
        raw = self._key(key)
        found = self._lookup(raw, 0)
        if isinstance(found, int):
            if found == -errno.ENOENT:
                raise KeyError(key)
            self._done(found, "lookup", key)
            raise AssertionError("an answer is bytes or an error")
        return self.python_value(found, raw or b"")

    def __setitem__(self, key: Any, value: Any) -> None:
        self._done(self._update(self._key(key), self._value(value), 0), "update", key)

    def __delitem__(self, key: Any) -> None:
        code = self._delete(self._key(key))
        if code == -errno.ENOENT:
            raise KeyError(key)
        self._done(code, "delete", key)

    def __contains__(self, key: Any) -> bool:
        if self.kind == "BLOOM_FILTER":
            return isinstance(self._lookup(None, 0, self._value(key)), bytes)
        return isinstance(self._lookup(self._key(key), 0), bytes)

    def __len__(self) -> int:
        return FAMILIES[self.kind].count(self)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        return self.keys()

    def get(self, key: Any, default: Any = None) -> Any:
        """`m[key]`, or the default for an absent key."""
        try:
            return self[key]
        except KeyError:
            return default

    def raw_items(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) in bytes of all present entries, in the kernel's order of walking."""
        family, key = FAMILIES[self.kind], None
        seen = 0
        while seen <= self.max_entries:
            following = family.following(self, key)
            if isinstance(following, int):
                return
            key, seen = following, seen + 1
            value = family.lookup(self, key, None)
            if isinstance(value, bytes):
                yield key, value

    def items(self) -> Iterator[tuple[Any, Any]]:
        """(key, value) of all present entries, as `m[key]` gives them."""
        for key, value in self.raw_items():
            yield self.python_key(key), self.python_value(value, key)

    def keys(self) -> Iterator[Any]:
        """All present keys."""
        for key, _ in self.raw_items():
            yield self.python_key(key)

    def values(self) -> Iterator[Any]:
        """All values; of a queue or stack in the order they would be popped."""
        if self.kind in ("QUEUE", "STACK"):
            for raw in events.queued(self):
                yield codec.decode(raw, self.value_type)
            return
        for key, value in self.raw_items():
            yield self.python_value(value, key)
