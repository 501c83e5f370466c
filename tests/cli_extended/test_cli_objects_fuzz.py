"""Mutated objects and bytecode through the commands: a result or one line of error, never a traceback, never for ever.

2,000 in every run, 20,000 with `-m long`. `case(seed)` makes the same bytes again.
"""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from click.testing import CliRunner

from pktbpf.cli import cli
from pktbpf.isa.extended import ROWS
from pktbpf.objfile import load_object

OBJECTS = sorted(Path("filters/ebpf").glob("*.o"))
CODES = sorted({row.code for row in ROWS})
CAPTURE = "pcaps/arp.pcap"
REPLAY = ["replay", CAPTURE, "-q", "--filter"]
COMMANDS = (["dis"], ["dis"], ["prog", "show"], ["prog", "dump"], ["asm"], ["verify"], REPLAY)


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


def case(seed: int) -> tuple[bytes, list[str]]:
    """File contents and command."""
    chance = random.Random(seed)
    command = list(chance.choice(COMMANDS))
    kind = chance.randrange(3)
    if kind == 0:
        return damaged(chance.choice(OBJECTS).read_bytes(), chance), command
    if kind == 1:
        return bytecode(chance), command
    program = chance.choice(list(load_object(str(chance.choice(OBJECTS))).programs.values()))
    return damaged(program.to_bytes(), chance)[: 8 * 400] + b"\x95" + bytes(7), command


def check(seed: int, directory: Path) -> None:
    data, command = case(seed)
    path = directory / ("x.o" if data[:4] == b"\x7fELF" else "x.bin")
    path.write_bytes(data)
    done = CliRunner().invoke(cli, [*command, str(path)])
    about = f"seed {seed}: {' '.join(command)}\n{done.stderr}"
    assert done.exception is None or isinstance(done.exception, SystemExit), about
    assert done.exit_code in (0, 1, 2, 3), about
    errors = [line for line in done.stderr.splitlines() if line.startswith("pktbpf: ") and ": note: " not in line]
    # verify says its refusal on standard output
    assert len(errors) == (done.exit_code != 0 and not (command == ["verify"] and done.exit_code == 3)), about
    assert "Traceback" not in done.output, about


@pytest.mark.parametrize("part", range(4))
def test_two_thousand_damaged_programs(part: int, tmp_path: Path) -> None:
    for seed in range(part * 500, part * 500 + 500):
        check(seed, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("part", range(20))
def test_twenty_thousand_damaged_programs(part: int, tmp_path: Path) -> None:
    for seed in range(100_000 + part * 1000, 100_000 + part * 1000 + 1000):
        check(seed, tmp_path)
