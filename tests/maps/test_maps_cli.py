"""`pktbpf map`: bpftool's words and forms over maps in a directory, and the kernel's errors with exit code 1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from test_maps_store import counter_types

from pktbpf.cli import cli
from pktbpf.maps import store
from pktbpf.maps.face import Map


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def run(home: Path, text: str, *more: str) -> Result:
    """`pktbpf map WORD PATH ...`, PATH below the test's directory; `more` are words with blanks in them."""
    command, name, *rest = (*text.split(), *more)
    return CliRunner().invoke(cli, ["map", command, f"{home}/{name}", *rest])


def done(home: Path, text: str, *more: str) -> str:
    result = run(home, text, *more)
    assert result.exit_code == 0, result.output
    return result.output


def failed(home: Path, code: int, text: str, *more: str) -> str:
    result = run(home, text, *more)
    assert result.exit_code == code, result.output
    lines = result.output.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("pktbpf: ")
    return lines[0]


def test_a_hash_from_creation_to_deletion(home: Path) -> None:
    done(home, "create flows type hash key 4 value 8 entries 2")
    done(home, "update flows key 6 value 1")
    done(home, "update flows key hex 11 00 00 00 value 2 0 0 0 0 0 0 0 noexist")
    assert done(home, "lookup flows", "key", "0x11") == "key: 11 00 00 00  value: 02 00 00 00 00 00 00 00\n"
    dump = done(home, "dump flows")
    assert sorted(dump.splitlines()) == [
        "Found 2 elements",
        "key: 06 00 00 00  value: 01 00 00 00 00 00 00 00",
        "key: 11 00 00 00  value: 02 00 00 00 00 00 00 00",
    ]
    first = json.loads(done(home, "next flows", "--format", "json"))
    assert first["key"] is None
    second = json.loads(done(home, "next flows", "key", *first["next_key"], "--format", "json"))
    assert {first["next_key"][0], second["next_key"][0]} == {"0x06", "0x11"}
    done(home, "delete flows", "key", "6")
    entries = json.loads(done(home, "dump flows", "--format", "json"))
    assert entries == [{"key": ["0x11", "0x00", "0x00", "0x00"], "value": ["0x02", *["0x00"] * 7]}]


def test_errors_are_the_kernels(home: Path) -> None:
    done(home, "create flows type hash key 4 value 8 entries 1")
    assert "No such file or directory (ENOENT)" in failed(home, 1, "lookup flows", "key", "6")
    assert "No such file or directory (ENOENT)" in failed(home, 1, "delete flows", "key", "6")
    assert "No such file or directory (ENOENT)" in failed(home, 1, "next flows")
    done(home, "update flows key 6 value 1")
    assert "File exists (EEXIST)" in failed(home, 1, "update flows key 6 value 1 noexist")
    assert "Argument list too long (E2BIG)" in failed(home, 1, "update flows key 7 value 1")
    assert "File exists" in failed(home, 1, "create flows type hash key 4 value 8 entries 1")
    assert "key_size at least 1" in failed(home, 1, "create x type hash value 8 entries 1")
    assert "No such file or directory" in failed(home, 1, "dump absent")
    assert not (home / "x.json").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("lookup flows", "a key is needed"),
        ("lookup flows key 1 2 3", "key takes 4 bytes, not 3"),
        ("lookup flows key 1 2 3 300", "no bytes"),
        ("lookup flows key 99999999999", "does not fit in 4 bytes"),
        ("lookup flows key six", "takes bytes or a number"),
        ("lookup flows 6", "expected 'key'"),
        ("update flows key 6", "a value is needed"),
        ("update flows key 6 key 7 value 1", "there twice"),
        ("lookup flows key hex zz", "key: 'zz' after 'hex' is no hexadecimal byte"),
        ("lookup flows key hex 1 2 zz 4", "key: 'zz' after 'hex' is no hexadecimal byte"),
        ("create other key 4", "a type is needed"),
        ("create other type hsh key 4 value 8 entries 1", "no map type 'hsh'; did you mean hash?"),
        ("create other type qqqq key 4 value 8 entries 1", "no map type 'qqqq'; there are hash, array, "),
        ("create other type hash key 4 value 8", "the number of entries is needed: entries N"),
        ("create other type hash key four", "key takes a number"),
    ],
)
def test_wrong_words(home: Path, words: str, reason: str) -> None:
    done(home, "create flows type hash key 4 value 8 entries 1")
    assert reason in failed(home, 2, words)


def test_kinds_that_print_differently(home: Path) -> None:
    done(home, "create cpus type percpu_array key 4 value 4 entries 1 cpus 2")
    done(home, "update cpus key 0 value 7")
    assert done(home, "dump cpus") == (
        "key:\n00 00 00 00\nvalue (CPU 00): 07 00 00 00\nvalue (CPU 01): 07 00 00 00\nFound 1 element\n"
    )
    (entry,) = json.loads(done(home, "dump cpus", "--format", "json"))
    assert [value["cpu"] for value in entry["values"]] == [0, 1]
    done(home, "create jobs type queue value 4 entries 2")
    done(home, "update jobs value 5")
    assert done(home, "lookup jobs") == "value: 05 00 00 00\n"
    assert done(home, "dump jobs") == "value: 05 00 00 00\nFound 1 element\n"
    done(home, "create wide type array key 4 value 24 entries 1")
    assert done(home, "dump wide") == (
        "key:\n00 00 00 00\nvalue:\n00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00\n"
        "00 00 00 00 00 00 00 00\nFound 1 element\n"
    )
    done(home, "create allowed type lpm_trie key 8 value 4 entries 4 flags 1")
    done(home, "update allowed key 10.0.0.0/8 value 1")
    assert done(home, "lookup allowed", "key", "10.1.2.3") == "key: 20 00 00 00 0a 01 02 03  value: 01 00 00 00\n"


def test_maps_of_maps_name_their_maps(home: Path) -> None:
    done(home, "create inner type array key 4 value 8 entries 1")
    done(home, "create outer type hash_of_maps key 4 value 4 entries 2 inner_map inner")
    done(home, "update outer key 6 value inner")
    assert "no map 'nobody'" in failed(home, 1, "update outer key 6 value nobody")
    done(home, "update inner key 0 value 5")
    maps = store.load(home)
    assert maps["outer"][6] is maps["inner"]
    assert maps["inner"][0] == 5


def test_typed_maps_speak_json(home: Path) -> None:
    key, value = counter_types()
    m = Map("HASH", 4, 8, 4, key_type=key, value_type=value)
    m[6] = {"packets": 3, "bytes": 180}
    store.save({"counts": m}, home)
    assert json.loads(done(home, "dump counts")) == [{"key": 6, "value": {"packets": 3, "bytes": 180}}]
    done(home, "update counts", "key", "17", "value", '{"packets": 1, "bytes": 60}')
    assert json.loads(done(home, "lookup counts", "key", "17"))["value"] == {"packets": 1, "bytes": 60}
    (formatted,) = [e["formatted"] for e in json.loads(done(home, "dump counts", "--format", "json"))
                    if e["formatted"]["key"] == 17]  # fmt: skip
    assert formatted["value"]["bytes"] == 60
    assert "no field" in failed(home, 2, "update counts", "key", "17", "value", '{"nothing": 1}')


def test_prefixes_are_keys_of_typed_tries_as_of_untyped_ones(home: Path) -> None:
    """The example of `pktbpf map --help` on the shipped filter, whose keys are a structure."""
    arguments = ["replay", "pcaps/arp.pcap", "-F", "filters/ebpf/allow_lpm.o", "--maps", str(home), "-q"]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    done(home, "update allowed key 10.0.0.0/8 value 1")
    (entry,) = json.loads(done(home, "dump allowed", "--format", "json"))
    assert entry["key"] == ["0x08", "0x00", "0x00", "0x00", "0x0a", "0x00", "0x00", "0x00"]
    done(home, "update allowed", "key", json.dumps(entry["formatted"]["key"]), "value", "2")
    assert len(json.loads(done(home, "dump allowed"))) == 1
    done(home, "create plain type lpm_trie key 8 value 4 entries 4 flags 1")
    for name in ("allowed", "plain"):
        said = failed(home, 2, f"update {name} key 10.1.2.3/40 value 1")
        assert said.endswith("key: '10.1.2.3/40' is no address prefix: the length is a number of bits, at most 32")
        assert "'10.1.2' is no IPv4 or IPv6 address" in failed(home, 2, f"update {name} key 10.1.2/8 value 1")
        assert "makes a key of 20 bytes" in failed(home, 2, f"update {name} key 2001:db8::/32 value 1")


def test_zeros_are_left_out_on_demand(home: Path) -> None:
    done(home, "create cpus type percpu_array key 4 value 8 entries 256 cpus 4")
    done(home, "update cpus key 7 value 1")
    assert done(home, "dump cpus").count("\n") == 256 * 6 + 1
    short = done(home, "dump cpus --nonzero")
    assert short.startswith("key:\n07 00 00 00\nvalue (CPU 00): 01 ")
    assert short.endswith("Found 1 element, left out 255 of zeros\n")
    assert short.count("\n") == 7
    assert len(json.loads(done(home, "dump cpus --nonzero --format json"))) == 1


def test_what_cannot_be_dumped_says_what_can(home: Path) -> None:
    done(home, "create flows type hash key 4 value 8 entries 1")
    done(home, "create jumps type prog_array key 4 value 4 entries 2")
    assert "a directory, name one of its maps (flows, jumps): No such file" in failed(home, 1, "dump .")
    said = failed(home, 1, "dump flow")
    assert "has flows, jumps; programs and constants (.rodata) are not kept: No such file" in said
    assert done(home, "dump jumps") == "Found 0 elements; a replay puts programs in and keeps none\n"
    file = home / "jumps.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "entries": [{"key": "01000000", "program": "parse_ip"}]}))
    assert done(home, "dump jumps") == "key: 01 00 00 00  program: parse_ip\nFound 1 element\n"
    assert json.loads(done(home, "dump jumps --format json")) == [{"key": 1, "program": "parse_ip"}]
