"""A missing filter file: the report shows the test's own line and the error, not the plugin's frames."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_missing_file_shows_the_line_of_the_test(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(pktbpf_filter):\n    pktbpf_filter('gone/nowhere.o')\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "pktbpf_filter('gone/nowhere.o')" in done.stdout
    assert "gone/nowhere.o: no such file beside" in done.stdout
    assert "factory.py" not in done.stdout
    assert "pytest_plugin.py" not in done.stdout
