"""What is said of a JSON file of contents that cannot be taken: one line with file, line, entry and advice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pktbpf.errors import UsageError
from pktbpf.maps import blame, fill
from pktbpf.maps.face import Map

SAID = [
    ("ARRAY", "", ": not JSON: the file is empty; write {} for no contents"),
    ("ARRAY", '{"1": 1,\n "2": }', ":2:7: not JSON: expecting value; a value is missing"),
    ("ARRAY", '{"1": 1,\n\n}', ":3:1: not JSON: expecting property name enclosed in double quotes; take out"),
    ("ARRAY", "{'1': 1}", ':1:2: not JSON: expecting property name enclosed in double quotes; put text into'),
    ("ARRAY", '{"1": 0x10}', ":1:8: not JSON: expecting ',' delimiter; write hexadecimal numbers as text"),
    ("ARRAY", '{"1": 1\n "2": 2}', ":2:2: not JSON: expecting ',' delimiter; put a comma before it"),
    ("ARRAY", '{"1": 1', ":1:8: not JSON: expecting ',' delimiter; the end of the file is missing"),
    ("ARRAY", '{"1": 1} // all', ":1:10: not JSON: extra data; JSON has no comments; take them out"),
    ("ARRAY", "7", ": contents of a map are an object or a list, not a number; for this ARRAY write"),
    ("ARRAY", '{"1": 1,\n"9": 1}', ':2: entry "9": the array has entries 0 to 3 only; leave it out'),
    ("ARRAY", "[1, 2,\n3, 4,\n5]", ":3: entry 4: the array has entries 0 to 3 only; leave it out"),
    ("ARRAY", '{"1": null}', ':1: entry "1": the value: null is no value; write a number, "0x..." text, or a list of'),
    ("ARRAY", '[{"key": 1, "valeu": 2}]', ':1: entry 0 has a "key" and no "value", but "valeu"; write {"key"'),
    ("HASH", '{\n"zz": 1}', ':2: entry "zz": the key: \'zz\' is neither a number nor pairs of hexadecimal digits'),
    ("HASH", '{"300000000000": 1}', ':1: entry "300000000000": the key: a key: 300000000000 does not fit in 4 bytes;'),
    ("HASH", json.dumps({str(n): n for n in range(5)}, indent=1),
     ':6: entry "4": the map is full with 4 entries; leave some out, or raise max_entries of'),
    ("LPM_TRIE", '{"10.0.0.0/40": 1}', ':1: entry "10.0.0.0/40": the key: \'10.0.0.0/40\' is no address prefix; '
     'write a prefix such as "10.0.0.0/8", of at most 32 bits'),
    ("QUEUE", '[1, 2,\n"zz"]', ":2: entry 2: the value: 'zz' is neither a number nor pairs of hexadecimal digits"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text", "said"), SAID)
def test_the_line_says_where_what_and_what_to_do(kind: str, text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "first.json"
    path.write_text(text)
    flags = 1 if kind == "LPM_TRIE" else 0
    one = Map(kind, {"QUEUE": 0, "LPM_TRIE": 8}.get(kind, 4), 8, 4, flags=flags)
    with pytest.raises(UsageError) as raised:
        fill.fill_from(one, str(path))
    assert str(raised.value).startswith(f"{path}{said}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("content", [{"a": [1, {"b": 2}], "c,:": "x", "d": 0}, [1, [2, 3], {"4": 5}]])
def test_lines_of_entries(content: dict[str, object] | list[object], indent: int | None) -> None:
    text = json.dumps(content, indent=indent)
    for number, item in enumerate(content):
        line = text.splitlines()[blame.line_of(text, number) - 1].strip()
        assert indent is None or line.startswith(json.dumps(item)[:1])
    assert indent is not None or blame.line_of(text, 2) == 1
