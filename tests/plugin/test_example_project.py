"""A stranger's repository: tests/example_project run by plain pytest, under xdist, with golden update, and broken."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "example_project"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path / "office"))


def pytest_in(project: Path, *arguments: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    """Run pytest as somebody in that folder would; nothing of this repository's configuration reaches it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COLUMNS"))}
    return subprocess.run(
        [python, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=project, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def outcome(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Counts of the last line: {"passed": 18}."""
    last = done.stdout.strip().splitlines()[-1]
    return {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", last)}


def test_the_installed_package_brings_the_plugin() -> None:
    from importlib.metadata import entry_points

    assert "pktbpf.pytest_plugin" in {point.value for point in entry_points(group="pytest11")}


def test_plain_run_with_coverage(project: Path) -> None:
    done = pytest_in(project, "--pktbpf-cov", "--pktbpf-cov-report", "json:cov.json")
    assert done.returncode == 0, done.stdout
    assert set(outcome(done)) <= {"passed", "skipped"}
    assert outcome(done)["passed"] >= 17
    found = {one["name"]: one for one in json.loads((project / "cov.json").read_text())["programs"]}
    assert set(found) == {"filters/http.bpf", "filters/dns.pcap-filter", "filters/protocols.bpf"}
    assert found["filters/http.bpf"]["percent"] == 100
    assert not list(project.rglob("*.tmp"))


def test_workers_merge_coverage_and_write_golden_files(project: Path) -> None:
    """Two workers: golden files come out as committed, counts are those of one process."""
    golden = sorted((project / "tests" / "golden").iterdir())
    committed = {path.name: path.read_text() for path in golden}
    for path in golden:
        path.unlink()
    selected = ("tests/test_http.py", "filters", "-k", "not kernel")
    options = ("--pktbpf-cov", "--pktbpf-update", "--pktbpf-cov-report")
    done = pytest_in(project, *selected, *options, "json:two.json", "-n", "2", "--pktbpf-cov-data", "two")
    assert done.returncode == 0, done.stdout
    assert "2 workers" in done.stdout
    for path in (project / "tests" / "golden").iterdir():
        assert path.read_text() == committed[path.name]
    pytest_in(project, *selected, *options, "json:one.json", "--pktbpf-cov-data", "one")
    two, one = (json.loads((project / name).read_text()) for name in ("two.json", "one.json"))
    assert sorted(two["programs"], key=str) == sorted(one["programs"], key=str)


def test_a_broken_filter_fails_and_says_where(project: Path) -> None:
    path = project / "filters" / "http.bpf"
    path.write_text(path.read_text().replace("jeq #80, keep", "jeq #81, keep"))
    done = pytest_in(project, "tests/test_http.py", "filters/http.bpftest.yaml")
    assert done.returncode == 1
    text = done.stdout
    assert "E       packet of 54 bytes:" in text
    assert re.search(r"E +tcp +srcport 80, dstport 50000", text)
    decided = "instruction 10 (jeq #0x50 jt 11 jf 12): tcp.dstport = 50000, not 80"
    assert f"decided by {decided}" in text
    assert f"assert <rejected by {decided}>" in text
    # the golden file lists the packets that changed
    assert "27 of 210 verdicts of filters/http.bpf over pcaps/web.pcap changed" in text
    assert "packet 26: was accept, 74 bytes kept, is reject" in text
    assert "rejected because tcp.srcport = 80, not 81, tcp.dstport = 35128, not 80" in text
    # and so does the test without Python
    assert "packet of 124 bytes: expected to keep 96 bytes, kept 0" in text
    assert outcome(done)["failed"] >= 4


@pytest.mark.long
def test_a_fresh_environment(project: Path, tmp_path: Path) -> None:
    """The wheel installed where nothing of this checkout is; its modules pass through pytest's assertion rewriting."""
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, timeout=300)
    (wheel,) = tmp_path.glob("pktbpf-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert any(name.endswith("entry_points.txt") for name in archive.namelist())
    home = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", home], check=True, timeout=300)
    python = str(home / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", f"{wheel}[pytest]", "pytest-xdist"], check=True, timeout=900)
    done = pytest_in(project, python=python)
    assert done.returncode == 0, done.stdout
    again = pytest_in(project, "-n", "2", "--pktbpf-cov", python=python)
    assert again.returncode == 0, again.stdout
