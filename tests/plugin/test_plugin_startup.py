"""A project that does not use the plugin pays almost nothing for having it installed."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("numpy", "numba", "hypothesis", "yaml", "scapy", "dpkt", "click", "rich", "msgspec")
ALLOWED = 0.020  # seconds
CONFTEST = """
import json, sys
def pytest_unconfigure(config):
    names = sorted(m for m in sys.modules if m.split(".")[0] == "pktbpf" or m in {heavy!r})
    open("modules.json", "w").write(json.dumps(names))
"""


@pytest.fixture
def bystander(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (tmp_path / "test_plain.py").write_text("def test_nothing():\n    assert 1\n")
    (tmp_path / "conftest.py").write_text(CONFTEST.format(heavy=HEAVY))
    return tmp_path


def collect(project: Path, *arguments: str) -> float:
    """CPU seconds of `pytest --collect-only`, user and system, which other load on the machine changes little."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=project, env=environment, capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_loading_imports_nothing_heavy(bystander: Path) -> None:
    collect(bystander, "-p", "pktbpf.pytest_plugin")
    assert json.loads((bystander / "modules.json").read_text()) == ["pktbpf", "pktbpf.pytest_plugin"]


def test_loading_costs_less_than_20_ms(bystander: Path) -> None:
    collect(bystander, "-p", "pktbpf.pytest_plugin")
    pairs = [(collect(bystander), collect(bystander, "-p", "pktbpf.pytest_plugin")) for _ in range(9)]
    cost = statistics.median(loaded - bare for bare, loaded in pairs)
    assert cost < ALLOWED, f"{1000 * cost:.1f} ms, from {pairs}"
