"""Long comparisons on every processor: a script of the tests as one process per processor, each with its seeds.

The test calls `share`; the script calls `work` with a function that looks at one seed. A process stays on its
processor, stops at its first difference and says which seed that was. None outlives the test, however that ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

BASE, PER_SEED = 600.0, 1.0  # seconds: what a process may take, several times what it does on a loaded machine


def share(script: Path, seeds: range, *arguments: str, seconds: float | None = None) -> int:
    """How many seeds were compared in all processes; AssertionError with the report of each that found a difference,
    failed, or was not done in time. seconds: for the longest part, by default what its seeds allow for."""
    cpus = sorted(os.sched_getaffinity(0))
    size = -(-len(seeds) // len(cpus))
    deadline = time.monotonic() + (BASE + PER_SEED * size if seconds is None else seconds)
    running: list[subprocess.Popen[str]] = []
    try:
        for number, cpu in enumerate(cpus):
            part = seeds[number * size : (number + 1) * size]
            command = [sys.executable, str(script), str(cpu), str(part.start), str(part.stop), *arguments]
            running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        answers = [_answer(process, deadline) for process in running]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    problems = [difference for _, difference in answers if difference]
    assert not problems, "\n".join(problems)
    return sum(compared for compared, _ in answers)


def _answer(process: subprocess.Popen[str], deadline: float) -> tuple[int, str]:
    """(seeds compared, what is wrong). A message has the command line, and so the seeds: the first, and that behind
    the last."""
    command = " ".join(map(str, process.args))  # type: ignore[arg-type]
    try:
        out, err = process.communicate(timeout=max(deadline - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        return 0, f"{command}\nnot done in time"
    if process.returncode:
        return 0, f"{command}\n{err}"
    answer = json.loads(out.splitlines()[-1])
    return answer["compared"], answer["difference"]


def work(compare: Callable[[int, int], str | None]) -> None:
    """Look at the seeds that the command line names. compare: (seed, processor) -> what differs, "" for nothing, None
    for a seed that does not count."""
    cpu, first, last = map(int, sys.argv[1:4])
    os.sched_setaffinity(0, {cpu})
    compared, difference = 0, ""
    for seed in range(first, last):
        found = compare(seed, cpu)
        compared += found is not None
        if found:
            difference = f"seed {seed}: {found}"
            break
    print(json.dumps({"compared": compared, "difference": difference}))
