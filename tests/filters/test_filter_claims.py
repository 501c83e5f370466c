"""Every statement in the first lines of every filter of filters/, proven on every engine.

Single packets come from claims.yaml, whole captures are judged by the oracles of filter_oracles.py, and these in turn
are held against tcpdump where it is installed.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import dpkt
import filter_cases
import filter_oracles
import pytest
from filter_cases import (
    CLAIMS,
    PCAPS,
    CaptureCase,
    Case,
    Packet,
    capture_cases,
    cases,
    filter_files,
    header,
    statements,
)

import pktbpf
from pktbpf import engine
from pktbpf.engine.base import PROFILES, Env

FILES = filter_files()
IDS = [path.name for path in FILES]
ENGINES = engine.NAMES
each_filter = pytest.mark.parametrize("path", FILES, ids=IDS)
each_engine = pytest.mark.parametrize("name", ENGINES)


@functools.cache
def ready(path: Path, name: str) -> pktbpf.Filter:
    return pktbpf.Filter(pktbpf.load(path), engine=name, attach=header(path)["attach"][0])


def kept(path: Path, name: str, packet: Packet) -> int:
    return ready(path, name).kept(packet.frame, packet.wire_len, start=packet.start, **packet.meta)


def test_every_filter_is_claimed() -> None:
    assert sorted(CLAIMS) == IDS
    assert len(IDS) >= 18


def test_every_form_is_shipped() -> None:
    forms = " ".join(header(path)["form"][0] for path in FILES)
    for word in (
        "bpf_asm with labels",
        "listing",
        "C array",
        "decimal, as",
        "decimal on one line",
        "pcap-filter expression",
    ):
        assert word in forms


@each_filter
def test_first_lines(path: Path) -> None:
    found = header(path)
    assert set(found) == {"accepts", "rejects", "attach", "form", "idea"}
    assert found["attach"][0] in PROFILES


def proven(path: Path, side: str) -> list[str]:
    """The phrases of one side that claims.yaml gives a packet for."""
    phrases = [phrase for case in cases(path) if (case.kept > 0) == (side == "accepts") for phrase in case.says]
    for entry in CLAIMS[path.name].get("samples", ()):
        phrases += [entry["says"]] if isinstance(entry["says"], str) else entry["says"]
    return phrases


@each_filter
@pytest.mark.parametrize("side", ["accepts", "rejects"])
def test_every_statement_has_a_packet(path: Path, side: str) -> None:
    phrases = proven(path, side)
    for statement in statements(header(path)[side]):
        shown = [phrase for phrase in phrases if statement in phrase or phrase in statement]
        assert shown, f"nothing proves {statement!r}"


@each_filter
def test_every_phrase_is_a_statement(path: Path) -> None:
    for case in cases(path):
        text = " ; ".join(header(path)["accepts" if case.kept else "rejects"])
        for phrase in case.says:
            assert phrase in text, f"{phrase!r} is not in the filter's first lines"


CASES = [pytest.param(path, case, id=f"{path.name}-{n}") for path in FILES for n, case in enumerate(cases(path))]


@each_engine
@pytest.mark.parametrize(("path", "case"), CASES)
def test_packet(path: Path, case: Case, name: str) -> None:
    assert kept(path, name, case.packet) == case.kept, case.label


CAPTURES = [
    pytest.param(path, case, id=f"{path.name}-{n}") for path in FILES for n, case in enumerate(capture_cases(path))
]


@each_engine
@pytest.mark.parametrize(("path", "case"), CAPTURES)
def test_capture(path: Path, case: CaptureCase, name: str) -> None:
    found = [kept(path, name, packet) for packet in case.packets]
    wrong = [(n, got, want) for n, got, want in zip(case.numbers, found, case.kept, strict=True) if got != want]
    assert not wrong, f"{case.capture}: (packet, kept, expected) {wrong[:5]}"


# What replay() is told so that it prepares packets as filter_cases.PREPARE does.
ENVIRONMENTS = {"default": Env(), "strip": Env(strip_vlan=True), "server": Env(mac=filter_oracles.SERVER)}


@pytest.mark.parametrize(("path", "case"), [p for p in CAPTURES if p.values[1].prepare in ENVIRONMENTS])  # type: ignore[union-attr]
def test_replay_finds_byte_0(path: Path, case: CaptureCase) -> None:
    """The same through replay(), which finds the program's byte 0 and the metadata of each frame by itself."""
    env = ENVIRONMENTS[case.prepare]
    found = pktbpf.replay(PCAPS / case.capture, path, attach=header(path)["attach"][0], env=env).filters[0]
    assert found.kept is not None
    assert [int(found.kept[n - 1]) for n in case.numbers] == list(case.kept)


@pytest.mark.parametrize(("path", "case"), CAPTURES)
def test_oracle_accepts_as_many_as_stated(path: Path, case: CaptureCase) -> None:
    assert sum(size > 0 for size in case.kept) == case.accepted


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed")
@pytest.mark.parametrize(("path", "case"), [p for p in CAPTURES if p.values[1].tcpdump])  # type: ignore[union-attr]
def test_oracle_agrees_with_tcpdump(path: Path, case: CaptureCase) -> None:
    command = ["tcpdump", "-r", str(PCAPS / case.capture), "-w", "-", str(case.tcpdump)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=20)
    import io

    selected = [data for _stamp, data in dpkt.pcap.Reader(io.BytesIO(done.stdout))]
    all_frames = filter_cases.frames(case.capture)
    assert selected == [all_frames[n - 1] for n, size in zip(case.numbers, case.kept, strict=True) if size]


SAMPLES = [(path, entry) for path in FILES for entry in CLAIMS[path.name].get("samples", ())]


@each_engine
@pytest.mark.parametrize(("path", "entry"), SAMPLES)
def test_sampling(path: Path, entry: dict[str, Any], name: str) -> None:
    packet = filter_cases.packet_of(entry, header(path)["attach"][0])
    verdicts = ready(path, name).run_many([packet.frame] * entry["runs"])
    assert set(verdicts.tolist()) == {0, 0xFFFFFFFF}
    share = int((verdicts > 0).sum()) / entry["runs"]
    assert abs(share - entry["share"]) < 0.05


def test_tcp_port_80_is_the_program_of_the_field() -> None:
    insns = pktbpf.load(filter_cases.FILTERS / "tcp-port-80.bpf").insns
    assert [(i.code, i.jt, i.jf, i.k) for i in insns] == [
        (0x28, 0, 0, 12), (0x15, 0, 4, 0x86DD), (0x30, 0, 0, 20), (0x15, 0, 11, 6), (0x28, 0, 0, 56), (0x15, 8, 9, 80),
        (0x15, 0, 8, 0x800), (0x30, 0, 0, 23), (0x15, 0, 6, 6), (0x28, 0, 0, 20), (0x45, 4, 0, 0x1FFF),
        (0xB1, 0, 0, 14), (0x48, 0, 0, 16), (0x15, 0, 1, 80), (0x06, 0, 0, 262144), (0x06, 0, 0, 0),
    ]  # fmt: skip


def test_every_oracle_is_used() -> None:
    used = {
        entry[key]
        for claim in CLAIMS.values()
        for entry in claim.get("captures", ())
        for key in ("oracle", "only")
        if key in entry
    }
    assert used | {"syslog_error"} == set(filter_oracles.ORACLES)


@pytest.mark.parametrize("case", cases(filter_cases.FILTERS / "syslog-errors.bpf"), ids=lambda case: case.label)
def test_syslog_oracle(case: Case) -> None:
    assert bool(filter_oracles.syslog_error(case.packet.frame)) == (case.kept > 0)
