"""Writes the table of the README's speed section from bench/results/*.json."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
SECTION = re.compile(r"(<!-- bench: begin -->\n).*?(<!-- bench: end -->)", re.DOTALL)
TITLES = {
    "end_to_end": "Read and filter a capture of {packets:,} packets, {bytes:.0f} MB, `{filter}`",
    "hot_loop": "The filter alone, same packets and program, `{filter}`",
    "maps": "Maps: a capture of {packets:,} packets counted by protocol, {flows:,} flows in a hash table",
    "memory": "Peak memory of a replay",
    "startup": "Start-up, whole process",
    "verifier": "The verifier, ratio to the live kernel's own for the same program and steps",
}


def section() -> str:
    """Everything between the two marks."""
    lines: list[str] = []
    machines: dict[str, list[str]] = {}
    for question, title in TITLES.items():
        path = HERE / "results" / f"{question}.json"
        if not path.exists():
            continue
        result = json.loads(path.read_text())
        machines.setdefault(described(result["machine"]), []).append(question)
        facts = {**result, "bytes": result.get("bytes", 0) / 1e6}
        lines += ["", f"| {title.format(**facts)} | {result['unit']} | ratio |", "|---|---:|---:|"]
        lines += [f"| {name} | {number(row['median'])} | {row['ratio']:.2f} |" for name, row in result["rows"].items()]
    for where, questions in machines.items():
        of = "" if len(machines) == 1 else f" ({', '.join(questions)})"
        lines += ["", f"Medians of interleaved rounds{of} on {where}."]
    return "\n".join(lines) + "\n\n"


def described(machine: dict[str, Any]) -> str:
    """One machine in words; its kernel's build apart, which does not decide figures."""
    where = f"{machine['cpus']} cores of {machine['cpu']}, Linux {machine['kernel'].partition('-')[0]}"
    return f"{where}, Python {machine['python']}, numba {machine['versions']['numba']}"


def number(value: float) -> str:
    """Three digits, grouped."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def main() -> None:
    """Put the section into the README."""
    text = README.read_text()
    README.write_text(SECTION.sub(lambda match: match.group(1) + section() + match.group(2), text))


if __name__ == "__main__":
    main()
