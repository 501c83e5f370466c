"""How much memory does a replay take, and does it grow with the capture?

    python bench/memory.py [--rounds 2]

Peak resident memory (ru_maxrss) of the whole process: for a small capture, for 2,000,000 packets, and for ten times
that, which is the same records fed ten times through a pipe.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from common import FILTER, HERE, capture, interleaved, pktbpf, save

FEED = """
import sys
path, times = sys.argv[1], int(sys.argv[2])
with open(path, "rb") as stream:
    sys.stdout.buffer.write(stream.read(24))
    for _ in range(times):
        stream.seek(24)
        while block := stream.read(1 << 20):
            sys.stdout.buffer.write(block)
"""


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    big = capture(2_000_000, 700_000_000)
    subjects: dict[str, Callable[[], float]] = {
        "210 packets (pcaps/web.pcap)": lambda: peak(HERE.parent / "pcaps" / "web.pcap", 0),
        "2,000,000 packets, 700 MB": lambda: peak(big, 0),
        "20,000,000 packets, 7 GB through a pipe": lambda: peak(big, 10),
    }
    taken = interleaved(subjects, arguments.rounds)
    save("memory", {"filter": FILTER}, taken, "MB", "2,000,000 packets, 700 MB")


def peak(path: Path, times: int) -> float:
    """Peak memory in MB of one replay; times: how often the records come through a pipe, 0 to read the file."""
    feeder = None
    if times:
        feeder = subprocess.Popen([sys.executable, "-c", FEED, str(path), str(times)], stdout=subprocess.PIPE)
    command = pktbpf("replay", "-" if feeder else str(path), "--filter", FILTER, "-q")
    child = subprocess.Popen(command, stdin=feeder.stdout if feeder else None)
    if feeder and feeder.stdout:
        feeder.stdout.close()
    _, status, usage = os.wait4(child.pid, 0)
    if feeder:
        feeder.wait()
    if status:
        raise SystemExit(f"the replay ended with status {status}")
    return usage.ru_maxrss / 1000


if __name__ == "__main__":
    main()
