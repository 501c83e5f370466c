"""replay over objects: maps that live on in a directory, presets, variables, several programs, the trace pipe."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import pktbpf
from pktbpf.cli import cli
from pktbpf.objfile.kernel_btf import KERNEL_BTF

WEB = "pcaps/web.pcap"
COUNTS = "filters/ebpf/proto_counts.o"
CHAIN = "filters/ebpf/parser_chain.o"
SAMPLER, SYNS = "filters/ebpf/sampler_ringbuf.o", "filters/ebpf/syn_events.o"
RATE = "filters/ebpf/rate_limit.o"
ALLOW = "filters/ebpf/allow_lpm.o"


def replay(*arguments: str) -> Result:
    done = CliRunner().invoke(cli, ["replay", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done


def summary(*arguments: str) -> Any:
    done = replay(*arguments, "--format", "json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def contents(directory: Path, name: str) -> dict[int, int]:
    entries = json.loads((directory / f"{name}.json").read_text())["entries"]
    return {
        int.from_bytes(bytes.fromhex(one["key"]), "little"): int.from_bytes(bytes.fromhex(one["value"]), "little")
        for one in entries
    }


def test_the_counts_are_those_of_a_python_loop() -> None:
    expected: dict[int, int] = {}
    with pktbpf.open_capture(WEB) as capture:
        for batch in capture:
            for row in range(len(batch)):
                packet = batch.packet(row)
                key = {b"\x08\0": packet[23], b"\x86\xdd": packet[20]}.get(packet[12:14], 255)
                expected[key] = expected.get(key, 0) + 1
    results = pktbpf.replay(WEB, COUNTS)
    counts = {key: value for key, value in results.maps["counts"].items() if value}
    assert sum(counts.values()) == results.packets
    assert counts == expected


def test_maps_go_on_from_run_to_run(tmp_path: Path) -> None:
    state = tmp_path / "state"
    for times in (1, 2, 3):
        assert replay(WEB, "-F", COUNTS, "--maps", str(state), "-q").exit_code == 0
        counts = contents(state, "counts")
        assert sum(counts.values()) == 210 * times


def test_maps_are_kept_after_a_damaged_capture(tmp_path: Path) -> None:
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(Path(WEB).read_bytes()[:-7])
    assert replay(str(cut), "-F", COUNTS, "--maps", str(tmp_path / "state"), "-q").exit_code == 1
    assert sum(contents(tmp_path / "state", "counts").values()) == 209


def test_presets(tmp_path: Path) -> None:
    before = dict(pktbpf.replay(WEB, COUNTS).maps["counts"].items())
    forms: list[Any] = [
        {"6": 1000, "200": "0x10"},
        [{"key": 6, "value": 1000}, {"key": 200, "value": 16}],
        [
            {"key": ["0x06", "0x00", "0x00", "0x00"], "value": ["0xe8", "0x03", *["0x00"] * 6]},
            {"key": 200, "value": 16},
        ],
    ]
    for number, form in enumerate(forms):
        preset, state = tmp_path / f"{number}.json", tmp_path / f"state{number}"
        preset.write_text(json.dumps(form))
        assert replay(WEB, "-F", COUNTS, "--map", f"counts={preset}", "--maps", str(state), "-q").exit_code == 0
        after = contents(state, "counts")
        assert after[6] == before[6] + 1000
        assert after[200] == 16


def test_prefixes_decide(tmp_path: Path) -> None:
    preset = tmp_path / "all.json"
    preset.write_text('{"0.0.0.0/0": 1}')
    assert summary(WEB, "-F", ALLOW)["accepted"] == 0
    assert summary(WEB, "-F", ALLOW, "--map", f"allowed={preset}")["accepted"] > 0


def test_variables() -> None:
    found = pktbpf.load(RATE)
    name = next(name for name, one in found.variables.items() if one.map == ".rodata" and one.size in (4, 8))
    low = summary(WEB, "-F", RATE, "--set", f"{name}=1")["accepted"]
    assert low == pktbpf.replay(WEB, found.with_values({name: 1}).program()).accepted
    assert low != summary(WEB, "-F", RATE, "--set", f"{name}=100000")["accepted"]


def test_programs_of_one_object_share_its_maps() -> None:
    found = pktbpf.load(COUNTS)
    once = pktbpf.replay(WEB, found).maps["counts"]
    twice = pktbpf.replay(WEB, [found.program(), found.program()])
    assert twice.maps["counts"][6] == 2 * once[6]
    shown = summary(WEB, "-F", CHAIN, "--program", "parser_chain", "--program", "parse_ip")
    names = [one["filter"] for one in shown["filters"]]
    assert names == [f"{CHAIN}: parser_chain", f"{CHAIN}: parse_ip"]


def test_given_maps_are_used() -> None:
    mine = pktbpf.Map("ARRAY", key_size=4, value_size=8, max_entries=256, name="counts")
    mine[6] = 10
    results = pktbpf.replay(WEB, COUNTS, maps={"counts": mine})
    assert results.maps["counts"] is mine
    assert mine[6] > 10


def test_summary_names_the_maps() -> None:
    text = replay(WEB, "-F", COUNTS).stdout
    assert "\nmaps\ncounts" in text
    shown = summary(WEB, "-F", COUNTS)["maps"]["counts"]
    assert shown["type"] == "array"
    assert shown["max_entries"] == 256
    assert 0 < shown["entries"] < 256


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-F", CHAIN], 2, "5 programs, choose one with --program NAME: "),
        (["-F", CHAIN, "--program", "x"], 2, "no program 'x'; there are "),
        (["-F", "arp", "--program", "x"], 2, "none of the filters is an object"),
        (["-F", COUNTS, "--set", "a=1"], 2, "no global variable 'a'"),
        (["-F", COUNTS, "--set", "a"], 2, "--set 'a' is not NAME=VALUE"),
        (["-F", COUNTS, "--map", "x=pcaps/web.pcap"], 2, "no program names such a map; there are counts"),
        (["-F", COUNTS, "--map", "counts=pcaps/web.pcap"], 2, "not JSON"),
        (["-F", COUNTS, "--map", "counts=missing.json"], 1, "No such file"),
        (["-F", COUNTS, "--maps", WEB], 2, "not a directory"),
        (["-F", COUNTS, "--trace-pipe", "--print"], 2, "standard output"),
    ],
)
def test_errors_are_one_line(arguments: list[str], code: int, message: str) -> None:
    done = replay(WEB, *arguments)
    assert (done.exit_code, done.stderr.count("\n")) == (code, 1), done.stderr
    assert message in done.stderr


HOSTILE = (
    "[1,2", "7", '{"x": 1}', '{"6": null}', '{"6": 1e400}', '[{"key": {}, "value": 1}]', '{"300": 1}',
    '{"6": [1,2,3]}', '{"6": "zz"}', '{"-1": 1}', "[[[]]]", '"\\ud800"', '{"map": {}, "entries": 5}',
    '[{"key": 1, "values": 3}]', '{"6": -99999999999999999999}',
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_presets(text: str, tmp_path: Path) -> None:
    preset = tmp_path / "x.json"
    preset.write_text(text)
    done = replay(WEB, "-F", COUNTS, "--map", f"counts={preset}")
    assert done.exit_code in (1, 2), text
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("pktbpf: ")


@pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")
def test_trace_pipe(tmp_path: Path) -> None:
    source, target = tmp_path / "t.c", tmp_path / "t.o"
    source.write_text(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
        'SEC("socket") int tell(struct __sk_buff *skb) { bpf_printk("len %d", skb->len); return 1; }\n'
        'char LICENSE[] SEC("license") = "GPL";\n'
    )
    assert CliRunner().invoke(cli, ["compile-c", str(source), "-o", str(target)]).exit_code == 0
    done = replay("pcaps/arp.pcap", "-F", str(target), "--trace-pipe", "-q")
    lines = done.stdout.splitlines()
    assert len(lines) == pktbpf.replay("pcaps/arp.pcap", "arp or not arp").packets
    assert all(": bpf_trace_printk: len " in line for line in lines)
    assert lines[0].endswith("len 42")


@pytest.mark.parametrize(("path", "name", "counts"), [(SAMPLER, "samples", (14, 13)), (SYNS, "events", (6, 6))])
def test_what_was_handed_out_is_there_for_a_reader(path: str, name: str, counts: tuple[int], tmp_path: Path) -> None:
    """Each run begins with nothing to read; the sampler goes on counting packets where it stopped."""
    assert f"\n{name:<14}" in replay(WEB, "-F", path).stdout
    for count in counts:
        assert summary(WEB, "-F", path, "--maps", str(tmp_path))["maps"][name]["entries"] == count
        dump = CliRunner().invoke(cli, ["map", "dump", str(tmp_path / name), "--format", "json"])
        assert len(json.loads(dump.stdout)) == count


@pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")
def test_samples_for_a_user_ring_buffer(tmp_path: Path) -> None:
    source, target = tmp_path / "t.c", tmp_path / "t.o"
    source.write_text(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
        "struct { __uint(type, BPF_MAP_TYPE_USER_RINGBUF); __uint(max_entries, 4096); } orders SEC(\".maps\");\n"
        "static long each(struct bpf_dynptr *one, __u64 *sum) {\n"
        "  __u8 first = 0; bpf_dynptr_read(&first, 1, one, 0, 0); *sum += first; return 0; }\n"
        'SEC("socket") int take(struct __sk_buff *skb) {\n'
        "  __u64 sum = 0; bpf_user_ringbuf_drain(&orders, each, &sum, 0); return sum; }\n"
        'char LICENSE[] SEC("license") = "GPL";\n'
    )
    assert CliRunner().invoke(cli, ["compile-c", str(source), "-o", str(target)]).exit_code == 0
    (tmp_path / "orders.json").write_text('["0aff", [32], ["0x01"]]')
    found = summary(WEB, "-F", str(target), "--map", f"orders={tmp_path}/orders.json")
    assert (found["accepted"], found["filters"][0]["bytes_kept"]) == (1, 42)


@pytest.mark.skipif(not KERNEL_BTF.exists(), reason="this kernel shows no types of its own")
def test_variables_of_the_kernel(tmp_path: Path) -> None:
    source = tmp_path / "active.ebpf"
    source.write_text("r1 = ksym[bpf_prog_active] ll\ncall bpf_this_cpu_ptr\nr0 = *(u32 *)(r0 +0)\nexit\n")
    for value, accepted in (("bpf_prog_active=0", 0), ("bpf_prog_active=60", 210), ("bpf_prog_active[0]=1", 210)):
        (shown,) = summary(WEB, "-F", str(source), "--set", value)["filters"]
        assert shown["accepted"] == accepted
    done = replay(WEB, "-F", str(source), "--set", "bpf_prog_active[1]=1")
    assert (done.exit_code, done.stderr) == (
        2, "pktbpf: bpf_prog_active[1]: bpf_prog_active has copies for 1 processors\n",
    )  # fmt: skip
    done = replay(WEB, "-F", str(source), "--set", "no_such=1")
    assert done.exit_code == 2
    assert "none of the filters is an object or names such a variable of the kernel" in done.stderr
