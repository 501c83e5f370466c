"""`pktbpf parity`: summary, exit codes, and the first difference."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pktbpf.capture.batch import batch_of
from pktbpf.capture.writer import open_writer
from pktbpf.cli import cli
from pktbpf.errors import KernelUnavailable
from pktbpf.kernel import unix_rig
from pktbpf.kernel.namespace import MAC
from pktbpf.kernel.packet_rig import PacketRig
from pktbpf.kernel.unix_rig import UnixRig
from pktbpf.parity.packets import PacketMaker

pytestmark = pytest.mark.kernel
PCAPS = Path(__file__).parent.parent.parent / "pcaps"


@pytest.fixture(autouse=True)
def _allowed() -> None:
    try:
        UnixRig().close()
    except KernelUnavailable as reason:
        pytest.skip(str(reason))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["parity", *arguments])


def test_a_capture_agrees() -> None:
    result = run(str(PCAPS / "web.pcap"), "--filter", "tcp port 80")
    assert result.exit_code == 0, result.output
    assert "differing  0" in result.output
    assert "Linux" in result.output


def test_json_and_count() -> None:
    result = run(str(PCAPS / "web.pcap"), "-F", "tcp", "-c", "50", "--format", "json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.output)
    assert (data["packets"], data["pairs"], data["equal"], data["first"]) == (50, 50, 50, None)
    assert data["kernel"]["release"]


@pytest.mark.parametrize("rig", ["packet", "packet-dgram", "udp", "raw-ip"])
def test_other_rigs(rig: str) -> None:
    try:
        PacketRig().close()
    except KernelUnavailable as reason:
        pytest.skip(str(reason))
    result = run(str(PCAPS / "dns.pcap"), "-F", "ldb [9]\nadd #1\nret a\n", "--rig", rig, "--format", "json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.output)
    assert data["pairs"] > 10
    assert data["differing"] == 0


def test_rigs_with_headers_want_ethernet() -> None:
    try:
        PacketRig().close()
    except KernelUnavailable as reason:
        pytest.skip(str(reason))
    result = run(str(PCAPS / "raw.pcap"), "-F", "ip", "--rig", "packet")
    assert result.exit_code == 1
    assert "use --rig unix" in result.output


def test_every_link_type_gets_its_own_program() -> None:
    for name in ("raw.pcap", "null.pcap", "any-sll2.pcap"):
        result = run(str(PCAPS / name), "-F", "ip", "--format", "json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.output)["accepted"] > 0


def test_random_programs() -> None:
    result = run("--random", "40", "--seed", "5", "--format", "json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.output)
    assert data["pairs"] == 1000
    assert data["admission"] == {"checked": 40, "differing": 0}


def test_a_program_that_both_refuse(tmp_path: Path) -> None:
    result = run(str(PCAPS / "web.pcap"), "-F", "ldb [0]\ndiv #0\nret a\n")
    assert result.exit_code == 3
    assert "EINVAL" in result.output


class Lying(UnixRig):
    """A kernel that loses the second packet of each run."""

    def lengths(self, packets: Any) -> list[int]:
        kept = super().lengths(packets)
        kept[1] = -1
        return kept


def test_a_difference_is_shown_and_ends_with_3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(unix_rig, "UnixRig", Lying)
    path = tmp_path / "three.pcap"
    with open_writer(path, linktype=1) as writer:
        packets = batch_of([b"first-packet-xx", b"second-packet-x", b"third-packet-xx"])
        writer.write(packets, np.arange(3), packets.caplen)
    result = run(str(path), "-F", "ret #9")
    assert result.exit_code == 3
    assert "first difference: packet 2, 15 bytes" in result.output
    assert "kernel: dropped" in result.output
    assert "pktbpf: accepted, 9 bytes kept, return value 0x9" in result.output
    assert "7365 636f 6e64" in result.output
    assert "pktbpf: 1 of 3 verdicts differ" in result.output
    shown = json.loads(run(str(path), "-F", "ret #9", "--format", "json").output.partition("\npktbpf:")[0])
    assert shown["differing_packets"] == [2]
    assert shown["first"]["pktbpf"] == {"accepted": True, "kept": 9, "fault": None, "value": 9}
    assert bytes.fromhex(shown["first"]["bytes"]) == b"second-packet-x"


class Stricter(UnixRig):
    """A kernel that refuses everything."""

    def attach_classic(self, code: bytes) -> int:
        return 12


def test_admission_by_one_side_only_ends_with_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unix_rig, "UnixRig", Stricter)
    result = run(str(PCAPS / "web.pcap"), "-F", "ret #9")
    assert result.exit_code == 3
    assert "the live kernel refuses the program (ENOMEM), pktbpf admits the program" in result.output


class Absent(UnixRig):
    """A machine without the sockets."""

    def __init__(self) -> None:
        raise KernelUnavailable(1, "AF_UNIX socket filters")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def test_no_kernel_to_ask_ends_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unix_rig, "UnixRig", Absent)
    result = run(str(PCAPS / "web.pcap"), "-F", "ret #9")
    assert result.exit_code == 1
    assert "EPERM" in result.output


def test_usage() -> None:
    assert run().exit_code == 2
    assert run(str(PCAPS / "web.pcap")).exit_code == 2
    assert run(str(PCAPS / "web.pcap"), "--random", "3").exit_code == 2
    assert run(str(PCAPS / "web.pcap"), "-F", "ip", "--rig", "moon").exit_code == 2


def test_frames_of_the_generator_reach_the_device() -> None:
    assert PacketMaker(1).mac == MAC
