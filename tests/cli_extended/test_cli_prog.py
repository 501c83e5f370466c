"""`pktbpf prog` and `pktbpf dis` over objects: bpftool's words, listings that assemble to the same bytes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pktbpf.asm.extended_text import assemble, disassemble
from pktbpf.cli import cli
from pktbpf.errors import KernelUnavailable
from pktbpf.kernel import syscall
from pktbpf.objfile import load_object
from pktbpf.program import Program

OBJECTS = sorted(Path("filters/ebpf").glob("*.o"))
COUNTS = "filters/ebpf/proto_counts.o"
CHAIN = "filters/ebpf/parser_chain.o"


def call(*arguments: str) -> Result:
    done = CliRunner().invoke(cli, list(arguments))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done


def test_show_words() -> None:
    lines = call("prog", "show", COUNTS).stdout.splitlines()
    program = load_object(COUNTS).program()
    assert lines[0] == f"socket_filter  name proto_counts  tag {program.tag}  gpl"
    assert lines[1] == f"\txlated {8 * len(program)}B  maps counts"


def test_show_lists_all_programs_of_an_object() -> None:
    shown = json.loads(call("prog", "show", CHAIN, "--json").stdout)
    assert [one["name"] for one in shown] == list(load_object(CHAIN).programs)
    assert all(one["type"] == "socket_filter" and one["gpl_compatible"] for one in shown)
    assert call("prog", "show", CHAIN, "--program", "parse_ip").stdout.count("socket_filter") == 1


def test_dump_assembles_to_the_same_bytes() -> None:
    for path in OBJECTS:
        for name, program in load_object(str(path)).programs.items():
            for extra in ([], ["--opcodes"]):
                text = call("prog", "dump", str(path), "--program", name, *extra).stdout
                maps = {spec.name: spec for spec in program.maps.values()}
                again = assemble("\n".join(text.splitlines()[1:]), maps=maps)
                assert again.to_bytes() == program.to_bytes()


def test_dis_of_an_object_says_everything() -> None:
    for path in OBJECTS:
        for name, program in load_object(str(path)).programs.items():
            again = assemble(call("dis", str(path), "--program", name).stdout)
            assert again.to_bytes() == program.to_bytes()
            assert {spec.name for spec in again.maps.values()} == {spec.name for spec in program.maps.values()}
    assert call("dis", CHAIN).stdout.count(".name ") == 5


def test_dis_carries_the_contents_of_data_sections() -> None:
    filled = 0
    for path in [*OBJECTS, Path("tests/objfile/src/globals.o")]:
        for program in load_object(str(path)).programs.values():
            again = assemble(disassemble(program, labels=True))
            assert again.to_bytes() == program.to_bytes()
            for slot, spec in program.maps.items():
                read = again.maps[slot]
                initial = getattr(spec, "initial", None)
                assert (getattr(read, "initial", None) or bytes(len(initial or b""))) == (initial or b"")
                assert getattr(read, "frozen", False) == getattr(spec, "frozen", False)
                filled += any(initial or b"")
    assert filled


def test_dis_names_functions() -> None:
    text = call("dis", "tests/objfile/src/calls.o", "--program", "first").stdout
    assert "    call unused_by_second\n" in text
    assert "\nunused_by_second:\n" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prog", "show", "filters/tcp-port-80.bpf"], "is a classic filter"),
        (["prog", "show", COUNTS, "--program", "x"], "no program 'x'; there are proto_counts"),
        (["prog", "dump", "missing.o"], "no such file"),
        (["prog", "dump", COUNTS, "--kernel", "--xlated"], "--kernel shows both"),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str) -> None:
    done = call(*arguments)
    assert done.exit_code in (1, 2)
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


@pytest.mark.kernel
def test_the_kernels_calls_of_functions_and_per_cpu_addresses_are_worded() -> None:
    try:
        syscall.available()
    except KernelUnavailable as error:
        pytest.skip(str(error))
    path = "tests/objfile/src/calls.o"
    for name in load_object(path).programs:
        text = call("prog", "dump", path, "--program", name, "--xlated").stdout
        assert ".insn 0x85" not in text
    text = call("prog", "dump", path, "--program", "first", "--xlated").stdout
    assert re.search(r"\(85\) call pc\+\d+#unused_by_second$", text, re.MULTILINE)


def test_a_per_cpu_address_is_worded_as_the_kernel_does() -> None:
    raw = bytes.fromhex("bf00ffff00000000 9500000000000000")
    text = disassemble(Program.from_bytes(raw))
    assert text.startswith("r0 = &(void __percpu *)(r0)\n")
    assert assemble(text).to_bytes() == raw


@pytest.mark.kernel
def test_the_kernel_beside_ours() -> None:
    try:
        syscall.available()
    except KernelUnavailable as error:
        pytest.skip(str(error))
    shown = json.loads(call("prog", "show", COUNTS, "--json", "--kernel").stdout)[0]
    assert shown["kernel"]["tag"] == shown["tag"]
    assert shown["kernel"]["bytes_xlated"] >= shown["bytes_xlated"]
    both = json.loads(call("prog", "dump", COUNTS, "--json", "--kernel").stdout)[0]
    assert both["insns"][0] == both["xlated"][0]
    assert any("map[id:" in line["disasm"] for line in both["xlated"])
    side = call("prog", "dump", COUNTS, "--kernel").stdout
    assert " | " in side


@pytest.mark.kernel
def test_bytes_with_this_kernels_numbers_of_its_functions(tmp_path: Path) -> None:
    if not Path("/sys/kernel/btf/vmlinux").exists():
        pytest.skip("this kernel has no BTF")
    text, raw = tmp_path / "loop.ebpf", tmp_path / "loop.bin"
    text.write_text(
        "r1 = r10\nr1 += -8\nr2 = 0\nr3 = 5\ncall bpf_iter_num_new\nr1 = r10\nr1 += -8\n"
        "call bpf_iter_num_destroy\nr0 = 0\nexit\n"
    )
    made = CliRunner().invoke(cli, ["asm", str(text), "-o", str(raw)])
    assert made.exit_code == 0, made.output
    assert "the numbers of the running kernel" in made.stderr
    assert raw.read_bytes()[4 * 8 + 4 : 5 * 8] != bytes(4)
    judged = CliRunner().invoke(cli, ["verify", str(raw)])
    assert judged.exit_code == 0, judged.output
    assert judged.stdout.startswith("accepted: 10 instructions")
