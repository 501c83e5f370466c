"""`pktbpf map`: look at and change maps that `--maps DIR` keeps, in bpftool's words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pktbpf.cli import _map_words as words_of
from pktbpf.errors import MapError, UsageError

if TYPE_CHECKING:
    from pktbpf.maps.face import Map

F = TypeVar("F", bound=Callable[..., Any])
WORDS = {"ignore_unknown_options": True}  # negative numbers are no options


@click.group()
def command() -> None:
    """Look at and change maps kept by --maps DIR: DIR/NAME is one map.

    \b
    DATA of a key or value is one of
      hex 06 00 00 00        bytes in hex
      6 0 0 0                bytes as numbers
      6                      one little-endian number
      '{"packets": 1}'       JSON of the map's BTF type
      10.0.0.0/8             a prefix, key of an lpm_trie

    \b
    Examples:
      pktbpf map dump state/counts --nonzero
      pktbpf map lookup state/counts key 6
      pktbpf map update state/allowed key 10.0.0.0/8 value 1
      pktbpf map create state/ports type hash key 4 value 8 entries 1024
    """


def _path_argument(function: F) -> F:
    return click.argument("path", metavar="DIR/NAME")(function)


def _format_option(function: F) -> F:
    return click.option(
        "--format", "form", type=click.Choice(("text", "json")), default="text", help="Form of the output [text]."
    )(function)


def _words_argument(function: F) -> F:
    return click.argument("words", nargs=-1, type=click.UNPROCESSED)(function)


def _file(path: str) -> Path:
    """The file of DIR/NAME or DIR/NAME.json."""
    from pktbpf.maps import store

    given = Path(path)
    if given.suffix == ".json" and given.is_file():
        return given
    return store.path_of(given.parent, given.name)


def _codec(raw: bytes, number: int) -> Any:
    from pktbpf.objfile.btf import Btf
    from pktbpf.objfile.btf_data import DataType

    return DataType.of(Btf.parse(raw), number)


def _open(path: str) -> Map:
    from pktbpf.maps import store

    file = _file(path)
    if not file.is_file():
        raise MapError(2, f"{path}: {_instead(path, file)}No such file or directory")
    return store.load_one(file, make_type=_codec)


def _instead(path: str, file: Path) -> str:
    """What to name in place of a map that is not there: the maps that its directory, or the path itself, has."""
    import urllib.parse

    place = Path(path) if Path(path).is_dir() else file.parent
    names = sorted(urllib.parse.unquote(one.stem) for one in place.glob("*.json"))
    if place == Path(path):
        return f"a directory, name one of its maps ({', '.join(names) or 'there are none'}): "
    if not names:
        return ""
    return f"{place} has {', '.join(names)}; programs and constants (.rodata) are not kept: "


def _save(m: Map, path: str, others: dict[str, Map]) -> None:
    from pktbpf.maps import store

    store.save_one(m, _file(path), {id(inner): name for name, inner in others.items()})


def _siblings(path: str) -> dict[str, Map]:
    """All maps of the directory."""
    from pktbpf.maps import store

    return store.load(_file(path).parent, make_type=_codec)


def _open_for_change(path: str) -> tuple[Map, dict[str, Map]]:
    """The map; one of maps together with all of its directory, so that references stay what they are."""
    m = _open(path)
    if m.kind == "PROG_ARRAY":
        raise MapError(9, f"{path}: programs are put in by a replay, not by name: Bad file descriptor")
    if not m.outer:
        return m, {}
    others = _siblings(path)
    return others[_name(path)], others


def _name(path: str) -> str:
    import urllib.parse

    return urllib.parse.unquote(_file(path).stem)


def _key(m: Map, given: dict[str, list[str]], *, needed: bool = True) -> Any:
    """The key that the words give: bytes, a prefix, or None for a map without keys."""
    if "key" not in given:
        if needed and m.key_size:
            raise UsageError("a key is needed: key DATA")
        return None
    if not m.key_size:
        raise UsageError(f"a {m.kind.lower()} has no keys")
    return words_of.data(given["key"], m.key_size, m.key_type, "key", trie=m.kind == "LPM_TRIE")


@command.command()
@_path_argument
@click.option("--nonzero", is_flag=True, help="Leave out entries whose value is all zeros, on all processors.")
@_format_option
def dump(path: str, nonzero: bool, form: str) -> None:
    """Print all entries; with --nonzero of a large array only those that hold something."""
    m = _open(path)
    if m.kind == "PROG_ARRAY":
        _dump_programs(m, form)
        return
    everything = list(_entries(m))
    entries = [(key, value) for key, value in everything if any(value)] if nonzero else everything
    if form == "json":
        click.echo(json.dumps([words_of.json_entry(m, key, value) for key, value in entries], separators=(",", ":")))
    elif (m.key_type is not None or m.value_type is not None) and m.key_size:
        rows = [words_of.typed_entry(m, key or b"", value) for key, value in entries]
        click.echo(json.dumps(rows, indent=4))
    else:
        for key, value in entries:
            click.echo(words_of.text_entry(m, key or b"", value))
        zeros = f", left out {len(everything) - len(entries)} of zeros" if nonzero else ""
        click.echo(f"Found {len(entries)} element{'' if len(entries) == 1 else 's'}{zeros}")


def _dump_programs(m: Map, form: str) -> None:
    """Entries of a program array, whose values are programs: a file keeps their names."""
    found = {index: str(getattr(one, "name", "")) for index, one in sorted(m.targets.items())}
    if form == "json":
        click.echo(json.dumps([{"key": index, "program": name} for index, name in found.items()]))
        return
    for index, name in found.items():
        click.echo(f"key: {index.to_bytes(4, 'little').hex(' ')}  program: {name}")
    put_in = "" if found else "; a replay puts programs in and keeps none"
    click.echo(f"Found {len(found)} element{'' if len(found) == 1 else 's'}{put_in}")


def _entries(m: Map) -> Iterator[tuple[bytes | None, bytes]]:
    """Entries; of queues the values, of rings and event arrays what was put out."""
    from pktbpf.maps import events

    if m.kind in ("QUEUE", "STACK"):
        yield from ((None, value) for value in events.queued(m))
    elif m.kind == "RINGBUF":
        yield from ((None, record) for record in m.records())
    elif m.kind == "PERF_EVENT_ARRAY":
        yield from ((event.slot.to_bytes(4, "little"), event.data) for event in m.events())
    else:
        yield from m.raw_items()


@command.command(context_settings=WORDS)
@_path_argument
@_words_argument
@_format_option
def lookup(path: str, words: tuple[str, ...], form: str) -> None:
    """Print the entry of a key: `key DATA`; of a queue or stack the next value."""
    m = _open(path)
    given = words_of.sections(words, ("key", "value"))
    probe = None
    if m.kind == "BLOOM_FILTER":
        probe = words_of.data(given.get("value", []), m.value_size, m.value_type, "value")
    key = _key(m, given)
    value = m.lookup(key, value=probe)
    raw = m._key(key)
    if form == "json":
        click.echo(json.dumps(words_of.json_entry(m, raw, value), separators=(",", ":")))
    elif raw is not None and (m.key_type is not None or m.value_type is not None):
        click.echo(json.dumps(words_of.typed_entry(m, raw, value), indent=4))
    else:
        click.echo(words_of.text_entry(m, raw or b"", value))


@command.command(context_settings=WORDS)
@_path_argument
@_words_argument
def update(path: str, words: tuple[str, ...]) -> None:
    """Set an entry: `key DATA value DATA [any|noexist|exist]`.

    The value of a map of maps is the name of a map in DIR.
    """
    m, others = _open_for_change(path)
    flags = 0
    if words and words[-1] in words_of.UPDATE_FLAGS:
        flags, words = words_of.UPDATE_FLAGS[words[-1]], words[:-1]
    given = words_of.sections(words, words_of.SECTIONS)
    if "value" not in given:
        raise UsageError("a value is needed: value DATA")
    if m.outer:
        name = " ".join(given["value"])
        if name not in others:
            raise MapError(9, f"{path}: no map {name!r} in the directory: Bad file descriptor")
        value: Any = others[name]
    else:
        value = words_of.data(given["value"], m.value_size, m.value_type, "value")
    m.update(_key(m, given), value, flags)
    _save(m, path, others)


@command.command(context_settings=WORDS)
@_path_argument
@_words_argument
def delete(path: str, words: tuple[str, ...]) -> None:
    """Remove an entry: `key DATA`."""
    m, others = _open_for_change(path)
    m.delete(_key(m, words_of.sections(words, ("key",))))
    _save(m, path, others)


@command.command("next", context_settings=WORDS)
@_path_argument
@_words_argument
@_format_option
def following(path: str, words: tuple[str, ...], form: str) -> None:
    """Print the key after `key DATA` as the kernel walks, the first without a key."""
    m = _open(path)
    key = _key(m, words_of.sections(words, ("key",)), needed=False)
    found, raw = m.next_key(key), m._key(key)
    if form == "json":
        octets = [[f"0x{byte:02x}" for byte in data] if data is not None else None for data in (raw, found)]
        click.echo(json.dumps({"key": octets[0], "next_key": octets[1]}, separators=(",", ":")))
        return
    before = "key: None" if raw is None else f"key:\n{words_of.hexdump(raw)}"
    click.echo(f"{before}\nnext key:\n{words_of.hexdump(found)}")


CREATE = ("type", "key", "value", "entries", "name", "flags", "inner_map", "extra", "cpus")


@command.command()
@_path_argument
@_words_argument
def create(path: str, words: tuple[str, ...]) -> None:
    """Make a map: `type TYPE key SIZE value SIZE entries N [name NAME] [flags F] [inner_map NAME] [extra N] [cpus N]`.

    inner_map is a map in DIR that the inner maps must be like; cpus the number of processors of a per-CPU or LRU map.
    """
    from pktbpf.maps import store
    from pktbpf.maps.face import Map

    given = words_of.sections(words, CREATE)
    file = _file(path)
    if file.exists():
        raise MapError(17, f"{path}: File exists")
    if len(given.get("type", [])) != 1:
        raise UsageError("a type is needed: type hash, type array, ...")
    kind = _kind(given["type"][0])
    numbers = {name: words_of.number(given[name], name) for name in CREATE[1:] if name in given and name not in (
        "name", "inner_map")}  # fmt: skip
    if "entries" not in given and not kind.endswith("_STORAGE"):
        raise UsageError("the number of entries is needed: entries N")
    inner = _inner(path, given["inner_map"]) if "inner_map" in given else None
    name = given["name"][0] if given.get("name") else _kernel_name(_name(path))
    m = Map(
        kind, numbers.get("key", 0), numbers.get("value", 0), numbers.get("entries", 0),
        numbers.get("flags", 0), name, inner=inner, extra=numbers.get("extra", 0),
        possible_cpus=max(numbers.get("cpus", 1), 1),
    )  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    store.save_one(m, file)


def _kind(word: str) -> str:
    """The kind that a word after `type` names. Raises UsageError with a close match, else with all there are."""
    import difflib

    from pktbpf.abi.map_kinds import BY_NAME
    from pktbpf.maps.attributes import MEANINGLESS

    name = word.upper().removeprefix("BPF_MAP_TYPE_")
    if name in BY_NAME:
        return name
    known = [one.lower() for one, kind in BY_NAME.items() if kind.number and one not in MEANINGLESS]
    close = difflib.get_close_matches(word.lower(), known, 1)
    said = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
    raise UsageError(f"no map type {word!r}; {said}")


def _inner(path: str, words: list[str]) -> Map:
    maps = _siblings(path)
    if len(words) != 1 or words[0] not in maps:
        raise UsageError(f"inner_map takes the name of a map in the directory: {', '.join(maps) or 'there is none'}")
    return maps[words[0]]


def _kernel_name(name: str) -> str:
    """What of a file's name the kernel would take as a map's name."""
    return "".join(c for c in name if c.isascii() and (c.isalnum() or c in "_."))[:15]
