"""The live kernel as judge, through bpftool: objects load, tags agree, translated listings assemble, BTF agrees."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pktbpf.asm.extended_text import assemble
from pktbpf.kernel.loading import Loaded, numbered
from pktbpf.objfile import Object, load_object
from pktbpf.objfile.btf import BtfKind, BtfType
from pktbpf.objfile.load import target_btf

SRC = Path(__file__).parent / "src"
FILTERS = Path(__file__).parents[2] / "filters" / "ebpf"
LOADABLE = sorted(FILTERS.glob("*.o")) + [SRC / f"{name}.o" for name in ("calls", "globals", "externs", "core_kernel")]
ALL = sorted(FILTERS.glob("*.o")) + sorted(path for path in SRC.glob("*.o") if path.stem != "big_endian")

pytestmark = pytest.mark.kernel


def bpftool(*args: str | Path) -> str:
    done = subprocess.run(["bpftool", *map(str, args)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def bpffs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A mounted BPF file system of its own."""
    if shutil.which("bpftool") is None:
        pytest.skip("bpftool is not installed")
    if os.geteuid() != 0:
        pytest.skip("loading programs needs root")
    place = tmp_path_factory.mktemp("bpffs")
    mounted = subprocess.run(["mount", "-t", "bpf", "bpffs", place], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a bpf file system: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("path", LOADABLE, ids=lambda path: path.stem)
def test_tags_and_translated_listings(path: Path, bpffs: Path, tmp_path: Path) -> None:
    home = bpffs / path.stem
    bpftool("prog", "loadall", path, home, "type", "socket")
    found = load_object(path)
    assert isinstance(found, Object)
    assert {entry.name for entry in home.iterdir()} == set(found.programs)
    for name, program in found.programs.items():
        shown = json.loads(bpftool("-j", "prog", "show", "pinned", home / name))
        assert shown["tag"] == numbered(program).tag
        assert shown.get("gpl_compatible") is True
        raw = tmp_path / name
        bpftool("prog", "dump", "xlated", "pinned", home / name, "file", raw)
        listing = bpftool("prog", "dump", "xlated", "pinned", home / name, "opcodes")
        assert assemble(listing).to_bytes() == raw.read_bytes()
        (home / name).unlink()


def test_maps_are_those_of_libbpf(bpffs: Path) -> None:
    path = SRC / "globals.o"
    bpftool("prog", "load", path, bpffs / "one", "type", "socket")
    found = load_object(path)
    assert isinstance(found, Object)
    ids = json.loads(bpftool("-j", "prog", "show", "pinned", bpffs / "one"))["map_ids"]
    theirs = [json.loads(bpftool("-j", "map", "show", "id", str(number))) for number in ids]
    ours = {
        definition.kernel_name: ("array", definition.key_size, definition.value_size, 1, definition.flags)
        for definition in found.maps.values()
    }
    assert ours == {
        m["name"]: (m["type"], m["bytes_key"], m["bytes_value"], m["max_entries"], m["flags"]) for m in theirs
    }
    assert {m["name"] for m in theirs if m.get("frozen")} == {d.kernel_name for d in found.maps.values() if d.frozen}
    (bpffs / "one").unlink()


@pytest.mark.parametrize("path", LOADABLE, ids=lambda path: path.stem)
def test_the_kernel_takes_types_functions_and_lines(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("loading programs needs root")
    found = load_object(path)
    assert isinstance(found, Object)
    with contextlib.closing(Loaded()) as loaded:
        for program in found.programs.values():
            assert program.btf is not None
            assert loaded.program(program) >= 0


def as_bpftool(found: BtfType) -> dict[str, object]:
    """The part of a type record that both sides word alike."""
    out: dict[str, object] = {"id": found.id, "kind": found.kind.name, "name": found.name or "(anon)"}
    if found.members or found.kind in (BtfKind.STRUCT, BtfKind.UNION):
        out["size"] = found.size
        out["members"] = [(m.name or "(anon)", m.type, m.bit_offset, m.bit_size) for m in found.members]
    if found.kind is BtfKind.INT:
        out |= {"size": found.size, "nr_bits": found.bits, "bits_offset": found.bit_offset}
    if found.kind is BtfKind.ARRAY:
        out |= {"type_id": found.ref, "index_type_id": found.index, "nr_elems": found.count}
    if found.kind in (BtfKind.ENUM, BtfKind.ENUM64):
        mask = 0xFFFF_FFFF if found.kind is BtfKind.ENUM else -1
        out["values"] = [(value.name, value.value & mask) for value in found.values]
    if found.kind is BtfKind.FUNC_PROTO:
        out["params"] = [(p.name or "(anon)", p.type) for p in found.params]
    if found.kind in (BtfKind.PTR, BtfKind.TYPEDEF, BtfKind.CONST, BtfKind.VOLATILE, BtfKind.FUNC, BtfKind.VAR):
        out["type_id"] = found.ref
    return out


def theirs(entry: dict[str, object]) -> dict[str, object]:
    """The same part of what bpftool prints."""
    names = ("id", "kind", "name", "size", "nr_bits", "bits_offset", "type_id", "index_type_id", "nr_elems")
    wanted = {"INT": names[:6], "STRUCT": names[:4], "UNION": names[:4], "ARRAY": names[:3] + names[6:]}
    plain = {"PTR", "TYPEDEF", "CONST", "VOLATILE", "FUNC", "VAR"}
    keep = wanted.get(str(entry["kind"]), (*names[:3], "type_id") if entry["kind"] in plain else names[:3])
    out = {key: entry[key] for key in keep}
    if "members" in entry:
        members = entry["members"]
        assert isinstance(members, list)
        out["members"] = [(m["name"], m["type_id"], m["bits_offset"], m.get("bitfield_size", 0)) for m in members]
    if "values" in entry:
        values = entry["values"]
        assert isinstance(values, list)
        # bpftool prints unsigned 32-bit values above 2^31 sign-extended to 64 bits
        mask = 0xFFFF_FFFF if entry["kind"] == "ENUM" else -1
        out["values"] = [(value["name"], value["val"] & mask) for value in values]
    if entry["kind"] == "FUNC_PROTO":
        params = entry["params"]
        assert isinstance(params, list)
        out["params"] = [(param["name"], param["type_id"]) for param in params]
    return out


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_btf_reads_as_bpftool_reads_it(path: Path) -> None:
    if shutil.which("bpftool") is None:
        pytest.skip("bpftool is not installed")
    entries = json.loads(bpftool("-j", "btf", "dump", "file", path))["types"]
    table = target_btf(path)
    assert len(entries) == len(table) - 1
    for entry, found in zip(entries, table.types(), strict=True):
        assert as_bpftool(found) == theirs(entry)
