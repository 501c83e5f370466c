"""The words of `pktbpf map`: `key DATA`, `value DATA` and the rest as bpftool has them, and how entries are printed."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pktbpf.errors import MapError, UsageError

if TYPE_CHECKING:
    from pktbpf.maps.face import Map

SECTIONS = ("key", "value")
UPDATE_FLAGS = {"any": 0, "noexist": 1, "exist": 2}


def sections(words: Sequence[str], names: Sequence[str]) -> dict[str, list[str]]:
    """Words by the section they stand in; UsageError for words before the first section or a section that is there
    twice."""
    out: dict[str, list[str]] = {}
    current: list[str] | None = None
    for word in words:
        if word in names:
            if word in out:
                raise UsageError(f"'{word}' is there twice")
            current = out[word] = []
        elif current is None:
            raise UsageError(f"expected {' or '.join(repr(name) for name in names)}, not {word!r}")
        else:
            current.append(word)
    return out


def number(words: Sequence[str], what: str) -> int:
    """The one number of a section."""
    try:
        (word,) = words
        return int(word, 0)
    except ValueError:
        raise UsageError(f"{what} takes a number, not {' '.join(words) or 'nothing'}") from None


def data(words: Sequence[str], size: int, kind: Any, what: str, *, trie: bool = False) -> bytes:
    """A key or value: `hex 06 00 00 00`, bytes as numbers, one number, JSON of the map's type, or an address prefix.

    kind: the map's BTF codec or None. trie: whether this is the key of an LPM_TRIE, the only one that may be a prefix.
    """
    if not words or not words[0]:
        raise UsageError(f"{what} needs data: hex bytes, a number, or JSON of the map's type")
    if words[0] == "hex":
        return _bytes(words[1:], 16, size, what)
    if len(words) > 1 or size == 1:
        return _bytes(words, 0, size, what)
    (word,) = words
    if trie and word[0] not in "{[" and any(mark in word for mark in "/.:"):
        return _prefix(word, size, what)
    if kind is not None:
        encoded: bytes = kind.encode(_typed(word))
        return encoded
    try:
        value = int(word, 0)
        return value.to_bytes(size, "little", signed=value < 0)
    except ValueError:
        raise UsageError(f"{what} takes bytes or a number, not {word!r}; the map has no type for JSON") from None
    except OverflowError:
        raise UsageError(f"{what}: {word} does not fit in {size} bytes") from None


def _prefix(word: str, size: int, what: str) -> bytes:
    """The key of an address prefix."""
    from pktbpf.maps import codec

    try:
        return codec.prefix(word, size)
    except MapError as error:
        raise UsageError(f"{what}: {error.reason}") from None


def _typed(word: str) -> Any:
    try:
        return json.loads(word)
    except ValueError:
        return word  # a number in another base, the name of an enumerator, text of a char array


def _bytes(words: Sequence[str], base: int, size: int, what: str) -> bytes:
    if base == 16 and len(words) == 1 and len(words[0]) == 2 * size:
        words = [words[0][at : at + 2] for at in range(0, 2 * size, 2)]
    for word in words:
        if base == 16 and word.strip(string.hexdigits + "xX"):
            raise UsageError(f"{what}: {word!r} after 'hex' is no hexadecimal byte such as 1f")
    if len(words) != size:
        raise UsageError(f"{what} takes {size} bytes, not {len(words)}")
    try:
        return bytes(int(word, base) for word in words)
    except ValueError:
        raise UsageError(f"{what}: {' '.join(words)} are no bytes") from None


# ---- printing


def hexdump(raw: bytes) -> str:
    """Bytes as bpftool prints them: 16 to a line, a wider gap in the middle."""
    lines = (raw[at : at + 16] for at in range(0, len(raw), 16))
    return "\n".join("  ".join(half.hex(" ") for half in (line[:8], line[8:]) if half) for line in lines)


def text_entry(m: Map, key: bytes, value: bytes | None) -> str:
    """One entry in bpftool's plain form."""
    if value is None:
        return f"key:\n{hexdump(key)}\n\nNot found"
    if m.percpu:
        parts = (f"value (CPU {cpu:02d}): {hexdump(part)}" for cpu, part in enumerate(per_cpu(m, value)))
        return "\n".join((f"key:\n{hexdump(key)}", *parts))
    gap = "\n" if m.key_size > 16 or m.value_size > 16 else " "
    head = f"key:{gap}{hexdump(key)}{'  ' if gap == ' ' else gap}" if m.key_size else ""
    return f"{head}value:{gap}{hexdump(value)}"


def per_cpu(m: Map, value: bytes) -> list[bytes]:
    """value_size bytes of every processor."""
    step = len(value) // m.possible_cpus
    return [value[at : at + m.value_size] for at in range(0, len(value), step)]


def json_entry(m: Map, key: bytes | None, value: bytes) -> dict[str, Any]:
    """One entry in bpftool's JSON form; `formatted` where the map has types."""
    entry: dict[str, Any] = {} if key is None else {"key": _octets(key)}
    if m.percpu:
        entry["values"] = [{"cpu": cpu, "value": _octets(part)} for cpu, part in enumerate(per_cpu(m, value))]
    else:
        entry["value"] = _octets(value)
    if key is not None and (m.key_type is not None or m.value_type is not None):
        entry["formatted"] = typed_entry(m, key, value)
    return entry


def typed_entry(m: Map, key: bytes, value: bytes) -> dict[str, Any]:
    """An entry by the map's types."""
    formatted: dict[str, Any] = {"key": plain(m.python_key(key))}
    found = plain(m.python_value(value, key))
    if m.percpu:
        formatted["values"] = [{"cpu": cpu, "value": part} for cpu, part in enumerate(found)]
    else:
        formatted["value"] = found
    return formatted


def plain(data: Any) -> Any:
    """A Python value as JSON has it: bytes as hex text."""
    return data.hex(" ") if isinstance(data, bytes) else data


def _octets(raw: bytes) -> list[str]:
    return [f"0x{byte:02x}" for byte in raw]
