"""Mutated objects, bytecode and listings through the commands: a result or one line of error, never a traceback, never
for ever.

2,000 in every run, PKTBPF_HOSTILE_FILES (20,000) with `-m long`, on every processor. `case(seed)` makes the same bytes
again; run as a script this looks at the seeds FIRST to LAST.
"""

from __future__ import annotations

import os
import random
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script, for `workers`

from workers import share, work

from pktbpf.asm.extended_text import disassemble
from pktbpf.cli import cli
from pktbpf.isa.extended import ROWS
from pktbpf.objfile import Object, load_object

ROOT = Path(__file__).parents[2]
OBJECTS = sorted((ROOT / "filters" / "ebpf").glob("*.o")) + sorted((ROOT / "tests" / "objfile" / "src").glob("*.o"))
PROGRAMS = [path for path in OBJECTS if path.stem in ("calls", "globals", "names") or path.parent.name == "ebpf"]
CODES = sorted({row.code for row in ROWS})
CAPTURE = str(ROOT / "pcaps" / "arp.pcap")
REPLAY = ["replay", CAPTURE, "-q", "--filter"]
COMMANDS = (
    ["dis"], ["dis"], ["prog", "show"], ["prog", "dump"], ["asm"], ["verify"], ["verify", "--unprivileged"], REPLAY,
    ["trace", CAPTURE, "-n", "2", "--filter"], ["why", CAPTURE, "-n", "2", "--filter"],
)  # fmt: skip
QUICK, LONG = 2000, int(os.environ.get("PKTBPF_HOSTILE_FILES", "20000"))


class Case(NamedTuple):
    """One run. name: of the file. hexadecimal: `pktbpf conformance` reads the bytes as such."""

    command: list[str]
    name: str
    data: bytes
    hexadecimal: bool = False


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The damages that files suffer, and headers that lie."""
    raw = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 12))):
        at = chance.randrange(max(len(raw), 1))
        match chance.randrange(6):
            case 0:
                raw[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                raw[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\xff\xff\xff\x7f", bytes(4)))
            case 2:
                del raw[at : at + chance.randrange(1, 40)]
            case 3:
                raw[at:at] = chance.randbytes(chance.randrange(1, 24))
            case 4:
                raw[at : at + 8] = raw[8 * chance.randrange(len(raw) // 8 + 1) :][:8]
            case _:
                if chance.random() < 0.2:
                    del raw[at:]
    return bytes(raw)


def bytecode(chance: random.Random) -> bytes:
    """Instructions whose fields are mostly plausible, ending in exit."""
    out = []
    for _ in range(chance.randrange(1, 24)):
        code = chance.choice(CODES) if chance.random() < 0.95 else chance.randrange(256)
        off, imm = (chance.choice((0, 1, 2, -1, -8, 16, chance.randrange(-32768, 32768))) for _ in range(2))
        regs = chance.randrange(11) | chance.choice((0, 1, 2, chance.randrange(16))) << 4
        out.append(struct.pack("<BBhi", code, regs, off, imm))
    return b"".join(out) + b"\x95" + bytes(7)


def text_of(chance: random.Random) -> bytes:
    """The listing of a program with characters and lines damaged."""
    lines = disassemble(_program(chance)).splitlines()
    for _ in range(chance.choice((1, 1, 3))):
        at = chance.randrange(len(lines))
        if chance.random() < 0.3:
            lines[at] = chance.choice(lines)
        else:
            lines[at] = damaged(lines[at].encode(), chance).decode(errors="replace")
    return "\n".join(lines).encode()


def _program(chance: random.Random) -> Any:
    found = load_object(str(chance.choice(PROGRAMS)))
    assert isinstance(found, Object)
    return chance.choice(list(found.programs.values()))


def case(seed: int) -> Case:
    """What one seed stands for."""
    chance = random.Random(seed)
    command = list(chance.choice(COMMANDS))
    kind = chance.randrange(8)
    if kind < 3:
        return Case(command, "x.o", damaged(chance.choice(OBJECTS).read_bytes(), chance))
    if kind == 3:
        return Case(command, "x.ebpf", text_of(chance))
    raw = bytecode(chance) if kind < 6 else damaged(_program(chance).to_bytes(), chance)[: 8 * 400] + b"\x95" + bytes(7)
    if chance.random() < 0.1:
        return Case(["conformance", "--engine", chance.choice(("interpreter", "reference"))], "", raw, True)
    return Case(command, "x.bin", raw)


def difference(seed: int, directory: Path) -> str:
    """What is wrong with the answer, "" for nothing."""
    one = case(seed)
    if one.hexadecimal:
        done = CliRunner().invoke(cli, one.command, input=one.data.hex(" "))
    else:
        path = directory / one.name
        path.write_bytes(one.data)
        done = CliRunner().invoke(cli, [*one.command, str(path)])
    about = f"{' '.join(one.command)}: exit code {done.exit_code}, {done.exception!r}, {done.stderr[-300:]}"
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return about
    if done.exit_code not in (0, 1, 2, 3) or "Traceback" in done.output:
        return about
    errors = [line for line in done.stderr.splitlines() if line.startswith("pktbpf: ") and ": note: " not in line]
    # verify says its refusal on standard output
    wanted = done.exit_code != 0 and not (one.command[0] == "verify" and done.exit_code == 3)
    return about if len(errors) != wanted else ""


@pytest.mark.parametrize("part", range(4))
def test_two_thousand_damaged_programs(part: int, tmp_path: Path) -> None:
    for seed in range(part * QUICK // 4, (part + 1) * QUICK // 4):
        assert not difference(seed, tmp_path), f"seed {seed}"


@pytest.mark.long
def test_twenty_thousand_damaged_programs() -> None:
    assert share(Path(__file__), range(100_000, 100_000 + LONG)) == LONG


if __name__ == "__main__":
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as place:
        work(lambda seed, _: difference(seed, Path(place)))
