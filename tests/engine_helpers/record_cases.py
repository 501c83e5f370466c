"""Record what the live kernel answers to random programs: `python tests/engine_helpers/record_cases.py`, as root.

Writes tests/cases/helpers/random.json: for each seed of helper_generate the kept lengths, two return values and a
digest of the maps' contents, with the facts of the machine that helpers report.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from helper_generate import Generator
from helper_lab import Live, environment, one_processor, possible_cpus

from pktbpf.kernel import syscall

CASES = Path(__file__).parents[1] / "cases" / "helpers" / "random.json"
SEEDS = range(20_000, 20_400)


def summary(answers: tuple[Any, ...]) -> list[Any]:
    """Kept lengths, return values, digest of the contents."""
    kept, first, second, contents = answers
    digest = hashlib.sha256(repr(sorted(contents.items())).encode()).hexdigest()[:16]
    return [kept, first[0], second[0], digest]


def observe(side: Any, packets: list[bytes]) -> tuple[Any, ...]:
    """Everything that is compared between two sides."""
    answers = side.run(packets), side.once(packets[0] + bytes(40)), side.once(packets[1]), side.contents()
    side.close()
    return answers


def main() -> None:
    """Ask the kernel and write the file."""
    found: dict[str, list[Any]] = {}
    with one_processor() as cpu:
        for seed in SEEDS:
            source = Generator(seed)
            programs, specs = source.case()
            try:
                live = Live(programs, specs)
            except syscall.LoadRefused:
                continue
            found[str(seed)] = summary(observe(live, source.packets()))
        facts = {"cpu": cpu, "cpus": possible_cpus(), "netns_cookie": environment(cpu).netns_cookie}
    lines = ",\n".join(f'"{seed}": {json.dumps(answer)}' for seed, answer in found.items())
    CASES.write_text(f'{{"machine": {json.dumps(facts)},\n"programs": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    main()
