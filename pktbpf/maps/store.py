"""Maps in a directory: one JSON file per map, written and read back exactly (`--maps DIR`, what bpffs is to a kernel).

A file has the attributes, the BTF types where there are any, and the entries as hex in the order of a walk. Inner maps
get files of their own; programs of a PROG_ARRAY are kept by name and must be given again. An LRU table goes on evicting
where it stopped.
"""

from __future__ import annotations

import base64
import ctypes
import errno
import functools
import json
import os
import urllib.parse
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pktbpf.errors import MapError, ObjectError
from pktbpf.maps import events, layout, lru_state
from pktbpf.maps.face import Map
from pktbpf.maps.families import FAMILIES
from pktbpf.program import MapSpec

FORMAT = 1


@dataclass(frozen=True)
class MissingProgram:
    """What stands in a PROG_ARRAY for a program that was not given when the array was read."""

    name: str


MAX_TYPES = 64 << 20  # bytes of BTF that a file may unpack to
_DAMAGE = (
    KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, MemoryError, RecursionError,
    zlib.error, ObjectError,
)  # fmt: skip
_LRU = frozenset({"LRU_HASH", "LRU_PERCPU_HASH"})
MakeType = Callable[[bytes, int], Any]
T = TypeVar("T")


def path_of(directory: str | os.PathLike[str], name: str) -> Path:
    """The file of a map's name; characters that a file name cannot have are escaped."""
    escaped = urllib.parse.quote(name, safe=" @+,=")
    if escaped.startswith("."):  # no hidden files
        escaped = "%2E" + escaped[1:]
    return Path(directory) / f"{escaped}.json"


def save(maps: Mapping[str, Map], directory: str | os.PathLike[str]) -> None:
    """Write all maps, and the inner maps that have no name of their own as OUTER.KEY. Other files stay."""
    place = Path(directory)
    place.mkdir(parents=True, exist_ok=True)
    names: dict[int, str] = {id(m): name for name, m in maps.items()}
    todo = list(maps.items())
    for name, m in todo:
        if m.outer:
            for key, inner in _references(m):
                if id(inner) not in names:
                    names[id(inner)] = f"{name}.{key.hex()}"
                    todo.append((names[id(inner)], inner))
    for name, m in todo:
        save_one(m, path_of(place, name), names)


def save_one(m: Map, path: Path, names: Mapping[int, str] | None = None) -> None:
    """Write one map; the file is complete or as it was before. names: of inner maps, by id()."""
    text = json.dumps(describe(m, names or {}), indent=1)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_text(text + "\n")
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def load(
    directory: str | os.PathLike[str], *, make_type: MakeType | None = None, programs: Mapping[str, Any] | None = None
) -> dict[str, Map]:
    """All maps of a directory by name. make_type: (raw BTF, type id) -> codec, without which maps have no types.
    programs: what PROG_ARRAYs refer to, by name; programs that are not given are known by name only.

    Raises MapError for a file that is no map.
    """
    files = {urllib.parse.unquote(path.stem): path for path in sorted(Path(directory).glob("[!.]*.json"))}
    documents = {name: _read(path) for name, path in files.items()}
    made: dict[str, Map] = {}
    for outer in (False, True):
        for name, document in documents.items():
            if bool(document["map"].get("inner")) == outer:
                make = functools.partial(restore, document, made, make_type, programs or {})
                made[name] = _guard(str(files[name]), make)
    return {name: made[name] for name in documents}


def load_one(path: str | os.PathLike[str], *, make_type: MakeType | None = None) -> Map:
    """One map from its file; a map of maps takes its inner ones from the same directory."""
    file = Path(path)
    document = _read(file)
    if document["map"].get("inner"):
        return load(file.parent, make_type=make_type)[urllib.parse.unquote(file.stem)]
    return _guard(str(file), lambda: restore(document, {}, make_type, {}))


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise MapError(errno.EINVAL, f"{path}: not JSON: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("map"), dict):
        raise MapError(errno.EINVAL, f"{path}: not a map that pktbpf saved")
    if document.get("format") != FORMAT:
        raise MapError(errno.EINVAL, f"{path}: format {document.get('format')!r} is not {FORMAT}")
    return document


def _guard(where: str, make: Callable[[], T]) -> T:
    """What `make` gives; MapError, which begins with the place, for what a damaged document makes it stumble over."""
    place = f"{where}: " if where else ""
    try:
        return make()
    except MapError as error:
        raise MapError(error.errno or errno.EINVAL, f"{place}{error.reason}") from None
    except _DAMAGE as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise MapError(errno.EINVAL, f"{place}damaged map file: {what}") from None


# ---- one map <-> one document


def describe(m: Map, names: Mapping[int, str]) -> dict[str, Any]:
    """The JSON document of a map."""
    document: dict[str, Any] = {"format": FORMAT, "map": _attributes(m)}
    types = _types(m)
    if types:
        document["btf"] = types
    document.update(_contents(m, names))
    return document


def _attributes(m: Map) -> dict[str, Any]:
    spec = m.spec
    found: dict[str, Any] = {
        "type": spec.kind.lower(), "key_size": spec.key_size, "value_size": spec.value_size,
        "max_entries": spec.max_entries, "flags": spec.flags, "name": spec.name, "map_extra": spec.extra,
        "possible_cpus": m.possible_cpus, "frozen": m.frozen,
    }  # fmt: skip
    if spec.inner is not None:
        inner = spec.inner
        found["inner"] = {
            "type": inner.kind.lower(), "key_size": inner.key_size, "value_size": inner.value_size,
            "max_entries": inner.max_entries, "flags": inner.flags,
        }  # fmt: skip
    lock = int(m.row[layout.SPIN_LOCK])
    if lock:
        found["spin_lock"] = lock - 1
    special = [list(pair) for pair in m.special if not (lock and tuple(pair) == (lock - 1, 4))]
    if special:
        found["special"] = special
    return found


def _types(m: Map) -> dict[str, Any]:
    """Raw BTF and type ids of typed maps."""
    known = {name: kind for name, kind in (("key", m.key_type), ("value", m.value_type)) if hasattr(kind, "btf")}
    if not known:
        return {}
    raw = next(iter(known.values())).btf.raw
    ids = {f"{name}_type_id": kind.id for name, kind in known.items()}
    return {"raw": base64.b64encode(zlib.compress(raw)).decode(), **ids}


def _references(m: Map) -> Iterator[tuple[bytes, Any]]:
    for key, target in m.targets.items():
        yield key if isinstance(key, bytes) else int(key).to_bytes(4, "little"), target


def _contents(m: Map, names: Mapping[int, str]) -> dict[str, Any]:
    kind = m.kind
    if kind == "PROG_ARRAY":
        programs = {key.hex(): _program_name(target) for key, target in _references(m)}
        return {"entries": [{"key": key, "program": name} for key, name in programs.items()]}
    if m.outer:
        order = [key for key, _ in m.raw_items()]
        found = dict(_references(m))
        return {"entries": [{"key": key.hex(), "map": names[id(found[key])]} for key in order]}
    if kind in ("QUEUE", "STACK"):
        return {"entries": [{"value": value.hex()} for value in events.queued(m)]}
    if kind == "BLOOM_FILTER":
        bits = m.storage.blocks[-1].tobytes()
        return {"bits": base64.b64encode(zlib.compress(bits)).decode()}
    if kind in ("RINGBUF", "USER_RINGBUF", "PERF_EVENT_ARRAY"):
        return {"state": [int(n) for n in m.storage.blocks[0][:3]], "data": _buffer(m)}
    found_entries = [{"key": key.hex(), "value": value.hex()} for key, value in _present(m)]
    return {"entries": found_entries, **({"lru": lru_state.snapshot(m)} if kind in _LRU else {})}


def _present(m: Map) -> Iterator[tuple[bytes, bytes]]:
    """Entries; of arrays only those that are not all zero."""
    if m.kind not in ("ARRAY", "PERCPU_ARRAY"):
        yield from m.raw_items()
        return
    size = int(m.row[layout.CPUS]) * int(m.row[layout.STRIDE])
    values = m.storage.blocks[-1].reshape(-1, size)
    for index in np.flatnonzero(values.any(axis=1)):
        key = int(index).to_bytes(4, "little")
        value = values[index].tobytes()
        yield key, value if m.percpu else value[: m.value_size]


def _program_name(target: Any) -> str:
    program = getattr(target, "program", target)
    return str(getattr(program, "name", ""))


def _memory(m: Map) -> tuple[int, int]:
    """(address, bytes in use) of a ring's or an event array's buffer."""
    if m.kind == "PERF_EVENT_ARRAY":
        return int(m.row[layout.AUX_AT]), int(m.storage.blocks[0][0])
    return int(m.row[layout.VALUES_AT]), int(m.row[layout.VALUES_SIZE])


def _buffer(m: Map) -> str:
    address, size = _memory(m)
    return base64.b64encode(zlib.compress(ctypes.string_at(address, size) if size else b"")).decode()


def restore(
    document: dict[str, Any], others: Mapping[str, Map], make_type: MakeType | None, programs: Mapping[str, Any]
) -> Map:
    """The map of a document. others: maps by name, for a map of maps."""
    m = _make(document, make_type)
    entries = document.get("entries", [])
    pairs = [(bytes.fromhex(e["key"]), bytes.fromhex(e["value"])) for e in entries if "key" in e and "value" in e]
    if m.kind == "PROG_ARRAY":
        for entry in entries:
            key, name = bytes.fromhex(entry["key"]), str(entry["program"])
            if name in programs:
                _put(m, key, programs[name])
            else:
                m.targets[int.from_bytes(key, "little")] = MissingProgram(name)
    elif m.outer:
        for entry in reversed(entries):
            _put(m, bytes.fromhex(entry["key"]), others[entry["map"]])
    elif m.kind in ("QUEUE", "STACK"):
        values = [bytes.fromhex(entry["value"]) for entry in entries]
        for value in reversed(values) if m.kind == "STACK" else values:
            _put(m, b"", value)
    elif m.kind in _LRU:
        _restore_lru(m, pairs, document["lru"])
    elif "bits" in document or "data" in document:
        _restore_memory(m, document)
    else:
        for key, value in reversed(pairs):
            _put(m, key, value)
    m.frozen = bool(document["map"].get("frozen"))
    return m


def _put(m: Map, key: bytes, value: Any) -> None:
    """Set an entry, whether or not the system call may."""
    if isinstance(value, bytes) and len(value) != m.syscall_value_size:
        raise ValueError(f"value of {len(value)} bytes")
    if len(key) != m.key_size:
        raise ValueError(f"key of {len(key)} bytes")
    code = FAMILIES[m.kind].update(m, key, value, 0)
    if code:
        raise ValueError(f"entry {key.hex()}: {os.strerror(-code)}")


def _make(document: dict[str, Any], make_type: MakeType | None) -> Map:
    found = document["map"]
    inner = found.get("inner")
    template = None
    if inner:
        template = MapSpec(
            inner["type"].upper(), inner["key_size"], inner["value_size"], inner["max_entries"], inner["flags"]
        )
    types: dict[str, Any] = {}
    btf = document.get("btf")
    if btf and make_type is not None:
        raw = zlib.decompressobj().decompress(base64.b64decode(btf["raw"]), MAX_TYPES)
        types = {name: make_type(raw, btf[f"{name}_id"]) for name in ("key_type", "value_type") if f"{name}_id" in btf}
    return Map(
        found["type"], found["key_size"], found["value_size"], found["max_entries"], found["flags"], found["name"],
        inner=template, extra=found.get("map_extra", 0), possible_cpus=found.get("possible_cpus", 1),
        special=tuple((int(a), int(b)) for a, b in found.get("special", [])), spin_lock=found.get("spin_lock"), **types,
    )  # fmt: skip


def _restore_lru(m: Map, pairs: list[tuple[bytes, bytes]], state: dict[str, Any]) -> None:
    for key, value in pairs:
        if len(key) != m.key_size or len(value) != m.syscall_value_size:
            raise ValueError(f"entry {key.hex()} has the wrong size")
    if len({key for key, _ in pairs}) != len(pairs) or len(pairs) > m.max_entries:
        raise ValueError("entries are there twice, or too many")
    owners = {
        bytes.fromhex(key): owner
        for part in state["lists"] for key, owner in zip(part["keys"], part["owners"], strict=True)
    }  # fmt: skip
    if sorted(owners) != sorted(key for key, _ in pairs):
        raise ValueError("the lists do not name the entries")
    lru_state.insert(m, pairs, owners)
    lru_state.restore(m, state)


def _restore_memory(m: Map, document: dict[str, Any]) -> None:
    if "bits" in document:
        address, packed, room = int(m.row[layout.AUX_AT]), document["bits"], (int(m.row[layout.MASK]) + 1) // 8
    else:
        address, packed = _memory(m)[0], document["data"]
        room = int(m.row[layout.MASK] if m.kind == "PERF_EVENT_ARRAY" else m.row[layout.VALUES_SIZE])
        _set_positions(m, document["state"], room)
    raw = zlib.decompressobj().decompress(base64.b64decode(packed), room + 1)
    if len(raw) > room:
        raise ValueError(f"more than {room} bytes")
    ctypes.memmove(address, raw, len(raw))


def _set_positions(m: Map, state: list[int], room: int) -> None:
    """Positions of a ring (consumer <= pending <= producer <= consumer + size) or of an event array (used, lost)."""
    first, second, third = state
    ring = m.kind != "PERF_EVENT_ARRAY"
    if ring and not (0 <= first <= second <= first + m.max_entries and 0 <= third <= second and not second % 8):
        raise ValueError(f"positions {state}")
    if not ring and not 0 <= first <= room:
        raise ValueError(f"{first} bytes of events")
    m.storage.blocks[0][:3] = state


# ---- contents of a saved map put into another


def is_saved(content: Any) -> bool:
    """Whether parsed JSON is the document of a map."""
    return isinstance(content, Mapping) and isinstance(content.get("map"), Mapping) and "format" in content


def refill(m: Map, document: Mapping[str, Any], directory: str | os.PathLike[str]) -> int:
    """Put the contents of a saved map into one that is there; how many entries. directory: where its inner maps lie.

    Raises MapError.
    """
    return _guard("", lambda: _refill(m, dict(document), directory))


def _refill(m: Map, document: dict[str, Any], directory: str | os.PathLike[str]) -> int:
    kind = str(document["map"]["type"]).upper()
    if kind == "PROG_ARRAY" or (kind in ("QUEUE", "STACK")) != (m.kind in ("QUEUE", "STACK")):
        raise MapError(errno.EINVAL, f"a {m.kind} cannot take the contents of a {kind}")
    if "bits" in document or "data" in document:
        wanted = (m.kind, m.value_size, m.max_entries, m.spec.extra)
        given = tuple(document["map"][name] for name in ("value_size", "max_entries", "map_extra"))
        if wanted != (kind, *given):
            raise MapError(errno.EINVAL, f"a {m.kind} takes the contents of one of the same size only")
        _restore_memory(m, document)
        return 1
    entries = document["entries"]
    if kind != "QUEUE":  # a table is walked from what came last, a stack is popped from there
        entries = entries[::-1]
    others = load(directory) if m.outer else {}
    for entry in entries:
        key = bytes.fromhex(entry["key"]) if "key" in entry else None
        m.update(key, others[entry["map"]] if m.outer else bytes.fromhex(entry["value"]))
    return len(entries)
