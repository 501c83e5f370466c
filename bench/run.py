"""Answer every question, one after the other, and renew the table in the README.

    python bench/run.py [QUESTION...]        about five minutes and 700 MB of scratch space ($PKTBPF_BENCH_DIR)
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

QUESTIONS = ("end_to_end", "hot_loop", "maps", "memory", "startup", "verifier")


def main() -> None:
    """Run the questions named, default all."""
    here = Path(__file__).parent
    for question in sys.argv[1:] or QUESTIONS:
        subprocess.run([sys.executable, str(here / f"{question}.py")], check=True)
    subprocess.run([sys.executable, str(here / "table.py")], check=True)


if __name__ == "__main__":
    main()
