"""How long does verification take, here and in the live kernel? Straight code, branches, loops, and a used-up budget.

    python bench/verifier.py [--rounds 3]

The kernel's time is what its log says at level 4 (root, or the rows of the kernel are left out).
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import time
from collections.abc import Callable

from common import HERE, interleaved, save

from pktbpf.errors import ProgramRefused
from pktbpf.isa.extended import Insn
from pktbpf.program import Program
from pktbpf.verifier import verify

EXIT = (Insn(0xB7), Insn(0x95))


def straight(count: int) -> tuple[Insn, ...]:
    """`count` instructions of arithmetic."""
    return (*(Insn(0x07, 0, 0, 0, i) if i else Insn(0xB7) for i in range(count - 1)), EXIT[1])


def branches(count: int) -> tuple[Insn, ...]:
    """A load and a test of it, `count` times: paths that join again."""
    pair = (Insn(0x61, 7, 1, 0, 0), Insn(0x25, 7, 0, 1, 9), Insn(0xB7, 8, 0, 0, 1))
    return (*pair * count, *EXIT)


def loop(rounds: int) -> tuple[Insn, ...]:
    """A counted loop of three instructions."""
    body = (Insn(0xB7, 8, 0, 0, 0), Insn(0x07, 8, 0, 0, 1), Insn(0xBF, 2, 8, 0, 0), Insn(0xA5, 8, 0, -3, rounds))
    return (*body, *EXIT)


PROGRAMS = {
    "straight, 4096": straight(4096),
    "branches, 3000": branches(1000),
    "loop, 30000 processed": loop(10_000),
    "budget, 1000000 processed": loop(1 << 30),
}


def ours(insns: tuple[Insn, ...]) -> float:
    """Seconds of verify, refused or not."""
    start = time.perf_counter()
    with contextlib.suppress(ProgramRefused):
        verify(Program(insns))
    return time.perf_counter() - start


def kernels(insns: tuple[Insn, ...]) -> float:
    """Seconds that the kernel's verifier took, by its own log."""
    sys.path.insert(0, str(HERE.parent / "tests" / "verifier"))
    from verifier_oracle import load

    _, log = load(b"".join(insn.encode() for insn in insns), level=4)
    found = re.search(r"verification time (\d+) usec", log)
    return int(found[1]) / 1e6 if found else float("nan")


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    subjects: dict[str, Callable[[], float]] = {}
    for name, insns in PROGRAMS.items():
        subjects[f"pktbpf: {name}"] = lambda insns=insns: ours(insns)  # type: ignore[misc]
        subjects[f"kernel: {name}"] = lambda insns=insns: kernels(insns)  # type: ignore[misc]
    taken = interleaved(subjects, arguments.rounds)
    sizes = {name: len(insns) for name, insns in PROGRAMS.items()}
    save("verifier", {"slots": sizes}, taken, "s", "kernel: straight, 4096")


if __name__ == "__main__":
    main()
