"""The compiled core is never stale: its cache is keyed by all sources; where nothing can be written it goes without.

Arrays of compiled code that own nothing show the memory they are told, compiled or not.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core.caching import IndexDataCacheFile
from numba.core.errors import TypingError

import pktbpf
from pktbpf import hot

PACKAGE = Path(pktbpf.__file__).parent
# `ret #K` and a load of the metadata column `mark`, whose place is a row in abi/context.py.
SCRIPT = """
import pktbpf
print(pktbpf.Filter("ld mark / ret a").run(b"abcd", mark=5, queue_mapping=6))
"""
# A row and a few words of a table, shown by arrays that own nothing; both are written through.
VIEWS = """
import numpy as np
from pktbpf.hot import JIT_DISABLED, borrowed, words_at
table = np.arange(12, dtype=np.uint64).reshape(3, 4)
row, words = borrowed(table, np.uint64(1)), words_at(table.ctypes.data + 40, 3)
before = row.tolist(), words.tolist(), row.dtype == words.dtype == table.dtype
row[3], words[0] = 70, 50
print(JIT_DISABLED, *before, table[1].tolist())
"""


def run(directory: Path, script: str = SCRIPT, **environment: str) -> str:
    """What a script prints, SCRIPT a verdict, with the package in `directory`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PKTBPF_", "NUMBA_"))}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=directory,
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


def test_without_compiler_the_same_views(copy: Path) -> None:
    shown = "[4, 5, 6, 7] [5, 6, 7] True [4, 50, 6, 70]"
    assert run(copy, VIEWS, NUMBA_DISABLE_JIT="1") == f"True {shown}"


compiled = pytest.mark.skipif(hot.JIT_DISABLED, reason="nothing is compiled")


@numba.njit
def row_of(table, number):  # type: ignore[no-untyped-def]
    return hot.borrowed(table, number)


@numba.njit
def words_of(address, count):  # type: ignore[no-untyped-def]
    return hot.words_at(address, count)


@compiled
@pytest.mark.parametrize("kind", [np.uint64, np.int64, np.uint8])
def test_a_borrowed_row_is_the_tables_and_owns_nothing(kind: type) -> None:
    table = np.arange(12, dtype=kind).reshape(3, 4)
    for number in (0, 2, np.uint64(1)):
        row = row_of(table, number)
        assert (row.dtype, row.shape, row.strides) == (table.dtype, (4,), (table.itemsize,))
        assert row.ctypes.data == table[int(number)].ctypes.data
        assert row.base is None
        assert not row.flags.owndata
        row[3] = 70
        assert table[int(number)].tolist() == [4 * number, 4 * number + 1, 4 * number + 2, 70]


@compiled
@pytest.mark.parametrize(
    "table",
    [np.asfortranarray(np.zeros((3, 4))), np.zeros((6, 4))[::2], np.zeros((3, 8))[:, ::2], np.zeros(4),
     np.zeros((2, 3, 4)), (1, 2)],
    ids=["fortran", "every other row", "every other column", "one dimension", "three dimensions", "tuple"],
)  # fmt: skip
def test_a_row_of_what_is_no_table_in_c_order_is_not_compiled(table: object) -> None:
    with pytest.raises(TypingError):
        row_of(table, 1)


@compiled
def test_words_at_an_address_are_those_in_memory() -> None:
    memory = np.arange(6, dtype=np.uint64)
    words = words_of(np.uint64(memory.ctypes.data + 8), 4)
    assert (words.dtype, words.tolist(), words.base, words.flags.owndata) == (memory.dtype, [1, 2, 3, 4], None, False)
    words[0] = 70
    assert memory.tolist() == [0, 70, 2, 3, 4, 5]
