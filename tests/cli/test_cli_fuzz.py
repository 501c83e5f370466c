"""Mutated captures and filter files: one line of error and a proper exit code, never a traceback.

Hundreds in every run, 20,000 with `-m long`. A failing case prints its seed; `case(seed)` makes the same bytes again.
"""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest
from click.testing import CliRunner

from pktbpf.cli import cli

CAPTURES = sorted(p for p in Path("pcaps").glob("*.pcap*"))
FILTERS = sorted(p for p in Path("filters").glob("*.*") if p.suffix != ".md")
EXPRESSIONS = ("tcp port 80", "ip or arp", "len > 60", "ether[0] & 1 != 0", "ip6 protochain 6")
PROFILES = ("packet", "packet", "packet-dgram", "udp", "raw-ip", "unix")
FORMATS = (["-q"], [], ["--format", "json"], ["--format", "jsonl"], ["--format", "csv"], ["--print"])
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x20, 0x23, 0x5B)


def mutate(data: bytes, chance: random.Random) -> bytes:
    """A few of the damages that files suffer."""
    raw = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(raw)) if raw else 0
        if chance.random() < 0.3:
            at = min(at, chance.randrange(1, 200))  # headers are at the front
        match chance.randrange(7):
            case 0:
                del raw[at:]
            case 1:
                raw[at : at + 1] = bytes([chance.choice(INTERESTING)])
            case 2:
                raw[at : at + 4] = chance.randbytes(4)
            case 3:
                raw[at:at] = chance.randbytes(chance.randrange(1, 40))
            case 4:
                del raw[at : at + chance.randrange(1, 40)]
            case 5:
                other = chance.randrange(len(raw)) if raw else 0
                raw[at:at] = raw[other : other + chance.randrange(1, 200)]
            case _:
                raw[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\xff\xff\xff\x7f", b"\0\0\0\0"))
    return bytes(raw)


def case(seed: int, directory: Path) -> list[str]:
    """The arguments of one run; files it needs are written into `directory`."""
    chance = random.Random(seed)
    capture, program = chance.choice(CAPTURES), chance.choice(FILTERS)
    capture_path, filter_path = directory / f"c{capture.suffix}", directory / f"f{program.suffix}"
    damaged_filter = chance.random() < 0.5
    data = capture.read_bytes()
    if not damaged_filter:
        data = gzip.compress(data, 1) if chance.random() < 0.1 else data
        data = mutate(data, chance)
    capture_path.write_bytes(data)
    filter_path.write_bytes(mutate(program.read_bytes(), chance) if damaged_filter else program.read_bytes())
    chosen = str(filter_path) if damaged_filter or chance.random() < 0.7 else chance.choice(EXPRESSIONS)
    # Names of hosts that a mutation makes up would be looked up in the network.
    if damaged_filter and program.suffix == ".pcap-filter":
        chosen = chance.choice(EXPRESSIONS)[: chance.randrange(1, 12)] + " ("
    arguments = ["replay", str(capture_path), "--filter", chosen, "--attach", chance.choice(PROFILES)]
    arguments += chance.choice(FORMATS)
    if chance.random() < 0.2:
        arguments += ["-w", str(directory / chance.choice(("o.pcap", "o.pcapng", "o.pcap.gz")))]
    if chance.random() < 0.1:
        arguments += ["--indeterminate", chance.choice(("accept", "error")), "--strip-vlan"]
    return arguments


def check(seed: int, directory: Path) -> None:
    arguments = case(seed, directory)
    done = CliRunner().invoke(cli, arguments)
    about = f"seed {seed}: {' '.join(arguments)}\n{done.stderr}"
    assert done.exception is None or isinstance(done.exception, SystemExit), about
    assert done.exit_code in (0, 1, 2, 3), about
    errors = [line for line in done.stderr.splitlines() if line.startswith("pktbpf: ")]
    assert len(errors) == (done.exit_code != 0), about
    assert "Traceback" not in done.stderr, about


@pytest.mark.parametrize("part", range(6))
def test_damaged_files_give_one_line(part: int, tmp_path: Path) -> None:
    for seed in range(part * 80, part * 80 + 80):
        check(seed, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("part", range(20))
def test_twenty_thousand_damaged_files(part: int, tmp_path: Path) -> None:
    for seed in range(10_000 + part * 1000, 10_000 + part * 1000 + 1000):
        check(seed, tmp_path)
