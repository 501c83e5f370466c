"""The compiled core is never stale: its cache is keyed by all sources; where nothing can be written it goes without."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core.caching import IndexDataCacheFile

import pktbpf
from pktbpf import hot

PACKAGE = Path(pktbpf.__file__).parent
# `ret #K` and a load of the metadata column `mark`, whose place is a row in abi/context.py.
SCRIPT = """
import pktbpf
print(pktbpf.Filter("ld mark / ret a").run(b"abcd", mark=5, queue_mapping=6))
"""


def run(directory: Path, **environment: str) -> str:
    """The verdict of SCRIPT with the package in `directory`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PKTBPF_", "NUMBA_"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, cwd=directory,
        env={**kept, "PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A directory with a copy of the package in it."""
    shutil.copytree(PACKAGE, tmp_path / "pktbpf", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_the_cache_is_used_and_never_stale(copy: Path) -> None:
    """A second process finds the machine code; an edited row in a table, which the compiled core only sees as numbers,
    makes a new one."""
    cache = copy / "cache"
    assert run(copy, PKTBPF_CACHE_DIR=str(cache)) == "5"
    compiled = {path: path.stat().st_mtime_ns for path in cache.rglob("*.nbc")}
    assert compiled
    assert run(copy, PKTBPF_CACHE_DIR=str(cache)) == "5"
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.nbc")} == compiled
    table = copy / "pktbpf" / "abi" / "context.py"
    row, edited = '("mark", 8, 4, _R, 32, "mark")', '("mark", 8, 4, _R, 32, "queue_mapping")'
    assert row in table.read_text()
    table.write_text(table.read_text().replace(row, edited))
    assert run(copy, PKTBPF_CACHE_DIR=str(cache)) == "6"
    assert len(list(cache.iterdir())) == 2


def test_no_home_and_nothing_writable(copy: Path) -> None:
    """A cache directory that cannot be made: below a file, which not even root can write into."""
    blocked = copy / "blocked"
    blocked.write_text("")
    assert run(copy, HOME=str(blocked), XDG_CACHE_HOME=str(blocked / "cache")) == "5"


def _twice(value: int) -> int:
    return value * 2


def test_a_full_disk_costs_the_cache_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What numba writes does not fit: the function runs; once there is room, it is kept."""
    monkeypatch.setattr(hot, "cache_directory", lambda: tmp_path)

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(IndexDataCacheFile, "_save_data", full)
        assert hot.hot(_twice)(21) == 42
    assert not list(tmp_path.rglob("*.nbc"))
    assert hot.hot(_twice)(21) == 42
    assert len(list(tmp_path.rglob("*.nbc"))) == 1


@pytest.mark.parametrize("kind", ["*.nbc", "*.nbi"])
def test_a_damaged_cache_is_passed_over(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot, "cache_directory", lambda: tmp_path)
    assert hot.hot(_twice)(21) == 42
    for path in tmp_path.rglob(kind):
        path.write_bytes(b"")
    assert hot.hot(_twice)(4) == 8


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_home(copy: Path) -> None:
    home = copy / "home"
    home.mkdir()
    home.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert run(copy, HOME=str(home), XDG_CACHE_HOME=str(home / "cache")) == "5"


def test_the_digest_sees_every_source(copy: Path) -> None:
    root = copy / "pktbpf"
    before = hot.source_digest(root)
    assert before == hot.source_digest(root)
    (root / "isa" / "fields.py").write_text((root / "isa" / "fields.py").read_text() + "\n")
    assert hot.source_digest(root) != before


def test_without_compiler_the_same_verdict(copy: Path) -> None:
    assert run(copy, NUMBA_DISABLE_JIT="1") == "5"
