"""Every file of tests/cases/classic on both engines and, where allowed, on the live kernel.

A case file has a program in the bpf_asm language, a kind of socket, and either packets with the bytes kept of each
(`HEX -> 5`, `-> drop`, `- -> accept 0` for an empty packet) or `refused: EINVAL at 3`. The first line says
why. Packets for `packet` and `packet-dgram` are Ethernet frames as they come in.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pktbpf import engine as engines
from pktbpf.capture.batch import batch_of
from pktbpf.engine.base import Env, profile
from pktbpf.engine.skb import view
from pktbpf.errors import KernelUnavailable, ProgramRefused
from pktbpf.filter import verify
from pktbpf.kernel.namespace import MAC
from pktbpf.kernel.rigs import open_rig
from pktbpf.loader import load
from pktbpf.program import ClassicProgram

FOLDER = Path(__file__).parent.parent / "cases" / "classic"
FILES = sorted(FOLDER.glob("*.case"))
DROP = -1


@dataclass(frozen=True)
class Case:
    attach: str
    program: ClassicProgram
    packets: tuple[bytes, ...]
    kept: tuple[int, ...]
    refused: tuple[int, int | None] | None


def read(path: Path) -> Case:
    attach, section = "", ""
    sections: dict[str, list[str]] = {"program": [], "packets": []}
    refused = None
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# "), f"{path.name}: the first line says why"
    for line in lines[1:]:
        if line.startswith("attach: "):
            attach = line.removeprefix("attach: ")
        elif line.startswith("refused: "):
            name, _, place = line.removeprefix("refused: ").partition(" at ")
            refused = (int(getattr(errno, name)), int(place) if place else None)
        elif line.endswith(":") and not line.startswith(" "):
            section = line[:-1]
        elif line.strip():
            sections[section].append(line)
    rows = [row.split("->") for row in sections["packets"]]
    program = load("\n".join(sections["program"]) + "\n", form="asm")
    assert isinstance(program, ClassicProgram)
    packets = tuple(b"" if text.strip() == "-" else bytes.fromhex(text) for text, _ in rows)
    return Case(attach, program, packets, tuple(_kept(value.strip()) for _, value in rows), refused)


def _kept(value: str) -> int:
    return DROP if value == "drop" else int(value.removeprefix("accept "))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def case(request: pytest.FixtureRequest) -> Case:
    made = read(request.param)
    assert (made.refused is None) == bool(made.packets)
    return made


def test_there_are_cases() -> None:
    assert len(FILES) >= 40


@pytest.mark.parametrize("engine", engines.NAMES)
def test_engine(case: Case, engine: str) -> None:
    if case.refused is not None:
        with pytest.raises(ProgramRefused) as caught:
            verify(case.program)
        assert (caught.value.errno, caught.value.insn) == case.refused
        return
    socket = profile(case.attach)
    env = Env(mac=MAC, strip_vlan=True)
    runner = engines.get(engine).prepare(verify(case.program), env)
    with view(batch_of(case.packets), socket, env, meta=True) as skbs:
        outcome = runner.run(skbs)
        kept = np.where(outcome.verdict == 0, DROP, socket.kept(outcome.verdict, skbs.length))
    assert not outcome.fault.any()
    assert tuple(kept.tolist()) == case.kept


@pytest.mark.kernel
def test_kernel(case: Case) -> None:
    try:
        rig = open_rig(case.attach)
    except KernelUnavailable as reason:
        pytest.skip(str(reason))
    with rig:
        number = rig.attach_classic(case.program.to_bytes())
        assert number == (case.refused[0] if case.refused else 0)
        if case.refused is None:
            seen = rig.run(case.packets)
            assert seen.delivered.all()
            assert tuple(np.where(seen.accepted, seen.kept, DROP).tolist()) == case.kept
