"""The shipped filters on the live kernel: it takes each, and keeps the bytes that the claims state."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import filter_cases
import pytest
from filter_cases import cases, filter_files, header

import pktbpf
from pktbpf import engine

pytestmark = pytest.mark.kernel
FILES = filter_files()
SAMPLING = [path for path in FILES if "samples" in filter_cases.CLAIMS[path.name]]
STEADY = [path for path in FILES if path not in SAMPLING]
each_filter = pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
_TPIDS = (b"\x81\x00", b"\x88\xa8", b"\x91\x00")


@pytest.fixture(scope="module")
def rigs() -> Any:
    """A rig per attach profile, opened when asked for."""
    opened: dict[str, Any] = {}

    def get(attach: str) -> Any:
        if attach not in opened:
            opened[attach] = _open(attach)
        return opened[attach]

    yield get
    for rig in opened.values():
        rig.close()


def _open(attach: str) -> Any:
    from pktbpf.kernel.ip_rig import IpRig
    from pktbpf.kernel.packet_rig import PacketRig
    from pktbpf.kernel.unix_rig import UnixRig

    try:
        if attach == "unix":
            return UnixRig()
        if attach.startswith("packet"):
            return PacketRig(datagram=attach == "packet-dgram")
        return IpRig(attach)
    except pktbpf.KernelUnavailable as unavailable:
        pytest.skip(str(unavailable))


@each_filter
def test_kernel_takes_it(path: Path, rigs: Any) -> None:
    code = pktbpf.load(path).to_bytes()
    rig = rigs("unix")
    assert rig.attach_classic(code) == 0
    assert rig.detach() == 0
    assert rig.detach() == errno.ENOENT


def live_cases(path: Path) -> list[filter_cases.Case]:
    """The packets whose claim a live socket can be shown as it stands: no metadata of their own, all bytes there, no
    tag that the kernel would take out, not larger than the device's MTU."""
    plain = filter_cases.PREPARE["default"]
    attach = header(path)["attach"][0]
    return [
        case
        for case in cases(path)
        if case.packet.wire_len is None
        and case.packet.meta == plain(attach, case.packet.frame).meta
        and (attach == "unix" or case.packet.frame[12:14] not in _TPIDS)
        and len(case.packet.frame) < 60_000
    ]


def observe(path: Path, rigs: Any, frames: list[bytes]) -> Any:
    rig = rigs(header(path)["attach"][0])
    assert rig.attach_classic(pktbpf.load(path).to_bytes()) == 0
    try:
        return rig.run(frames)
    finally:
        rig.detach()


@pytest.mark.parametrize("path", [path for path in STEADY if live_cases(path)], ids=lambda path: path.name)
def test_kernel_keeps_what_the_claims_state(path: Path, rigs: Any) -> None:
    chosen = live_cases(path)
    seen = observe(path, rigs, [case.packet.frame for case in chosen])
    judged = [(case, int(kept)) for case, kept, there in zip(chosen, seen.kept, seen.delivered, strict=True) if there]
    assert judged
    assert [(case.label, kept) for case, kept in judged] == [(case.label, case.kept) for case, _ in judged]


@pytest.mark.parametrize("path", STEADY, ids=lambda path: path.name)
@pytest.mark.parametrize("name", engine.NAMES)
def test_engine_agrees_over_all_captures(path: Path, name: str, rigs: Any) -> None:
    """The bytes and metadata that the live socket saw, given to an engine: the same bytes kept."""
    attach = header(path)["attach"][0]
    frames = [case.packet.frame for case in cases(path) if len(case.packet.frame) < 60_000]
    if attach != "unix":
        for capture in ("web", "dhcp", "dns", "icmp", "vlan", "discovery", "ptp"):
            frames += filter_cases.frames(f"{capture}.pcap")
    seen = observe(path, rigs, frames)
    assert seen.delivered.any()
    ours = pktbpf.Filter(pktbpf.load(path), engine=name, attach=attach)
    outcome = ours.runner.run(seen.skbs)
    assert not outcome.fault[seen.delivered].any()
    kept = ours.profile.kept(outcome.verdict, seen.skbs.length)
    wrong = [n for n in range(len(frames)) if seen.delivered[n] and kept[n] != seen.kept[n]]
    assert not wrong


@pytest.mark.parametrize("path", SAMPLING, ids=lambda path: path.name)
def test_kernel_samples_the_same_share(path: Path, rigs: Any) -> None:
    entry = filter_cases.CLAIMS[path.name]["samples"][0]
    frame = filter_cases.packet_of(entry, header(path)["attach"][0]).frame
    seen = observe(path, rigs, [frame] * 3000)
    assert abs(float((seen.kept > 0).mean()) - entry["share"]) < 0.05
