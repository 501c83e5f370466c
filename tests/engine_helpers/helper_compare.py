"""Random programs on both sides, seed by seed: `python helper_compare.py CPU FIRST LAST ENGINE [kernel]`.

Compared are kept lengths through SO_ATTACH_BPF, return values of BPF_PROG_TEST_RUN, and what all maps hold at the end.
The live kernel's BPF_PROG_LOAD decides which programs count. With `verifier` for an ENGINE its word is compared with
our verifier's instead.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script, for `workers`

from helper_generate import Generator
from helper_lab import Ours, Spec, possible_cpus
from helper_live import Live, Shelf
from kernel_generate import KernelGenerator
from workers import work

from pktbpf.errors import ProgramRefused
from pktbpf.filter import verify
from pktbpf.kernel import syscall
from pktbpf.kernel.perf_events import unpadded

ANSWERS = ("kept lengths", "return value of the first run", "return value of the second run", "contents")


def observe(side: Any, packets: list[bytes]) -> tuple[Any, ...]:
    """Everything that is compared between two sides."""
    answers = side.run(packets), side.once(packets[0] + bytes(40)), side.once(packets[1]), side.contents()
    side.close()
    return answers


def difference(
    seed: int, engine: str, cpu: int, shelf: Shelf, generator: type[Generator] = Generator
) -> str | None:  # fmt: skip
    """What differs between the kernel and an engine, "" for nothing, None where the kernel refuses the program."""
    source = generator(seed)
    programs, specs = source.case()
    try:
        live = Live(programs, specs, shelf)
    except syscall.LoadRefused:
        return None
    packets = source.packets()
    want = observe(live, packets)
    got = observe(Ours(programs, specs, cpu, engine, possible_cpus()), packets)
    trim(want[3], got[3], specs)
    return "; ".join(told(name, a, b) for name, a, b in zip(ANSWERS, want, got, strict=True) if a != b)


def admission(seed: int, cpu: int, shelf: Shelf, generator: type[Generator] = Generator) -> str | None:
    """What the verifiers disagree about, "" for nothing, None where the kernel's fails by itself (EFAULT)."""
    programs, specs = generator(seed).case()
    kernel = 0
    try:
        Live(programs, specs, shelf).close()
    except syscall.LoadRefused as refused:
        kernel = refused.errno or 0
    if kernel == errno.EFAULT:
        return None
    try:
        for program in Ours(programs, specs, cpu).programs.values():
            verify(program)
    except ProgramRefused as refusal:
        return "" if kernel == refusal.errno else f"kernel errno {kernel}, pktbpf {refusal}"
    return f"kernel errno {kernel}, pktbpf accepts" if kernel else ""


def trim(want: dict[str, Any], got: dict[str, Any], specs: Mapping[str, Spec]) -> None:
    """Take perf's padding off the kernel's events where their size is that of ours."""
    for name, spec in specs.items():
        if spec.kind == "PERF_EVENT_ARRAY" and len(want[name]) == len(got[name]):
            pairs = zip(want[name], got[name], strict=True)
            want[name] = [(cpu, unpadded(data, len(ours))) for (cpu, data), (_, ours) in pairs]


def told(name: str, want: Any, got: Any) -> str:
    """One difference in words; of contents only the maps that differ."""
    if isinstance(want, dict):
        parts = [f"map {key}: kernel {want[key]}, pktbpf {got[key]}" for key in want if want[key] != got[key]]
        return "; ".join(parts)
    return f"{name}: kernel {want}, pktbpf {got}"


if __name__ == "__main__":
    shelves = Shelf()
    kind = KernelGenerator if sys.argv[5:] == ["kernel"] else Generator
    if sys.argv[4] == "verifier":
        work(lambda seed, cpu: admission(seed, cpu, shelves, kind))
    else:
        work(lambda seed, cpu: difference(seed, sys.argv[4], cpu, shelves, kind))
