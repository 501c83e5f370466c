"""The ways to start the command line, and what it does where the caller closed a standard stream."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pktbpf.cli import command_names

FILTER = "filters/tcp-port-80.bpf"
PKTBPF = f"{sys.executable} -m pktbpf"


def start(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "pktbpf", *arguments], input=data, capture_output=True, timeout=60)


def test_the_package_runs_as_a_module() -> None:
    done = start("asm", "-", "--to", "line", data=b"ret #7")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"1,6 0 0 7\n", b"")
    shown = start("--help")
    assert shown.stdout.startswith(b"Usage: pktbpf ")
    assert all(f"  {name} ".encode() in shown.stdout for name in command_names())


def test_the_module_keeps_the_exit_codes() -> None:
    refused = start("translate", "ld M[0] / ret a")
    assert refused.returncode == 3
    assert refused.stderr.startswith(b"pktbpf: instruction 0: ")
    assert start("nothing-like-it").returncode == 2


@pytest.mark.parametrize(
    "line",
    [f"dis {FILTER} >&-", f"asm {FILTER} --to raw >&-", "dis - <&-", f"dis {FILTER} >/dev/full"],
)
def test_a_stream_that_cannot_be_used_is_one_line(line: str) -> None:
    done = subprocess.run(f"{PKTBPF} {line}", shell=True, capture_output=True, timeout=60, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("pktbpf: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("line", "name"), [(f"dis {FILTER} >&-", "output"), ("asm - <&-", "input")])
def test_a_closed_stream_is_named(line: str, name: str) -> None:
    done = subprocess.run(f"{PKTBPF} {line}", shell=True, capture_output=True, timeout=60, text=True)
    assert (done.returncode, done.stderr) == (1, f"pktbpf: standard {name} is closed\n")


def test_closed_standard_output_does_no_harm_to_files(tmp_path: Path) -> None:
    """Without a stand-in the file would get the number 1, and what is printed would end up in it."""
    target = tmp_path / "out.bin"
    done = subprocess.run(f"{PKTBPF} asm {FILTER} -o {target} >&-", shell=True, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert target.stat().st_size == 16 * 8


@pytest.mark.parametrize("line", [["translate", FILTER, "-o", "-"], ["dis", FILTER, "--to", "raw"]])
def test_raw_bytes_do_not_go_to_a_terminal(line: list[str]) -> None:
    terminal, other = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pktbpf", *line], stdout=other, stderr=subprocess.PIPE, timeout=60
        )
    finally:
        os.close(terminal)
        os.close(other)
    assert done.returncode == 2
    assert done.stderr.startswith(b"pktbpf: raw bytes do not go to a terminal")


def test_choices_are_all_that_there_is() -> None:
    """Written out in the commands, so that `--help` imports no more than it needs."""
    from pktbpf import engine
    from pktbpf.cli import parity, replay
    from pktbpf.engine.base import PROFILES
    from pktbpf.kernel import rigs
    from pktbpf.replayer.session import POLICIES

    assert parity.RIGS == rigs.NAMES
    assert set(rigs.NAMES) == set(PROFILES) == set(replay.PROFILES)
    assert replay.ENGINES == parity.ENGINES == engine.NAMES
    assert replay.POLICIES == POLICIES
