"""The README says what is so: its commands run and print what stands there, its Python session is a doctest.

`PKTBPF_UPDATE_README=1 pytest tests/test_readme.py` writes the present output of the commands into it.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text()
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
MAIN = "from pktbpf.cli import main; main()"
# What differs from run to run: how long it took.
TIMING = re.compile(r"^rate .*$", re.MULTILINE)


def commands(block: str) -> list[tuple[str, str]]:
    """(command, output that the block shows) in order."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def output_of(command: str) -> str:
    """Standard output, then standard error."""
    words = shlex.split(command)
    assert words[0] == "pktbpf"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PKTBPF_") or k == "PKTBPF_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *words[1:]], capture_output=True, text=True, timeout=120, cwd=README.parent,
        env=environment,
    )  # fmt: skip
    return done.stdout.expandtabs() + done.stderr


def test_the_two_command_lines_stand_as_promised() -> None:
    lines = [line.strip() for line in TEXT.splitlines()]
    assert [line for line in lines if line.startswith("pip install")] == [
        "pip install . && pktbpf replay pcaps/web.pcap --filter filters/tcp-port-80.bpf",
        "pip install -e '.[test]' && pytest",
    ]


def test_the_tests_without_python_pass(tmp_path: Path) -> None:
    """As the README puts them beside the filter, and the golden file that it names."""
    root = README.parent
    for name in ("filters/tcp-port-80.bpf", "pcaps/web.pcap"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes((root / name).read_bytes())
    (block,) = (found for found in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL) if found.startswith("tests:"))
    (tmp_path / "filters" / "tcp-port-80.bpftest.yaml").write_text(block)
    (call,) = re.findall(r"`(pktbpf_golden\(.*?\))`", TEXT)
    (tmp_path / "test_golden.py").write_text(f"def test_golden(pktbpf_golden):\n    {call}\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    for options, said in ((["--pktbpf-update"], "4 passed"), ([], "4 passed")):
        done = subprocess.run([*words, *options], capture_output=True, text=True, timeout=300, cwd=tmp_path)
        assert said in done.stdout, done.stdout
    assert (tmp_path / "golden" / "tcp-port-80.bpf--web.pcap.txt").is_file()


@pytest.mark.parametrize("block", BLOCK.findall(TEXT), ids=lambda block: block.split("\n")[0][:60])
def test_commands_print_what_the_readme_shows(block: str) -> None:
    for command, shown in commands(block):
        got = output_of(command)
        if os.environ.get("PKTBPF_UPDATE_README"):
            entry = f"$ {command}\n"
            README.write_text(README.read_text().replace(entry + shown, entry + got))
            continue
        assert TIMING.sub("rate", got) == TIMING.sub("rate", shown), command


def test_the_python_session() -> None:
    failed, tried = doctest.testfile(str(README), module_relative=False)
    assert tried > 5
    assert not failed


def test_the_layer_picture_is_the_one_that_is_checked() -> None:
    import test_layers

    picture = TEXT.split("do not import each other (`tests/test_layers.py`):\n\n```\n")[1].split("```")[0]
    there = {test_layers.module_name(path).split(".")[0] for path in test_layers.MODULES}
    checked = [" | ".join(name for name in line if name in there) for line in test_layers.LAYERS]
    assert picture.splitlines() == [line for line in checked if line]
