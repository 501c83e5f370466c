"""Writes the README's table of what changed between kernel versions from the rows of the verifier's table."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

from pktbpf.verifier.rules import ordered, words

README = Path(__file__).parent.parent / "README.md"
SECTION = re.compile(r"(<!-- versions: begin -->\n).*?(<!-- versions: end -->)", re.DOTALL)


def section() -> str:
    """Everything between the two marks: one line for each version that brought something."""
    lines = ["", "| since | rules of the verifier (and the older series whose last release has them) |", "|---|---|"]
    for since, rows in groupby(ordered(), key=lambda row: row.since):
        named = [words(row) + (f" ({', '.join(row.kept)})" if row.kept else "") for row in rows]
        lines.append(f"| {since} | {', '.join(named)} |")
    return "\n".join(lines) + "\n\n"


def main() -> None:
    """Put the section into the README."""
    text = README.read_text()
    README.write_text(SECTION.sub(lambda match: match.group(1) + section() + match.group(2), text))


if __name__ == "__main__":
    main()
