"""Maps of several objects in one run and in one directory: what is shared, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pktbpf.cli import cli

pytestmark = pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")
WEB = "pcaps/web.pcap"
HEAD = "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
TAIL = ' return 1; }\nchar LICENSE[] SEC("license") = "GPL";\n'
RUN = 'SEC("socket") int run(struct __sk_buff *skb) {'
TABLE = "struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); "
TABLE += "__type(key, __u32); __type(value, %s); } t SEC(\".maps\");\n"
COUNT = " __u32 k = 0; %s *n = bpf_map_lookup_elem(&t, &k); if (n) *n += 1;"


def build(directory: Path, name: str, text: str) -> str:
    source, target = directory / f"{name}.bpf.c", directory / f"{name}.o"
    source.write_text(HEAD + text + TAIL)
    assert CliRunner().invoke(cli, ["compile-c", str(source), "-o", str(target)]).exit_code == 0
    return str(target)


def replay(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["replay", WEB, *arguments])


def variables(path: Path) -> object:
    dumped = CliRunner().invoke(cli, ["map", "dump", str(path)])
    assert dumped.exit_code == 0, dumped.output
    return json.loads(dumped.stdout)[0]["value"]


def test_variables_are_each_objects_own(tmp_path: Path) -> None:
    first = build(tmp_path, "first", f"__u64 seen;\n{RUN} seen += 1;")
    second = build(tmp_path, "second", f"__u64 seen;\n{RUN} seen += 10;")
    state = tmp_path / "state"
    assert replay("-F", first, "--maps", str(state), "-q").exit_code == 0
    assert replay("-F", second, "--maps", str(state), "-q").exit_code == 0
    assert "210" in str(variables(state / "first.bss"))
    assert "2100" in str(variables(state / "second.bss"))
    done = replay("-F", first, "-F", second, "--maps", str(state), "--format", "json")
    assert set(json.loads(done.stdout)["maps"]) == {".bss", f"{second}:.bss"}
    assert "420" in str(variables(state / "first.bss"))
    assert "4200" in str(variables(state / "second.bss"))
    tell = build(tmp_path, "tell", f"__u64 seen;\n{RUN} return seen += 1;")
    assert replay("-F", tell, "--maps", str(state), "-q").exit_code == 0
    traced = CliRunner().invoke(cli, ["trace", WEB, "-F", tell, "--maps", str(state), "-n", "1", "--format", "json"])
    assert json.loads(traced.stdout)["verdict"] == 211
    assert replay("-F", first, "--maps", str(state), "--set", "seen=5", "-q").exit_code == 0
    assert "215" in str(variables(state / "first.bss"))


def test_maps_of_one_name_and_shape_are_shared_from_the_first_run_on(tmp_path: Path) -> None:
    one, two = (build(tmp_path, name, TABLE % "__u64" + RUN + COUNT % "__u64") for name in ("one", "two"))
    state = tmp_path / "state"
    for times in (2, 4):
        assert replay("-F", one, "-F", two, "--maps", str(state), "-q").exit_code == 0
        assert variables(state / "t") == 210 * times


def test_other_shapes_are_refused_in_one_line(tmp_path: Path) -> None:
    one = build(tmp_path, "one", TABLE % "__u64" + RUN + COUNT % "__u64")
    two = build(tmp_path, "two", TABLE % "__u32" + RUN + COUNT % "__u32")
    state = tmp_path / "state"
    done = replay("-F", one, "-F", two, "--maps", str(state), "-q")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert f"{one} and {two} both have a map 't', with value_size 8 and 4" in done.stderr
    assert replay("-F", one, "--maps", str(state), "-q").exit_code == 0
    done = replay("-F", two, "--maps", str(state), "-q")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert f"{state}/t.json has value_size 8, {two} wants 4; remove that file" in done.stderr


def test_variables_laid_out_otherwise_are_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    path = build(tmp_path, "same", f"__u64 seen;\n{RUN} seen += 1;")
    assert replay("-F", path, "--maps", str(state), "-q").exit_code == 0
    for variable, said in (("__u64 other", "variables seen"), ("__u32 seen", "value_size 8")):
        build(tmp_path, "same", f"{variable};\n{RUN} {variable.split()[1]} += 1;")
        done = replay("-F", path, "--maps", str(state), "-q")
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.output
        assert f"{state}/same.bss.json has {said}" in done.stderr
    other = tmp_path / "other"
    other.mkdir()
    twin = build(other, "same", f"__u32 seen;\n{RUN} seen += 1;")
    done = replay("-F", path, "-F", twin, "--maps", str(state), "-q")
    assert f"{path} and {twin} would both keep their variables as same.bss" in done.stderr
