"""What does one packet cost in the filter alone? libpcap's C bpf_filter against the interpreter, packets in memory.

    python bench/hot_loop.py [--rounds 7]

The same packets of the generated capture, the same program (libpcap's, optimised), best of 5 passes per round; once
with packets that stay in the L2 cache, as they do while a capture is replayed, and once with many more.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Callable

from common import FILTER, capture, compiled, interleaved, save

PASSES = 5
SETS = {"in cache": 2_000, "in memory": 200_000}


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    path = str(capture(2_000_000, 700_000_000))
    binary = str(compiled("hot_loop"))
    subjects: dict[str, Callable[[], float]] = {}
    accepted: dict[str, int] = {}
    for where, count in SETS.items():
        subjects[f"bpf_filter (C), {where}"] = c_loop(binary, path, count, accepted)
        subjects[f"interpreter, {where}"] = interpreter(path, count, accepted)
    taken = interleaved(subjects, arguments.rounds)
    for count in SETS.values():
        assert accepted[f"C {count}"] == accepted[f"pktbpf {count}"], accepted
    save("hot_loop", {"filter": FILTER, "sets": SETS}, taken, "ns/packet", "bpf_filter (C), in cache")


def c_loop(binary: str, path: str, most: int, accepted: dict[str, int]) -> Callable[[], float]:
    """One run of the C program."""

    def run() -> float:
        command = [binary, path, FILTER, str(most), str(PASSES)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        count, matched, taken = done.stdout.split()
        accepted[f"C {most}"] = int(matched)
        return 1e9 * float(taken) / int(count)

    return run


def interpreter(path: str, most: int, accepted: dict[str, int]) -> Callable[[], float]:
    """The runner over one batch that holds all packets."""
    import numpy as np

    import pktbpf
    from pktbpf import engine
    from pktbpf.capture.batch import batch_of
    from pktbpf.engine.base import Env, profile
    from pktbpf.engine.skb import view

    packets: list[bytes] = []
    with pktbpf.open_capture(path) as capture:
        for batch in capture:
            packets += [batch.packet(row) for row in range(min(len(batch), most - len(packets)))]
            if len(packets) == most:
                break
    whole = batch_of(packets)
    runner = engine.get("interpreter").prepare(pktbpf.verify(pktbpf.compile(FILTER)), Env())

    def run() -> float:
        best = float("inf")
        with view(whole, profile("packet"), Env(), meta=False) as skbs:
            for _ in range(PASSES):
                begun = time.perf_counter()
                outcome = runner.run(skbs)
                best = min(best, time.perf_counter() - begun)
        accepted[f"pktbpf {most}"] = int(np.count_nonzero(outcome.verdict))
        return 1e9 * best / most

    return run


if __name__ == "__main__":
    main()
