"""Contents of a map from a JSON file: what `--map NAME=FILE.json` reads.

Shapes: an object `{"6": 100, "10.0.0.0/8": 1}` by key; a list of `{"key": ..., "value": ...}` as bpftool and `pktbpf
map dump` print maps (bytes as "0x1f" strings, `values` with one entry per cpu, `formatted` passed over); a list of
values for arrays and Bloom filters, of what is pushed for queues and stacks, of samples for user ring buffers; a file
that `--maps` wrote. Keys and values are numbers, "0x" text, hexadecimal digits, lists of bytes, prefixes, or what the
map's BTF type takes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pktbpf.errors import MapError, UsageError
from pktbpf.maps import blame, codec, store
from pktbpf.maps.face import Map

PUSHED = frozenset({"QUEUE", "STACK", "BLOOM_FILTER"})
UNFILLED = frozenset({"PROG_ARRAY", "PERF_EVENT_ARRAY", "CGROUP_ARRAY", "STACK_TRACE", "RINGBUF"})
MAX_SIZE = 1 << 28


def fill_from(one: Map, path: str) -> int:
    """Update a map from a JSON file; how many entries. Raises UsageError (the file) and OSError (reading it)."""
    with Path(path).open("rb") as stream:
        text = stream.read(MAX_SIZE + 1)
    if len(text) > MAX_SIZE:
        raise UsageError(f"{path}: more than {MAX_SIZE >> 20} MiB")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise blame.not_json(path, text, error) from None
    try:
        if store.is_saved(content):
            return store.refill(one, content, Path(path).parent)
        return fill(one, content)
    except blame.EntryError as error:
        line = blame.line_of(text.decode("utf-8-sig", "replace"), error.number)
        raise UsageError(f"{path}:{line}: {error}") from None
    except (UsageError, MapError) as error:
        raise UsageError(f"{path}: {error}") from None


def fill(one: Map, content: Any) -> int:
    """Update a map from a parsed value; how many entries. Raises UsageError, an EntryError for one of the entries."""
    if one.kind in UNFILLED:
        raise UsageError(f"a {one.kind} takes no contents from a file; leave out --map for it")
    if not isinstance(content, list | Mapping):
        raise blame.shape(content, one)
    if one.kind in (*PUSHED, "USER_RINGBUF"):
        return _push(one, content)
    items = list(content.items()) if isinstance(content, Mapping) else content
    for number, item in enumerate(items):
        key, value = item if isinstance(content, Mapping) else _pair(one, number, item)
        _enter(one, number, key, value)
    return len(items)


def _enter(one: Map, number: int, key: Any, value: Any) -> None:
    """Put one entry into the map. Raises EntryError."""
    part = "the key"
    try:
        made = codec.encode(_key(one, key), one.key_size, one.key_type, "a key")
        part = "the value"
        if value is None:
            raise UsageError("null is no value")
        data = _inner(one, value) if one.outer else _value(one, value)
        if not one.outer and not (one.percpu and isinstance(data, bytes)):
            data = codec.encode(data, one.value_size, one.value_type, "a value")
        part = ""
        one.update(made, data)
    except (UsageError, MapError) as error:
        raise blame.entry(number, key, part, error, one) from None


def _push(one: Map, content: Any) -> int:
    """Values in the order of the list; those of a dump, which are objects, come in the order of popping."""
    if not isinstance(content, list):
        raise UsageError(f"contents of a {one.kind} are a list, [VALUE, ...], not an object with keys")
    dumped = bool(content) and all(isinstance(item, Mapping) and set(item) == {"value"} for item in content)
    numbered = list(enumerate(item["value"] for item in content) if dumped else enumerate(content))
    for number, value in reversed(numbered) if dumped and one.kind == "STACK" else numbered:
        part = "the value"
        try:
            if one.kind == "USER_RINGBUF":
                sample = _sample(value)
                part = ""
                one.produce(sample)
            else:
                made = codec.encode(_bytes_of(value, one.value_size, one.value_type), one.value_size, one.value_type,
                                    "a value")  # fmt: skip
                part = ""
                one.push(made)
        except (UsageError, MapError) as error:
            raise blame.entry(number, number, part, error, one) from None
    return len(numbered)


def _sample(value: Any) -> bytes:
    """The bytes of a sample: hexadecimal digits or a list."""
    try:
        if isinstance(value, str):
            return bytes.fromhex(value)
        if _hexadecimal(value):
            return bytes(int(part, 16) for part in value)
        if isinstance(value, list):
            return bytes(value)
    except (ValueError, TypeError):
        pass
    raise UsageError(f"{value!r} is neither pairs of hexadecimal digits nor a list of bytes")


def _pair(one: Map, number: int, item: Any) -> tuple[Any, Any]:
    """Key and value of an item of a list."""
    if isinstance(item, Mapping) and "key" in item:
        if "value" in item:
            return item["key"], item["value"]
        if "values" in item:
            return item["key"], _per_cpu(number, item["values"])
        if not _has_field(one.value_type, "key"):
            have = "".join(f', but "{name}"' for name in item if name != "key")
            said = f'entry {number} has a "key" and no "value"{have}; write {{"key": ..., "value": ...}}'
            raise blame.EntryError(number, said)
    if "ARRAY" in one.kind:
        return number, item
    raise blame.EntryError(number, f'entry {number} is not {{"key": ..., "value": ...}}, which a {one.kind} needs')


def _has_field(kind: Any, name: str) -> bool:
    """Whether values of a type are structures with such a field."""
    try:
        return kind is not None and name in kind.decode(bytes(kind.size))
    except TypeError:
        return False


def _per_cpu(number: int, values: Any) -> Any:
    if isinstance(values, list) and all(isinstance(one, Mapping) and "value" in one for one in values):
        return [one["value"] for one in values]
    raise blame.EntryError(number, f'entry {number}: "values" is not a list of {{"cpu": ..., "value": ...}}')


def _key(one: Map, key: Any) -> Any:
    if one.kind == "LPM_TRIE" and isinstance(key, str) and any(mark in key for mark in "./:"):
        return codec.prefix(key, one.key_size)
    return _bytes_of(key, one.key_size, one.key_type)


def _value(one: Map, value: Any) -> Any:
    if not one.percpu:
        return _bytes_of(value, one.value_size, one.value_type)
    if isinstance(value, list) and len(value) == one.possible_cpus and not _hexadecimal(value):
        size = (one.value_size + 7) // 8 * 8
        parts = (_exact(_bytes_of(each, one.value_size, one.value_type), one, "value") for each in value)
        return b"".join(part.ljust(size, b"\0") for part in parts)
    return _bytes_of(value, one.value_size, one.value_type)


def _exact(value: Any, one: Map, what: str) -> bytes:
    return codec.encode(value, one.value_size, one.value_type, f"{what} of {one.spec.name}")


def _inner(one: Map, content: Any) -> Map:
    """A fresh inner map with these contents."""
    assert one.spec.inner is not None
    made = Map.from_spec(one.spec.inner)
    fill(made, content)
    return made


def _hexadecimal(value: Any) -> bool:
    """A list of bytes as bpftool writes them."""
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) and v.startswith("0x") for v in value)


def _bytes_of(value: Any, size: int, kind: Any) -> Any:
    """What the map's own codec takes for a JSON value: bytes, a number, or the value itself where there is a type."""
    if _hexadecimal(value) and len(value) == size:
        try:
            return bytes(int(part, 16) for part in value)
        except ValueError:
            raise UsageError(f"{value!r} is no list of bytes") from None
    if kind is not None:
        return value
    if isinstance(value, str):
        try:
            return int(value, 0)
        except ValueError:
            pass
        try:
            return bytes.fromhex(value)
        except ValueError:
            raise UsageError(f"{value!r} is neither a number nor pairs of hexadecimal digits") from None
    if isinstance(value, list):
        if not all(isinstance(part, int) and 0 <= part < 256 for part in value):
            raise UsageError(f"{value!r} is no list of bytes")
        return bytes(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{value!r} is no key or value of {size} bytes without a type")
    return value
