"""`pktbpf compile-c` through the command line: the object, the note about it, and the errors of one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pktbpf.cli import cli
from pktbpf.objfile import load_object

SOURCE = "filters/ebpf/proto_counts.c"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["compile-c", *arguments])


def test_the_command_that_would_run() -> None:
    shown = run(SOURCE, "-o", "out.o", "-D", "N=1", "--cpu", "v2", "--clang", "clang-99", "--show-command")
    assert shown.exit_code == 0
    words = shown.stdout.split()
    assert words[0] == "clang-99"
    assert {"-DN=1", "-mcpu=v2", SOURCE} <= set(words)
    assert not Path("out.o").exists()


def test_errors_are_one_line(tmp_path: Path) -> None:
    missing = run(str(tmp_path / "none.c"), "-o", str(tmp_path / "none.o"))
    assert missing.exit_code == 1
    assert missing.stderr.startswith("pktbpf: ")
    assert missing.stderr.count("\n") == 1
    assert run(SOURCE, "--clang", "no-such-clang", "-o", str(tmp_path / "x.o")).exit_code == 1
    assert run(SOURCE, "--cpu", "v99").exit_code == 2


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")
def test_an_object_and_the_note_about_it(tmp_path: Path) -> None:
    target = tmp_path / "out.o"
    done = run(SOURCE, "-o", str(target))
    assert done.exit_code == 0, done.stderr
    assert done.stdout == ""
    found = load_object(target)
    assert found.programs
    note = done.stderr.splitlines()[-1]
    assert note.startswith(f"pktbpf: note: {target}: programs ")
    assert all(name in note for name in (*found.programs, *found.maps))


def fake(path: Path, body: str) -> str:
    """A compiler that is a few lines of shell."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("echo \"a.c:3:1: error: use of 'x'\" >&2; echo \"a.c:9:1: error: use of 'y'\" >&2; exit 1",
         "pktbpf: a.c:3:1: error: use of 'x' (and 1 more)"),
        ("echo \"a.c:1:10: fatal error: 'n.h' file not found\" >&2; exit 1",
         "pktbpf: a.c:1:10: fatal error: 'n.h' file not found; name the directory of the header with -I DIR"),
        ("echo \"error: unknown target CPU 'v3'\" >&2; exit 1",
         "pktbpf: error: unknown target CPU 'v3'; this clang is too old for --cpu v3: take a newer clang"),
        ("exit 3", "pktbpf: CLANG ended with 3 and no error for filters/ebpf/proto_counts.c"),
        ("exit 0", "pktbpf: CLANG wrote no OUT; is it clang?"),
    ],
)  # fmt: skip
def test_the_last_line_is_the_first_error(body: str, said: str, tmp_path: Path) -> None:
    clang, out = fake(tmp_path / "clang", body), str(tmp_path / "out.o")
    done = run(SOURCE, "-o", out, "--clang", clang)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == said.replace("CLANG", clang).replace("OUT", out)
    assert "" not in done.stderr.splitlines()


def test_a_missing_compiler_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tmp_path / "notes.txt"
    plain.write_text("x")
    assert "is no program that can be run" in run(SOURCE, "-o", "x.o", "--clang", str(plain)).stderr
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run(SOURCE, "-o", str(tmp_path / "x.o"))
    assert done.exit_code == 1
    assert done.stderr == (
        "pktbpf: clang is not installed; install the package clang (10 or newer), or name one with --clang PATH\n"
    )
