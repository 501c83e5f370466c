"""How long until the first result? Whole processes: start-up alone, and replays of a small capture.

    python bench/startup.py [--rounds 5]

`first ever` has an empty cache directory, so it compiles the engine; `next` finds the machine code there.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable

from common import HERE, interleaved, pktbpf, save, seconds

ROOT = HERE.parent
SMALL = ("replay", str(ROOT / "pcaps" / "web.pcap"), "--filter", str(ROOT / "filters" / "tcp-port-80.bpf"))


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    subjects: dict[str, Callable[[], float]] = {
        "python -c pass": lambda: seconds([sys.executable, "-c", "pass"]),
        "import pktbpf": lambda: seconds([sys.executable, "-c", "import pktbpf"]),
        "pktbpf --help": lambda: seconds(pktbpf("--help")),
        "pktbpf compile": lambda: seconds(pktbpf("compile", "tcp port 80")),
        "pktbpf asm": lambda: seconds(pktbpf("asm", SMALL[-1])),
        "tcpdump -r pcaps/web.pcap": lambda: seconds(["tcpdump", "-nr", SMALL[1], "-w", "/dev/null", "tcp port 80"]),
        "pktbpf replay, next": lambda: seconds(pktbpf(*SMALL)),
    }
    taken = interleaved(subjects, arguments.rounds)
    taken["pktbpf replay, first ever"] = [first_ever() for _ in range(2)]
    save("startup", {"capture": "pcaps/web.pcap"}, taken, "s", "python -c pass")


def first_ever() -> float:
    """A replay with an empty cache directory."""
    with tempfile.TemporaryDirectory() as directory:
        os.environ["PKTBPF_CACHE_DIR"] = directory
        try:
            return seconds(pktbpf(*SMALL))
        finally:
            del os.environ["PKTBPF_CACHE_DIR"]


if __name__ == "__main__":
    main()
