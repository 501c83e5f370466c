"""`pktbpf compile`, `asm` and `dis` as a user calls them."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import pktbpf
from pktbpf.asm import listing
from pktbpf.asm.classic_text import assemble
from pktbpf.cli import cli

TEXT = "ldh [12]\njneq #0x800, drop\nret #-1\ndrop: ret #0\n"
RAW = assemble(TEXT).to_bytes()


def run(*args: str, stdin: bytes | str = b"") -> Result:
    return CliRunner().invoke(cli, list(args), input=stdin)


@pytest.mark.parametrize(("flag", "form"), [("-d", "to_d"), ("-dd", "to_dd"), ("-ddd", "to_ddd")])
def test_compile_forms(flag: str, form: str) -> None:
    result = run("compile", "tcp port 80", flag)
    assert result.exit_code == 0
    assert result.stdout == getattr(listing, form)(pktbpf.compile("tcp port 80"))


def test_compile_options(tmp_path: Path) -> None:
    assert run("compile", "tcp", "port", "80").stdout == run("compile", "tcp port 80").stdout
    assert run("compile", "-y", "RAW", "udp").stdout == listing.to_d(pktbpf.compile("udp", "RAW"))
    assert run("compile", "-O", "udp").stdout == listing.to_d(pktbpf.compile("udp", optimize=False))
    assert run("compile", "-s", "96", "udp").stdout == listing.to_d(pktbpf.compile("udp", snaplen=96))
    assert run("compile", "--netmask", "24", "ip broadcast").stdout == listing.to_d(
        pktbpf.compile("ip broadcast", netmask=24)
    )
    assert run("compile").stdout == "(000) ret      #262144\n"
    path = tmp_path / "expression"
    path.write_text("udp # comment\n and port 53\n")
    assert run("compile", "-F", str(path)).stdout == run("compile", "udp and port 53").stdout
    assert run("compile", "-F", "-", stdin="udp and port 53").stdout == run("compile", "udp and port 53").stdout
    output = tmp_path / "out.bin"
    assert run("compile", "udp", "--to", "raw", "-o", str(output)).stdout == ""
    assert output.read_bytes() == pktbpf.compile("udp").to_bytes()


def test_asm_forms(tmp_path: Path) -> None:
    path = tmp_path / "f.bpf"
    path.write_text(TEXT)
    assert run("asm", str(path)).stdout == listing.to_dd(assemble(TEXT))
    assert run("asm", str(path), "--to", "line").stdout == listing.to_xt_bpf(assemble(TEXT))
    assert run("asm", "-", "--to", "raw", stdin=TEXT).stdout_bytes == RAW
    assert run("asm", TEXT, "-ddd").stdout == listing.to_ddd(assemble(TEXT))
    output = tmp_path / "f.bin"
    assert run("asm", str(path), "-o", str(output)).stdout == ""
    assert output.read_bytes() == RAW
    hexadecimal = run("asm", str(path), "--to", "hex").stdout
    assert bytes.fromhex(hexadecimal) == RAW
    assert run("dis", "-", "--to", "raw", stdin=hexadecimal).stdout_bytes == RAW


def test_dis_forms(tmp_path: Path) -> None:
    path = tmp_path / "f.bin"
    path.write_bytes(RAW)
    text = run("dis", str(path)).stdout
    assert assemble(text).to_bytes() == RAW
    assert run("dis", "-d", str(path)).stdout == listing.to_d(assemble(TEXT))
    assert run("dis", "-", stdin=RAW).stdout == text
    for form in ("asm", "d", "dd", "ddd", "line", "c", "hex", "raw"):
        printed = run("dis", str(path), "--to", form).stdout_bytes
        assert run("asm", "-", "--to", "raw", stdin=printed).stdout_bytes == RAW


def test_extended_programs(tmp_path: Path) -> None:
    text = "r0 = 1\nexit\n"
    raw = run("asm", "-", "--to", "raw", stdin=text).stdout_bytes
    assert raw.hex() == "b7000000010000009500000000000000"
    again = run("dis", "-", stdin=raw).stdout
    assert run("asm", "-", "--to", "raw", stdin=again).stdout_bytes == raw
    refused = run("dis", "-d", "-", stdin=raw)
    assert refused.exit_code == 2
    assert "no form 'd'" in refused.stderr


def test_one_of_several_arrays() -> None:
    source = "struct sock_filter a[] = {{6,0,0,1}}; struct sock_filter b[] = {{6,0,0,2}};"
    assert run("dis", "--program", "b", source).stdout.split() == ["ret", "#2"]
    assert run("dis", source).exit_code == 1


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["compile", "tcp prt"], 1, "pktbpf: can't parse filter expression: syntax error\n"),
        (["asm", "nosuch.bpf"], 1, "pktbpf: nosuch.bpf: no such file\n"),
        (["asm", "ret #"], 1, "pktbpf: filter:1:6: expected a number or the name of an extension, found the end"),
        (["compile", "tcp", "-F", "x"], 2, "pktbpf: an expression and -F FILE contradict each other\n"),
        (["compile", "-dd", "--to", "asm", "tcp"], 2, "pktbpf: -dd and --to asm contradict each other\n"),
        (["compile", "-F", "filters/none.bpf"], 1, "pktbpf: filters/none.bpf: no such file\n"),
        (["compile", "-y", "nosuch", "tcp"], 1, "pktbpf: unknown link type 'nosuch'"),
        (["compile", "-s", "-5", "tcp"], 2, "pktbpf: "),
        (["dis", "tcp", "--form", "foo"], 2, "pktbpf: unknown filter form 'foo'"),
        (["dis", "tcp", "-o", "filters/none/x"], 1, "pktbpf: filters/none/x: No such file or directory\n"),
        (["asm"], 2, "pktbpf: "),
    ],
)
def test_errors_are_one_line(args: list[str], code: int, message: str) -> None:
    result = run(*args)
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_no_bytes_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from pktbpf.cli import main; main()", "asm", "ret #0", "--to", "raw"]
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 2
    assert b"raw bytes do not go to a terminal" in done.stderr
