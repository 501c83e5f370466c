"""`pktbpf conformance` as the bpf_conformance runner calls it: bytes with two blanks between, empty options, --elf."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conformance_cases import cases

from pktbpf.asm.extended_text import assemble
from pktbpf.cli import cli

SUM = assemble("r0 = *(u8 *)(r1 +1)\nr0 <<= 40\nr0 += r2\nexit")


def hexed(raw: bytes) -> str:
    """As the runner writes bytes."""
    return "".join(f"{byte:02x}  " for byte in raw)


def call(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(cli, ["conformance", *arguments], input=stdin)


@pytest.mark.parametrize("engine", ["interpreter", "reference"])
def test_r0_in_hex_with_all_its_bits(engine: str) -> None:
    done = call(hexed(b"\xaa\xbb\xcc"), "--engine", engine, stdin=hexed(SUM.to_bytes()) + "\n")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "bb0000000003\n", "")


def test_without_memory_and_with_the_runners_empty_option() -> None:
    program = hexed(assemble("r0 = r2\nexit").to_bytes())
    assert call("", "", stdin=program).stdout == "0\n"
    assert call(stdin=program).stdout == "0\n"
    assert call("--program", program, "aabb").stdout == "2\n"


def test_debug_lists_the_program_beside_the_result() -> None:
    done = call("--debug", "--engine", "reference", "00 11", stdin=hexed(SUM.to_bytes()))
    assert done.stdout == "110000000002\n"
    assert "r0 = *(u8 *)(r1 +1)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "message"),
    [
        ((), "95 00", 2, "a program of 2 bytes is not a whole number of 8-byte instructions"),
        ((), "", 2, "a program of 0 bytes"),
        ((), "zz", 2, "the program is not pairs of hexadecimal digits"),
        (("xyz",), "95", 2, "MEMORY is not pairs"),
        (("00", "11"), "95", 2, "unexpected argument"),
        (("--elf",), hexed(SUM.to_bytes()), 1, "not an ELF object"),
        (("00",), hexed(SUM.to_bytes()), 1, "the program was stopped: an access outside its memory"),
    ],
)
def test_errors_are_one_line(arguments: tuple[str, ...], stdin: str, code: int, message: str) -> None:
    done = call(*arguments, stdin=stdin)
    assert done.exit_code == code
    assert done.stdout == ""
    assert done.stderr.startswith("pktbpf: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


@pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")
@pytest.mark.parametrize("section", [".text", "xdp", "socket"])
def test_elf_of_any_section(section: str, tmp_path: Path) -> None:
    source = f' .section {section},"ax",@progbits\n .globl main\n .type main,@function\nmain:\n'
    source += " r0 = *(u8 *)(r1 + 1)\n r0 <<= 40\n r0 += r2\n exit\n.size main, .-main\n"
    (tmp_path / "x.s").write_text(source)
    target = tmp_path / "x.o"
    subprocess.run(["clang", "-target", "bpf", "-c", str(tmp_path / "x.s"), "-o", str(target)], check=True)
    done = call(hexed(b"\x01\x02"), "--elf", stdin=hexed(target.read_bytes()))
    assert (done.exit_code, done.stdout) == (0, "20000000002\n"), done.stderr


def test_a_case_of_every_file_through_the_command() -> None:
    seen = set()
    for case in cases():
        family = case.title.split(":")[0]
        if family in seen or case.result is None:
            continue
        seen.add(family)
        done = call(hexed(case.memory), "--engine", "reference", stdin=hexed(case.program.to_bytes()))
        assert int(done.stdout, 16) == case.result, case.title
    assert len(seen) >= 6
