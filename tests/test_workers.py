"""Comparisons shared among processes: what one of them says reaches the test, and none stays behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import workers
from workers import share

# Says who it is; then the process of the first seed fails, or all sleep.
SCRIPT = """
import os, pathlib, sys, time
(pathlib.Path(__file__).parent / f"pid-{os.getpid()}").touch()
if sys.argv[4] == "fail" and sys.argv[2] == "5":
    sys.exit("no such seed")
time.sleep(600 if sys.argv[4] == "sleep" else 0)
print('{"compared": 2, "difference": ""}')
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path / "script.py"


def alive(script: Path) -> list[str]:
    """Processes of the script that are still there."""
    pids = [path.name.removeprefix("pid-") for path in script.parent.glob("pid-*")]
    return [pid for pid in pids if Path("/proc", pid).exists()]


def test_what_is_not_done_in_time_is_ended_and_named(script: Path) -> None:
    with pytest.raises(AssertionError, match=r"(?s)script.py 0 5 7 sleep\nnot done.*script.py 1 7 9 sleep\nnot done"):
        share(script, range(5, 9), "sleep", seconds=0.5)
    assert not alive(script)


def test_what_fails_is_named(script: Path) -> None:
    with pytest.raises(AssertionError, match=r"script.py 0 5 7 fail\nno such seed\n$"):
        share(script, range(5, 9), "fail")
    assert share(script, range(6, 10), "fail") == 4


def test_an_interrupted_test_leaves_no_process(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        while not alive(script):
            pass
        raise KeyboardInterrupt

    monkeypatch.setattr(workers, "_answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        share(script, range(5, 9), "sleep")
    assert not alive(script)
