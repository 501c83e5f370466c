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
