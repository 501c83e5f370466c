"""`pktbpf translate`: both sides line by line, as text, JSON and bytes."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

import pktbpf
from pktbpf.cli import cli


def run(*arguments: str, data: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, ["translate", *arguments], input=data)


def test_every_instruction_of_both_sides_stands_there_once() -> None:
    lines = run("filters/tcp-port-80.bpf").stdout.splitlines()
    program = pktbpf.translate(pktbpf.load("filters/tcp-port-80.bpf"))
    numbers = [int(line[1:4]) for line in lines if line.startswith("(")]
    slots = [int(line.split(":")[0]) for line in lines if line.startswith("      ")]
    assert numbers == list(range(16))
    assert slots == list(range(len(program)))
    assert lines[-1] == f"16 classic instructions became {len(program)} extended ones, tag {program.tag}"


def test_what_cannot_be_reached_or_loaded_is_said() -> None:
    done = run("ld poff / jeq #0 jt 3 jf 3 / ldb [3] / ret a")
    assert done.exit_code == 0
    assert "(002) ldb      [3]   ; cannot be reached, left out" in done.stdout
    assert "; internal to the kernel, cannot be loaded from user space" in done.stdout
    assert "not loadable from user space: calls skb_get_pay_offset" in done.stdout


def test_json_has_the_same() -> None:
    made = json.loads(run("icmp", "--format", "json").stdout)
    program = pktbpf.translate(pktbpf.compile("icmp"))
    assert made["extended"] == len(program)
    assert made["loadable"] is True
    assert made["tag"] == program.tag
    raw = "".join(slot["bytes"] for part in made["instructions"] for slot in part["extended"])
    assert bytes.fromhex(raw) == program.to_bytes()
    assert [part["number"] for part in made["instructions"]] == [None, *range(6)]


def test_bytes_to_a_file_and_to_standard_output(tmp_path: Path) -> None:
    target = tmp_path / "icmp.bin"
    assert run("icmp", "-o", str(target)).output == ""
    assert target.read_bytes() == pktbpf.translate(pktbpf.compile("icmp")).to_bytes()
    assert run("-", "-o", "-", data=b"icmp").stdout_bytes == target.read_bytes()
    warned = run("ld hatype / ret a", "-o", str(target))
    assert warned.stderr.startswith("pktbpf: note: not loadable from user space")


def test_refused_and_extended_programs() -> None:
    refused = run("ld M[0] / ret a")
    assert refused.exit_code == 3
    assert refused.stderr.startswith("pktbpf: instruction 0: M[0] is read here")
    extended = run("r0 = 0\nexit")
    assert extended.exit_code == 2
    assert "is an extended program already" in extended.stderr
