"""Every kind of map through files: saved and loaded, put into another map by --map, from what `pktbpf map dump` prints.

Then damage: whatever happens to a file of a directory, one line says which file it is.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import errno_table
import numpy as np
import pytest
from click.testing import CliRunner
from test_maps_store import counter_types

from pktbpf.cli import cli
from pktbpf.errors import MapError, UsageError
from pktbpf.maps import events, fill, perf, ringbuf, store
from pktbpf.maps.elements import place
from pktbpf.maps.face import Map
from pktbpf.maps.families import FAMILIES
from pktbpf.program import Program, trust

CPUS = 2
BASE = {**errno_table.BASE, "LPM_TRIE": {**errno_table.BASE["LPM_TRIE"], "max_entries": 6}}
NOTHING = ("STACK_TRACE", "CGROUP_ARRAY")
FILLED = [kind for kind in BASE if kind not in NOTHING]


def make(kind: str, name: str = "") -> Map:
    inner = Map("ARRAY", **errno_table.BASE["ARRAY"]) if kind in errno_table.OUTER else None  # type: ignore[arg-type]
    return Map(kind, name=name, inner=inner, possible_cpus=CPUS, **BASE[kind])  # type: ignore[arg-type]


def _hand_out(m: Map) -> None:
    data, held = place(b"0123456789")
    if m.kind == "RINGBUF":
        for size in (1, 8, 10):
            assert ringbuf.output(m.row, data, np.uint64(size), np.uint64(0)) == 0
    else:
        for cpu in (0, 1, 0):
            zero = np.uint64(0)
            assert perf.output(m.row, np.uint64(cpu), np.uint64(cpu), np.uint64(7), data, np.uint64(10), zero) == 0
    del held


def put(m: Map) -> None:
    """Some contents of any kind."""
    if m.kind in ("RINGBUF", "PERF_EVENT_ARRAY"):
        _hand_out(m)
    elif m.kind == "USER_RINGBUF":
        m.produce(b"first")
        m.produce(b"skipped", discard=True)
    elif m.kind in ("QUEUE", "STACK", "BLOOM_FILTER"):
        for number in (0x10, 0x2000000000000000, 3):
            m.push(number)
    elif m.kind == "PROG_ARRAY":
        m[2] = trust(Program((), name="first"))
    elif m.outer:
        for index in (0, 3):
            inner = Map("ARRAY", **errno_table.BASE["ARRAY"])  # type: ignore[arg-type]
            inner[1] = 10 + index
            m[index] = inner
    elif m.kind == "LPM_TRIE":
        for number, prefix in enumerate(("10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "16.0.0.1")):
            m[prefix] = number + 1
    else:
        for key in (0, 1, 3):
            m[key] = [key * 100 + 1, key] if m.percpu else 0x1000000010000000 + key


def contents(m: Map) -> Any:
    """What a map holds, in order, in a form that can be compared."""
    if m.kind in ("QUEUE", "STACK"):
        return list(events.queued(m))
    if m.kind == "RINGBUF":
        return m.records(consume=False)
    if m.kind == "PERF_EVENT_ARRAY":
        return m.events(consume=False)
    if m.kind == "USER_RINGBUF":
        return m.storage.blocks[0][:3].tolist(), m.storage.blocks[-1][:64].tolist()
    if m.kind == "BLOOM_FILTER":
        return m.storage.blocks[-1].tolist()
    if m.kind == "PROG_ARRAY":
        return {index: getattr(one, "name", "") or one.program.name for index, one in m.targets.items()}
    if m.outer:
        return {key: list(found.items()) for key, found in m.items()}
    return list(m.raw_items())


def test_the_table_has_every_kind() -> None:
    assert set(BASE) == set(FAMILIES)


@pytest.mark.parametrize("kind", FILLED)
def test_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    m = make(kind, "m")
    put(m)
    assert contents(m) != contents(make(kind))
    store.save({"m": m}, tmp_path)
    again = store.load(tmp_path)["m"]
    assert (again.spec, again.possible_cpus, contents(again)) == (m.spec, m.possible_cpus, contents(m))
    store.save({"m": again}, tmp_path / "second")
    for path in tmp_path.glob("*.json"):
        assert (tmp_path / "second" / path.name).read_text() == path.read_text()


@pytest.mark.parametrize("kind", FILLED)
def test_a_saved_file_fills_another_map(kind: str, tmp_path: Path) -> None:
    m, other = make(kind), make(kind)
    put(m)
    store.save({"m": m}, tmp_path)
    if kind == "PROG_ARRAY":
        with pytest.raises(UsageError, match=r"m\.json: .*a PROG_ARRAY cannot take the contents of a PROG_ARRAY"):
            fill.fill_from(other, str(tmp_path / "m.json"))
        return
    assert fill.fill_from(other, str(tmp_path / "m.json")) > 0
    assert contents(other) == contents(m)


@pytest.mark.parametrize("kind", sorted(set(FILLED) - {"PROG_ARRAY", "BLOOM_FILTER", *errno_table.OUTER}))
def test_a_dump_fills_another_map(kind: str, tmp_path: Path) -> None:
    m, other = make(kind), make(kind)
    put(m)
    store.save({"m": m}, tmp_path)
    done = CliRunner().invoke(cli, ["map", "dump", str(tmp_path / "m"), "--format", "json"])
    assert done.exit_code == 0, done.output
    dump = tmp_path / "dump.json"
    dump.write_text(done.stdout)
    if kind in fill.UNFILLED:
        with pytest.raises(UsageError, match=f"dump.json: a {kind} takes no contents from a file"):
            fill.fill_from(other, str(dump))
        return
    if kind == "USER_RINGBUF":
        dump.write_text('["6669727374", ["0x01"], [2, 3]]')
    assert fill.fill_from(other, str(dump)) > 0
    if kind == "USER_RINGBUF":
        m = make(kind)
        for sample in (b"first", b"\1", b"\2\3"):
            m.produce(sample)
    assert sorted(contents(other)) == sorted(contents(m)) if "HASH" in kind else contents(other) == contents(m)


WRITTEN: list[tuple[str, Any, dict[Any, Any]]] = [
    ("HASH", {"6": 1, "0x11": 2}, {6: 1, 17: 2}),
    ("HASH", [{"key": ["0x06", "0x00", "0x00", "0x00"], "value": ["0x01"] + ["0x00"] * 7}], {6: 1}),
    ("HASH", [{"key": 6, "value": "01 00 00 00 00 00 00 00"}], {6: 1}),
    ("HASH", [{"key": [6, 0, 0, 0], "value": -1}], {6: (1 << 64) - 1}),
    ("ARRAY", [5, 0, "0x10"], {0: 5, 1: 0, 2: 16, 3: 0}),
    ("PERCPU_HASH", {"1": 5, "2": [6, 7]}, {1: [5, 5], 2: [6, 7]}),
    ("LPM_TRIE", {"10.0.0.0/8": 1}, {8 | 10 << 32: 1}),
    ("QUEUE", [1, 2, 3], {}), ("STACK", [1, 2, 3], {}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "document", "wanted"), WRITTEN)
def test_contents_that_a_person_wrote(kind: str, document: Any, wanted: dict[Any, Any], tmp_path: Path) -> None:
    path, m = tmp_path / "first.json", make(kind)
    path.write_text(json.dumps(document))
    assert fill.fill_from(m, str(path)) == len(document)
    if wanted:
        assert dict(m.items()) == wanted
    else:
        assert [m.pop() for _ in document] == (document if kind == "QUEUE" else document[::-1])


def test_typed_contents_come_back_from_a_dump(tmp_path: Path) -> None:
    key, value = counter_types()
    typed = {"key_type": key, "value_type": value}
    m, other = Map("HASH", 4, 8, 4, **typed), Map("HASH", 4, 8, 4, **typed)
    m[6] = {"packets": 3, "bytes": 180}
    store.save({"flows": m}, tmp_path)
    done = CliRunner().invoke(cli, ["map", "dump", str(tmp_path / "flows")])
    (tmp_path / "dump").write_text(done.stdout)
    fill.fill_from(other, str(tmp_path / "dump"))
    assert dict(other.items()) == dict(m.items())


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("HASH", "{", "not JSON"),
        ("HASH", "[1]", 'entry 0 is not {"key": ..., "value": ...}'),
        ("HASH", '{"1": "zz"}', "neither a number nor pairs"),
        ("ARRAY", '{"9": 1}', 'entry "9": the array has entries 0 to 3 only'),
        ("QUEUE", '{"1": 2}', "contents of a QUEUE are a list"),
        ("QUEUE", "[1, 2, 3, 4, 5]", "entry 4: the map is full with 4 entries; leave some out"),
        ("USER_RINGBUF", "[7]", "neither pairs of hexadecimal digits nor a list of bytes"),
        ("USER_RINGBUF", '["' + "00" * 5000 + '"]', "E2BIG"),
        ("PERCPU_HASH", '[{"key": 1, "values": [{"cpu": 0}]}]', '"values" is not a list'),
        ("BLOOM_FILTER", '{"format": 1, "map": {"type": "bloom_filter", "value_size": 8, "max_entries": 5, '
         '"map_extra": 0}, "bits": ""}', "of the same size only"),
        ("ARRAY", '{"format": 1, "map": {"type": "queue"}, "entries": []}', "cannot take the contents of a QUEUE"),
        ("ARRAY", '{"format": 1, "map": {"type": "array"}}', "damaged map file: no 'entries'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_in_a_line(kind: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "first.json"
    path.write_text(text)
    with pytest.raises(UsageError) as raised:
        fill.fill_from(make(kind), str(path))
    assert str(raised.value).startswith(f"{path}:")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


# ---- damage


def _swap_numbers(text: str, chance: random.Random) -> str:
    """Some number becomes another, such as a size becomes huge."""
    document = json.loads(text)
    place = document["map"] if chance.random() < 0.7 else document
    name = chance.choice(sorted(place))
    place[name] = chance.choice((0, -1, 7, 1 << 31, 1 << 32, 1 << 70, 1.5, None, "x", [], {}, [[]], "hash", True))
    return json.dumps(document)


def _swap_characters(text: str, chance: random.Random) -> str:
    out = list(text)
    for _ in range(chance.randrange(1, 4)):
        out[chance.randrange(len(out))] = chance.choice('0129afx{}[]",:-\\')
    return "".join(out)


def _cut(text: str, chance: random.Random) -> str:
    return text[: chance.randrange(len(text))]


DAMAGES: tuple[Callable[[str, random.Random], str], ...] = (_swap_numbers, _swap_characters, _cut)
COMMANDS = (["map", "dump"], ["map", "dump", "--format", "json"], ["map", "next"], ["map", "lookup"])


@pytest.mark.parametrize("kind", sorted(BASE))
def test_damage_ends_in_one_line(kind: str, tmp_path: Path) -> None:
    chance = random.Random(kind)
    m = make(kind)
    if kind in FILLED:
        put(m)
    store.save({"m": m}, tmp_path)
    path = tmp_path / "m.json"
    whole = path.read_text()
    said: list[str] = []
    for number in range(120):
        path.write_text(chance.choice(DAMAGES)(whole, chance))
        try:
            store.load(tmp_path)
        except MapError as error:
            said.append(str(error))
        done = CliRunner().invoke(cli, [*chance.choice(COMMANDS), str(tmp_path / "m")])
        about = f"{kind}, {number}: {done.output}\n{path.read_text()[:300]}"
        assert done.exception is None or isinstance(done.exception, SystemExit), about
        assert (done.stderr.count("\n") == 1) == (done.exit_code != 0), about
    assert len(said) > 30
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in said), said


def test_a_replay_names_the_damaged_file(tmp_path: Path) -> None:
    arguments = ["replay", "pcaps/arp.pcap", "-F", "filters/ebpf/proto_counts.o", "-q", "--maps", str(tmp_path)]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    path = tmp_path / "counts.json"
    path.write_text(path.read_text().replace('"entries"', '"entri"', 1).replace("array", "arrray"))
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"pktbpf: {path}: ")
    assert done.stderr.count("\n") == 1


def test_a_file_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    import base64

    m = make("RINGBUF")
    store.save({"m": m}, tmp_path)
    path = tmp_path / "m.json"
    document = json.loads(path.read_text())
    bomb = base64.b64encode(zlib.compress(bytes(64 << 20))).decode()
    for part in ({"data": bomb}, {"btf": {"raw": bomb, "key_type_id": 1}}):
        path.write_text(json.dumps({**document, **part}))
        done = CliRunner().invoke(cli, ["map", "dump", str(tmp_path / "m")])
        assert done.exit_code == 1, done.output
        assert done.stderr.startswith(f"pktbpf: {path}: ")
