"""Record what the live kernel answers to random programs: `python tests/engine_helpers/record_cases.py`, as root.

Writes tests/cases/helpers/random.json: for each seed of helper_generate the kept lengths, two return values and a
digest of the maps' contents, with the facts of the machine that helpers report.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from helper_compare import observe, trim
from helper_generate import Generator
from helper_lab import Ours, environment, one_processor, possible_cpus
from helper_live import Live, Shelf

from pktbpf.kernel import syscall

CASES = Path(__file__).parents[1] / "cases" / "helpers" / "random.json"
SEEDS = range(20_000, 20_400)


def summary(answers: tuple[Any, ...]) -> list[Any]:
    """Kept lengths, return values, digest of the contents."""
    kept, first, second, contents = answers
    digest = hashlib.sha256(repr(sorted(contents.items())).encode()).hexdigest()[:16]
    return [kept, first[0], second[0], digest]


def main() -> None:
    """Ask the kernel and write the file."""
    found: dict[str, list[Any]] = {}
    shelf = Shelf()
    with one_processor() as cpu:
        for seed in SEEDS:
            source = Generator(seed)
            programs, specs = source.case()
            try:
                live = Live(programs, specs, shelf)
            except syscall.LoadRefused:
                continue
            packets = source.packets()
            answers = observe(live, packets)
            ours = observe(Ours(programs, specs, cpu, cpus=possible_cpus()), packets)
            trim(answers[3], ours[3], specs)
            found[str(seed)] = summary(answers)
        facts = {"cpu": cpu, "cpus": possible_cpus(), "netns_cookie": environment(cpu).netns_cookie}
    lines = ",\n".join(f'"{seed}": {json.dumps(answer)}' for seed, answer in found.items())
    CASES.write_text(f'{{"machine": {json.dumps(facts)},\n"programs": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    main()
