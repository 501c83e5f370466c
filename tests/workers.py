"""Long comparisons on every processor: a script of the tests as one process per processor, each with its seeds.

The test calls `share`; the script calls `work` with a function that looks at one seed. A process stays on its
processor, stops at its first difference and says which seed that was.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def share(script: Path, seeds: range, *arguments: str) -> int:
    """How many seeds were compared in all processes; AssertionError with the report of each that found a difference."""
    cpus = sorted(os.sched_getaffinity(0))
    size = -(-len(seeds) // len(cpus))
    running = []
    for number, cpu in enumerate(cpus):
        part = seeds[number * size : (number + 1) * size]
        command = [sys.executable, str(script), str(cpu), str(part.start), str(part.stop), *arguments]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    answers = [process.communicate() for process in running]
    problems = []
    compared = 0
    for (out, err), process in zip(answers, running, strict=True):
        if process.returncode:
            problems.append(f"{' '.join(map(str, process.args))}\n{err}")  # type: ignore[arg-type]
            continue
        answer = json.loads(out.splitlines()[-1])
        compared += answer["compared"]
        problems += [answer["difference"]] if answer["difference"] else []
    assert not problems, "\n".join(problems)
    return compared


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
