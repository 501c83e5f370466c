"""One line for what is wrong with a JSON file of map contents: the file, the line, the entry, and what to do.

The parser of the standard library does not say where a value stood, so the lines of entries are looked for once more,
only after something failed.
"""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING, Any

from pktbpf.errors import MapError, PktbpfError, UsageError

if TYPE_CHECKING:
    from pktbpf.maps.face import Map

_SHAPES = 'write {"KEY": VALUE, ...} or [{"key": ..., "value": ...}, ...]'
_SPACE = " \t\r\n"


class EntryError(UsageError):
    """One entry cannot be taken. number: its place among the outermost ones, from 0."""

    def __init__(self, number: int, text: str):
        super().__init__(text)
        self.number = number


def not_json(path: str, text: bytes, error: Exception) -> UsageError:
    """The error for a file that is no JSON."""
    if not text.strip():
        return UsageError(f"{path}: not JSON: the file is empty; write {{}} for no contents")
    if isinstance(error, RecursionError):
        return UsageError(f"{path}: not JSON that can be read: too many brackets in one another")
    if not isinstance(error, json.JSONDecodeError):
        return UsageError(f"{path}: not JSON: the file is no text in UTF-8; --map takes a JSON file")
    reason = error.msg[0].lower() + error.msg[1:]
    advice = _advice(error.doc, error.pos)
    return UsageError(f"{path}:{error.lineno}:{error.colno}: not JSON: {reason}" + (f"; {advice}" if advice else ""))


def _advice(text: str, at: int) -> str:
    """What to do about text that stops being JSON at a position."""
    found, before = text[at : at + 1], text[:at].rstrip(_SPACE)
    if not found:
        return "the end of the file is missing"
    if found == "'":
        return 'put text into double quotes, "..."'
    if found in "]}" and before.endswith((",", ":")):
        return "take out the comma before it" if before.endswith(",") else "a value is missing"
    if found in "/#":
        return "JSON has no comments; take them out"
    if before.endswith("0") and found in "xX":
        return 'write hexadecimal numbers as text, "0x1f"'
    if found in '"[{' or found.isalnum() or found == "-":
        return "put a comma before it" if before and before[-1] not in ",:[{" else 'put text into double quotes, "..."'
    if found == "," or found == ":":
        return "a value is missing before it"
    return ""


def shape(content: Any, one: Map) -> UsageError:
    """The error for a value that cannot be the contents of any map."""
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "text", type(None): "null"}
    what = next((word for kind, word in kinds.items() if isinstance(content, kind)), "that")
    return UsageError(f"contents of a map are an object or a list, not {what}; for this {one.kind} {_SHAPES}")


def entry(number: int, label: object, part: str, error: PktbpfError, one: Map) -> EntryError:
    """The error for an entry. part: `the key`, `the value`, or empty for the update itself."""
    shown = json.dumps(label, ensure_ascii=False, default=str)
    shown = shown if len(shown) <= 40 else shown[:37] + "..."
    if isinstance(error, EntryError):
        return EntryError(number, f"entry {shown}: in the map inside: {error}")
    reason = error.reason if isinstance(error, MapError) else str(error)
    if part:
        reason = reason.partition(" prefix: ")[0] + " prefix" if " prefix: " in reason else reason
        advice = _conversion(reason, part, one)
        return EntryError(number, f"entry {shown}: {part}: {reason}" + (f"; {advice}" if advice else ""))
    number_of = error.errno if isinstance(error, MapError) else 0
    return EntryError(number, f"entry {shown}: {_update(number_of or 0, one) or error}")


def _conversion(reason: str, part: str, one: Map) -> str:
    """How to write a key or value that was not understood."""
    size = one.key_size if part == "the key" else one.value_size
    if one.kind == "LPM_TRIE" and part == "the key":
        longest = 8 * (one.key_size - 4)
        example = "10.0.0.0/8" if longest == 32 else "2001:db8::/32"
        return f'write a prefix such as "{example}"' + (f", of at most {longest} bits" if "prefix" in reason else "")
    if "mapping of its fields" in reason:
        return 'write an object, {"FIELD": VALUE, ...}'
    if "takes a number" in reason or "whole number" in reason:
        return 'write a whole number such as 6, or text such as "0x06"'
    if "not in" in reason or "does not fit" in reason:
        return f"there are {size} bytes for it"
    if "takes JSON" in reason:
        return f'use [{{"key": ..., "value": ...}}] with {part} as JSON'
    return f'write a number, "0x..." text, or a list of {size} bytes'


def _update(number: int, one: Map) -> str:
    """What the map itself had against an entry."""
    if number == errno.E2BIG and "ARRAY" in one.kind:
        return f"the array has entries 0 to {one.max_entries - 1} only; leave it out, or raise max_entries of the map"
    if number in (errno.E2BIG, errno.ENOSPC) and one.kind != "USER_RINGBUF":
        return f"the map is full with {one.max_entries} entries; leave some out, or raise max_entries of the map"
    return ""


def line_of(text: str, number: int) -> int:
    """The line of the outermost entry of that number, 1 for the first line; of the start where there is none."""
    decoder = json.JSONDecoder()
    at = _skip(text, 0, _SPACE)
    inside = text[at : at + 1] == "{"
    at = _skip(text, at + 1, _SPACE)
    try:
        for _ in range(number):
            if inside:
                at = _skip(text, decoder.raw_decode(text, at)[1], _SPACE + ":")
            at = _skip(text, decoder.raw_decode(text, at)[1], _SPACE + ",")
    except ValueError:
        return 1
    return text.count("\n", 0, at) + 1


def _skip(text: str, at: int, letters: str) -> int:
    while text[at : at + 1] and text[at] in letters:
        at += 1
    return at
