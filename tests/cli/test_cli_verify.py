"""pktbpf verify: the kernel's answer as words, as JSON and as exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pktbpf.cli import cli
from pktbpf.objfile.kernel_btf import KERNEL_BTF
from pktbpf.verifier.profile import LATEST

REFUSED = sorted(Path("filters/refused").iterdir())
FILTERS = sorted(path for path in Path("filters").iterdir() if path.is_file())


def run(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["verify", *args])
    return result.exit_code, result.output


@pytest.mark.parametrize("path", FILTERS, ids=lambda path: path.name)
def test_every_filter_is_accepted(path: Path) -> None:
    code, output = run(str(path))
    assert code == 0
    assert output.startswith("accepted: ")


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: path.name)
def test_every_refused_filter_names_its_instruction(path: Path) -> None:
    code, output = run(str(path))
    assert code == 3
    assert output.startswith("refused")
    assert "EINVAL" in output
    said = json.loads(run(str(path), "--format", "json")[1])
    assert said["accepted"] is False
    assert said["errno"] == 22
    if said["insn"] is not None:
        assert f"refused at instruction {said['insn']}: {said['reason']}" in output
        assert "\n> " in output


def test_programs_of_objects() -> None:
    code, output = run("filters/ebpf/proto_counts.o")
    assert (code, output.startswith("accepted: 30 instructions, tag ")) == (0, True)
    code, output = run("filters/ebpf/parser_chain.o")
    assert code == 2
    assert "choose one with --program NAME" in output
    assert run("filters/ebpf/parser_chain.o", "--program", "nosuch")[0] == 2
    assert run("filters/ebpf/parser_chain.o", "--program", "parse_ip")[0] == 0
    assert run("filters/tcp-port-80.bpf", "--program", "x")[0] == 2


def test_an_extended_program_is_refused_with_its_place(tmp_path: Path) -> None:
    source = tmp_path / "bad.ebpf"
    source.write_text("r0 = *(u32 *)(r1 +76)\nexit\n")
    code, output = run(str(source))
    assert code == 3
    assert "refused at instruction 0: invalid bpf_context access off=76 size=4" in output
    assert "(EACCES)" in output


@pytest.mark.skipif(not KERNEL_BTF.exists(), reason="this kernel shows no types of its own")
def test_structures_of_the_running_kernel(tmp_path: Path) -> None:
    source = tmp_path / "task.ebpf"
    source.write_text("call bpf_get_current_task_btf\nr1 = *(u8 *)(r0 +0)\nr0 = 0\nexit\n")
    assert run(str(source))[0] == 0
    code, output = run(str(source), "--btf", "filters/ebpf/proto_counts.o")
    assert code == 3
    assert "refused at instruction 1: cannot be judged offline: a load from the kernel's 'struct task_struct'" in output
    assert run(str(source), "--btf", str(source))[0] == 1


def test_an_object_shows_its_source_and_what_to_do() -> None:
    code, output = run("filters/ebpf/refused/null_check.o")
    assert code == 3
    for part in ("; null_check.c:24: *seen += 1;", "\npath    10 instructions", "\nneeds   R0 to be an address",
                 "\norigin ", "\nremedy  insert `if r0 == 0 goto +N` before instruction 10 (null_check.c:24)",
    ):  # fmt: skip
        assert part in output
    said = json.loads(run("filters/ebpf/refused/null_check.o", "--format", "json")[1])
    assert said["explanation"]["need"]["kind"] == "null_check"
    assert said["explanation"]["remedy"]["insn"] == 10


def test_other_commands_point_to_it() -> None:
    result = CliRunner().invoke(cli, ["replay", "pcaps/web.pcap", "--filter", "filters/ebpf/refused/null_check.o"])
    assert result.exit_code == 3
    assert result.output.count("\n") == 1
    assert result.output.rstrip().endswith("`pktbpf verify filters/ebpf/refused/null_check.o` shows why")


def test_an_older_kernel_and_the_list_of_rules() -> None:
    sampler = "filters/ebpf/sampler_ringbuf.o"
    result = CliRunner().invoke(cli, ["verify", sampler, "--kernel", "6.1"])
    assert result.exit_code == 3
    assert "refused at instruction 52: invalid access to memory, mem_size=80 off=16 size=0" in result.stdout
    assert result.stderr.startswith("pktbpf: kernel 6.1 approximately: ")
    assert len(result.stderr.splitlines()) == 1
    said = json.loads(run(sampler, "--kernel", "6.1", "--format", "json")[1])
    assert (said["accepted"], said["errno"], said["kernel"], len(said["approximate"])) == (False, 13, "6.1", 3)
    newest = CliRunner().invoke(cli, ["verify", sampler])
    assert (newest.exit_code, newest.stderr) == (0, "")
    code, output = run("--kernel", "list")
    assert code == 0
    assert "6.9                may goto: may_goto exists" in output
    assert run("--kernel", "5.4", sampler)[0] == 2
    assert run()[0] == 2


def test_tags_of_older_kernels_are_another_digest() -> None:
    old, new = (run("filters/ebpf/proto_counts.o", "--kernel", version)[1].split()[4] for version in ("6.12", "6.18"))
    assert (old, len(new)) == ("5463338619990a0e", 16)
    assert old != new


def test_versions_are_taken_as_uname_says_them() -> None:
    refused = "filters/ebpf/refused/index_bound.o"
    for said in ("6.1.55", "6.1.0-28-amd64", "6.1.0-rc3+"):
        assert run(refused, "--kernel", said) == run(refused, "--kernel", "6.1")
    for wrong in ("6", "6.1.", "6.1.x", "6.1 55", "v6.1", ""):
        code, output = run(refused, "--kernel", wrong)
        assert code == 2, wrong
        assert "is not a version such as" in output


def test_a_version_that_is_not_known_is_judged_by_the_newest_with_a_note() -> None:
    known = CliRunner().invoke(cli, ["verify", "filters/ebpf/rate_limit.o", "--kernel", LATEST])
    later = CliRunner().invoke(cli, ["verify", "filters/ebpf/rate_limit.o", "--kernel", "99.1"])
    assert later.stdout == known.stdout
    assert "not known" not in known.stderr
    assert f"pktbpf: kernel 99.1 is not known; the newest known is {LATEST}, judged by its rules" in later.stderr
