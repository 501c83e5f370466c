"""How long does verification take, here and in the live kernel, for the same programs?

    python bench/verifier.py [--rounds 5]

Ours is processor time; the kernel's is what its log says at level 4, so this needs root. Both sides walk the same
paths: the numbers of processed instructions are compared. The programs: straight code, packet filters, branches, loops,
spills, a used-up budget, and every program of filters/ebpf.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import statistics
import time

from common import HERE, RESULTS, machine

from pktbpf import load
from pktbpf.errors import ProgramRefused
from pktbpf.isa.extended import Insn
from pktbpf.kernel.loading import Loaded
from pktbpf.objfile import Object
from pktbpf.program import Program
from pktbpf.verifier import verify

EXIT = (Insn(0xB7), Insn(0x95))
FILTERS = HERE.parent / "filters" / "ebpf"


def straight(count: int) -> tuple[Insn, ...]:
    """`count` instructions of arithmetic."""
    return (*(Insn(0x07, 0, 0, 0, i) if i else Insn(0xB7) for i in range(count - 1)), EXIT[1])


def packet_filter(count: int) -> tuple[Insn, ...]:
    """A filter of `count` instructions: a packet load and a test of it, over and over, to one reject."""
    head = (Insn(0xBF, 6, 1),)
    pairs = (count - 5) // 2
    tests = []
    for number in range(pairs):
        tests += [Insn(0x30, 0, 0, 0, number % 200), Insn(0x15, 0, 0, 2 * (pairs - number) - 2 + 2, number % 256)]
    return (*head, *tests, Insn(0xB7, 0, 0, 0, -1), EXIT[1], *EXIT)


def branches(count: int) -> tuple[Insn, ...]:
    """A load and a test of it, `count` times: paths that join again."""
    pair = (Insn(0x61, 7, 1, 0, 0), Insn(0x25, 7, 0, 1, 9), Insn(0xB7, 8, 0, 0, 1))
    return (*pair * count, *EXIT)


def loop(rounds: int) -> tuple[Insn, ...]:
    """A counted loop of three instructions."""
    body = (Insn(0xB7, 8, 0, 0, 0), Insn(0x07, 8, 0, 0, 1), Insn(0xBF, 2, 8, 0, 0), Insn(0xA5, 8, 0, -3, rounds))
    return (*body, *EXIT)


def stack(count: int) -> tuple[Insn, ...]:
    """Spills and fills, `count` times."""
    pair = (Insn(0x61, 7, 1, 0, 0), Insn(0x7B, 10, 7, -8), Insn(0x79, 8, 10, -8), Insn(0x0F, 8, 7))
    return (*pair * count, *EXIT)


def programs() -> dict[str, Program]:
    """All programs by name."""
    found = {
        "straight code, 4,096 instructions": Program(straight(4096)),
        "packet filter, 4,096 instructions": Program(packet_filter(4096)),
        "paths that join, 3,000 instructions": Program(branches(1000)),
        "spills and fills, 4,000 instructions": Program(stack(1000)),
        "loop, 30,000 steps": Program(loop(10_000)),
        "loop without end, 1,000,000 steps": Program(loop(1 << 30)),
    }
    for path in sorted(FILTERS.glob("*.o")):
        loaded = load(path)
        if isinstance(loaded, Object):
            found |= {f"{path.stem}.o, {name}" if name != path.stem else f"{path.stem}.o": program
                      for name, program in loaded.programs.items()}  # fmt: skip
    return found


def ours(program: Program) -> tuple[float, int]:
    """(seconds of the processor, processed instructions) of verify, refused or not."""
    begun = time.process_time()
    with contextlib.suppress(ProgramRefused):
        verify(program)
    taken = time.process_time() - begun
    try:
        log = verify(program, log_level=4).log
    except ProgramRefused as refused:
        log = refused.log
    return taken, _processed(log)


def kernels(loaded: Loaded, program: Program) -> tuple[float, int]:
    """The same of the live kernel, by its own log."""
    _, log = loaded.log(program, 4)
    found = re.search(r"verification time (\d+) usec", log)
    assert found is not None, log[-200:]
    return int(found[1]) / 1e6, _processed(log)


def _processed(log: str) -> int:
    found = re.search(r"processed (\d+) insns", log)
    return int(found[1]) if found is not None else -1


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    rows = {}
    verify(Program(straight(100)))
    for name, program in programs().items():
        loaded = Loaded()
        mine, its = [], []
        for _ in range(1 if "without end" in name else rounds):
            taken, processed = ours(program)
            kernel, steps = kernels(loaded, program)
            assert processed == steps, f"{name}: {processed} steps here, {steps} in the kernel"
            mine.append(taken * 1e3)
            its.append(kernel * 1e3)
        loaded.close()
        median, kernel = statistics.median(mine), statistics.median(its)
        rows[name] = {"median": median, "kernel": kernel, "ratio": median / kernel, "values": mine, "kernels": its}
        times = f"{median:>10.2f} ms   kernel {kernel:>8.3f} ms {median / kernel:>7.1f} x"
        print(f"{name:<40} {processed:>9,} steps {times}")
    RESULTS.mkdir(exist_ok=True)
    result = {"question": "verifier", "unit": "ms", "rows": rows, "machine": machine()}
    (RESULTS / "verifier.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
