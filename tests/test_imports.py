"""Start-up stays light: what must not be imported for commands that need no engine, and the public names."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import pktbpf

HEAVY = ("numba", "llvmlite", "scapy", "pyarrow", "dpkt", "rich")
PROBE = """
import json, sys
sys.argv[0] = "pktbpf"
from pktbpf.cli import main
try:
    main()
finally:
    print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})), file=sys.stderr)
"""
LIGHT_COMMANDS = {
    "help": ["--help"],
    "replay help": ["replay", "--help"],
    "asm": ["asm", "-"],
    "dis": ["dis", "filters/tcp-port-80.bpf"],
    "compile": ["compile", "tcp port 80", "-d"],
    "translate": ["translate", "filters/tcp-port-80.bpf"],
}


@pytest.mark.parametrize("arguments", LIGHT_COMMANDS.values(), ids=LIGHT_COMMANDS)
def test_light_commands_import_nothing_heavy(arguments: list[str], root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], input=b"ret #0\n", capture_output=True, timeout=60, cwd=root
    )
    assert done.returncode == 0, done.stderr.decode()
    modules = json.loads(done.stderr.decode().splitlines()[-1])
    assert "pktbpf" in modules
    assert not set(HEAVY) & set(modules)


def test_importing_the_package_costs_nothing() -> None:
    names = "sorted(m for m in sys.modules if m.split('.')[0] in ('numpy', 'pktbpf', 'click'))"
    code = f"import sys, pktbpf; print({names})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ast.literal_eval(done.stdout) == ["pktbpf"]


def test_all_names_the_public_interface() -> None:
    """`__all__`, the lazy table and what type checkers see agree, and every name is there."""
    tree = ast.parse(Path(pktbpf.__file__).read_text())
    typed = {
        alias.name: str(node.module).removeprefix("pktbpf.")
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == pktbpf._HOME
    assert list(pktbpf.__all__) == sorted(typed)
    for name in pktbpf.__all__:
        assert getattr(pktbpf, name) is getattr(importlib.import_module(f"pktbpf.{typed[name]}"), name)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = pktbpf.nothing_like_it


@pytest.mark.parametrize("name", pktbpf.__all__)
def test_public_names_are_documented(name: str) -> None:
    assert inspect.getdoc(getattr(pktbpf, name))


def test_every_command_has_a_test(root: Path) -> None:
    """Each command's name stands as an argument in a test that runs the command line."""
    sources = [path.read_text() for path in (root / "tests").rglob("test_*.py") if path != Path(__file__)]
    running = "\n".join(text for text in sources if "pktbpf.cli" in text)
    commands = [path.stem.replace("_", "-") for path in (root / "pktbpf" / "cli").glob("[!_]*.py")]
    untested = [name for name in commands if f'["{name}"' not in running and f'"{name}",' not in running]
    assert not untested
