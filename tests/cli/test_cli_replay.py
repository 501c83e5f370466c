"""`pktbpf replay` as people and scripts use it."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pktbpf.cli import cli

WEB, DNS, SNAPLEN = "pcaps/web.pcap", "pcaps/dns.pcap", "pcaps/snaplen.pcap"
PORT_80 = "filters/tcp-port-80.bpf"
COMMAND = [sys.executable, "-c", "from pktbpf.cli import main; main()", "replay"]


def run(*arguments: str, data: bytes | None = None, **env: str) -> Result:
    return CliRunner().invoke(cli, ["replay", *arguments], input=data, env=env)


def summary(text: str) -> dict[str, str]:
    return {line[:14].strip(): line[14:].strip() for line in text.splitlines() if line}


def test_summary_names_what_was_promised() -> None:
    done = run(WEB, "--filter", PORT_80)
    assert done.exit_code == 0
    assert done.stderr == ""
    rows = summary(done.stdout)
    assert list(rows) == ["link type", "packets", "bytes", "accepted", "dropped", "truncated", "rate"]
    assert rows["link type"] == "EN10MB (Ethernet)"
    assert rows["packets"] == "210"
    assert rows["accepted"].split()[0] == "46"
    assert rows["dropped"].split()[0] == "164"
    assert "packets/s" in rows["rate"]


def test_several_filters_have_a_block_each() -> None:
    done = run(WEB, DNS, "-F", "arp", "-F", "udp port 53", "-v")
    blocks = done.stdout.strip().split("\n\n")
    assert summary(blocks[0])["captures"] == "2"
    assert [block.splitlines()[0] for block in blocks[1:3]] == ["arp", "udp port 53"]
    assert blocks[3].splitlines()[1].startswith("pcaps/dns.pcap: EN10MB, 45 packets")


def test_json_and_records_agree_with_the_summary() -> None:
    whole = json.loads(run(WEB, "-r", DNS, "-F", "tcp", "--format", "json").stdout)
    records = run(WEB, "-r", DNS, "-F", "tcp", "--format", "jsonl", "-q").stdout.splitlines()
    lines = [json.loads(line) for line in records]
    table = list(csv.DictReader(io.StringIO(run(WEB, DNS, "-F", "tcp", "--format", "csv", "-q").stdout)))
    assert len(lines) == len(table) == whole["packets"]
    assert sum(line["accepted"] for line in lines) == sum(int(row["accepted"]) for row in table) == whole["accepted"]
    assert [str(line["number"]) for line in lines] == [row["number"] for row in table]
    assert {line["capture"] for line in lines} == {WEB, DNS}
    assert sum(line["caplen"] for line in lines) == whole["bytes"]
    assert [capture["packets"] for capture in whole["captures"]] == [210, 45]


def test_the_summary_leaves_standard_output_to_records() -> None:
    done = run(SNAPLEN, "-F", "tcp", "--format", "csv")
    assert len(done.stdout.splitlines()) == 78
    assert summary(done.stderr)["packets"] == "77"


def test_printed_packets() -> None:
    done = run(WEB, "-F", "arp or icmp or tcp port 80", "--print", "-q")
    lines = done.stdout.splitlines()
    assert lines[0].split()[0] == "1"
    assert any("ARP, Request who-has" in line for line in lines)
    assert any("ICMP echo request, id" in line for line in lines)
    assert any("Flags [S], seq" in line for line in lines)
    assert len(lines) == json.loads(run(WEB, "-F", "arp or icmp or tcp port 80", "--format", "json").stdout)["accepted"]
    both = run(WEB, DNS, "-F", "arp", "-F", "ether proto 0x806", "--print", "-q").stdout.splitlines()
    assert both[0].startswith(f"{WEB} ")
    assert "[1,2] ARP" in both[0]


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="no tcpdump")
@pytest.mark.parametrize("expression", ["tcp port 80", "arp", "ip", "len > 100"])
@pytest.mark.parametrize("name", sorted(path.name for path in Path("pcaps").glob("*.pcap") if path.stem != "netlink"))
def test_written_bytes_equal_tcpdumps(name: str, expression: str, tmp_path: Path) -> None:
    target = tmp_path / "out.pcap"
    ours = run(f"pcaps/{name}", "-F", expression, "-w", str(target), "-q")
    precision = ["--time-stamp-precision=nano"] if name == "nanosecond.pcap" else []
    theirs = subprocess.run(["tcpdump", *precision, "-r", f"pcaps/{name}", "-w", "-", expression], capture_output=True)
    assert ours.exit_code == theirs.returncode
    if theirs.returncode:
        assert ours.stderr.replace("pktbpf", "tcpdump") == theirs.stderr.decode().splitlines(keepends=True)[-1]
    else:
        assert target.read_bytes() == theirs.stdout


def test_output_to_standard_output_and_from_standard_input() -> None:
    first = run(WEB, "-F", "tcp port 80", "-w", "-")
    assert summary(first.stderr)["packets"] == "210"
    second = run("-", "-F", "tcp port 80", "-w", "-", "-q", data=first.stdout_bytes)
    assert second.stdout_bytes == first.stdout_bytes
    assert second.stderr == ""


def test_exit_status_like_grep() -> None:
    assert run(WEB, "-F", "arp", "--exit-status", "-q").exit_code == 0
    assert run(WEB, "-F", "ip6 proto 99", "--exit-status", "-q").exit_code == 1
    assert run(WEB, "-F", "ip6 proto 99", "-q").exit_code == 0
    assert run("/nowhere", "-F", "arp", "--exit-status", "-q").exit_code == 2
    assert run(WEB, "-F", "ld M[1] / ret a", "--exit-status", "-q").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-F", "arp"], 2, "pktbpf: no capture given; name a file, or - for standard input (see pktbpf replay --help)"),
        ([WEB], 2, "pktbpf: no filter given; say --filter PROG (see pktbpf replay --help)"),
        (["-", "-F", "-"], 2, "pktbpf: standard input can be read once only (see pktbpf replay --help)"),
        ([WEB, "-F", "arp", "--print", "--format", "csv"], 2, "pktbpf: --print and --format csv both want"),
        ([WEB, "-F", "arp", "--print", "-w", "-"], 2, "pktbpf: -w - leaves no standard output for packets"),
        ([WEB, "-F", "arp", "--meta", "mark"], 2, "pktbpf: --meta 'mark' is not NAME=NUMBER"),
        ([WEB, "-F", "arp", "--meta", "mark=-1"], 2, "pktbpf: metadata mark=-1 is out of range; it goes from 0 to"),
        ([WEB, "-F", "arp", "--meta", "size=1"], 2, "pktbpf: unknown metadata 'size'; there are protocol,"),
        ([WEB, "-F", "arp", "--mac", "1:2"], 2, "pktbpf: --mac '1:2' is not an address like 02:00:5e:10:00:01"),
        ([WEB, "-F", "arp", "-y", "RAW"], 2, "pktbpf: pcaps/web.pcap: the packets are EN10MB, not RAW"),
        ([WEB, "-F", "arp", "-y", "FROG"], 1, "pktbpf: unknown link type 'FROG'"),
        ([WEB, "-F", "arp", "-c", "0"], 2, "pktbpf: invalid value for '-c'"),
        ([WEB, "-F", "tcp prot 80"], 1, "pktbpf: can't parse filter expression: syntax error"),
        (["/nowhere", "-F", "arp"], 1, "pktbpf: /nowhere: No such file or directory"),
        ([WEB, "-F", "./none.bpf"], 1, "pktbpf: ./none.bpf: no such file"),
        ([WEB, "-F", "ld M[1] / ret a"], 3, "pktbpf: instruction 0: M[1] is read here"),
        ([WEB, "-F", "arp", "-F", "ld M[1] / ret a"], 3, "pktbpf: ld M[1] / ret a: instruction 0: M[1] is read here"),
        ([WEB, "-F", "arp", "-F", "tcp prot 80"], 1, "pktbpf: tcp prot 80: can't parse filter expression: syntax"),
        ([WEB, "-F", "arp", "-F", "ret #"], 1, "pktbpf: ret #: filter:1:6: expected a number"),
        ([WEB, "-F", "arp", "-w", "/nowhere/x"], 1, "pktbpf: /nowhere/x: cannot write: No such file or directory"),
        ([WEB, "-F", "arp", "-w", WEB], 2, "pktbpf: pcaps/web.pcap is read and cannot be written at the same time"),
        (["pcaps/netlink.pcap", "-F", "tcp"], 1, "pktbpf: Linux netlink link-layer type filtering not implemented"),
    ],
)  # fmt: skip
def test_errors_are_one_line_with_the_right_code(arguments: list[str], code: int, message: str) -> None:
    done = run(*arguments)
    assert done.exit_code == code, done.stderr
    assert done.stderr.startswith(message), done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_damage_is_reported_after_the_summary(tmp_path: Path) -> None:
    cut, target = tmp_path / "cut.pcap", tmp_path / "out.pcap"
    cut.write_bytes(Path(WEB).read_bytes()[:5000])
    done = run(str(cut), "-F", "ip or arp", "-w", str(target))
    assert done.exit_code == 1
    assert "offset" in done.stderr
    assert done.stderr.count("\n") == 1
    accepted = summary(done.stdout)["accepted"].split()[0]
    again = run(str(target), "-F", "ip or arp")
    assert again.exit_code == 0
    assert summary(again.stdout)["packets"] == accepted


def test_one_bad_capture_does_not_stop_the_others(tmp_path: Path) -> None:
    done = run("/nowhere", "pcaps/netlink.pcap", WEB, "-F", "arp")
    assert done.exit_code == 1
    assert summary(done.stdout)["accepted"].split()[0] == "2"
    assert len(done.stderr.splitlines()) == 2
    assert done.stderr.splitlines()[1].startswith("pktbpf: pcaps/netlink.pcap: Linux netlink")


def test_options_from_the_environment() -> None:
    assert "undelivered" in run(WEB, "-F", "ret #1", PKTBPF_REPLAY_ATTACH="udp").stdout
    assert run(WEB, "-F", "arp", "-q", PKTBPF_ENGINE="steam").exit_code == 2


def test_refused_program_with_its_log_on_request() -> None:
    quiet = run(WEB, "-F", "r0 = r5\nexit")
    assert quiet.exit_code == 3
    assert quiet.stderr.count("\n") == 1
    assert run(WEB, "-F", "r0 = r5\nexit", "-v").stderr.count("\n") > 1


def test_count_and_policy() -> None:
    assert summary(run(WEB, "-F", "tcp", "-c", "3").stdout)["accepted"].split()[0] == "3"
    done = run(SNAPLEN, "-F", "ldb [100] / ret #-1", "--indeterminate", "error")
    assert done.exit_code == 1
    assert "where the kernel would have seen more" in done.stderr


def test_a_closed_pipe_is_silent() -> None:
    command = [*COMMAND, *[WEB] * 200, "-F", "ret #-1", "--format", "jsonl"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 1


def test_an_interrupt_leaves_a_summary_and_130(tmp_path: Path) -> None:
    target = tmp_path / "out.pcap"
    process = subprocess.Popen(
        [*COMMAND, "-", "-F", "arp", "-w", str(target), "--print"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(Path(WEB).read_bytes())
    process.stdin.flush()
    assert process.stdout is not None
    assert b"ARP" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped early" in err.decode()
    assert summary(err.decode())["accepted"].split()[0] == "2"
    assert b"Traceback" not in err
    assert run(str(target), "-F", "arp", "--exit-status", "-q").exit_code == 0


def test_compilations_are_announced_on_terminals(tmp_path: Path) -> None:
    """The first run of a kind of program compiles the engine for it; the second takes what the cache has."""
    program = "from pktbpf.cli import _progress, main; _progress.PATIENCE = 0.01; main()"
    told = []
    for quiet in ("-q", "-v", "-v"):
        primary, terminal = pty.openpty()
        command = [sys.executable, "-c", program, "replay", WEB, "-F", "arp", quiet]
        cache = str(tmp_path / ("quiet" if quiet == "-q" else "kept"))
        subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=terminal, timeout=300, check=True,
            env={**os.environ, "PKTBPF_CACHE_DIR": cache},
        )  # fmt: skip
        os.close(terminal)
        told.append(b"compiling the engine" in _read_all(primary))
    assert told == [False, True, False]


def _read_all(primary: int) -> bytes:
    """What was written to the other side of a terminal that nobody has open any more."""
    shown = b""
    with contextlib.suppress(OSError):
        while block := os.read(primary, 65536):
            shown += block
    os.close(primary)
    return shown


def test_progress_is_for_terminals_only(tmp_path: Path) -> None:
    """On a terminal a slow replay shows a bar on standard error; the summary goes to standard output as always."""
    program = "from pktbpf.cli import _progress, main; _progress.PATIENCE = 0.0; _progress.INTERVAL = 0.0; main()"
    primary, terminal = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", program, "replay", *[WEB] * 30, "-F", "arp"], stdout=subprocess.PIPE, stderr=terminal,
        timeout=120, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"}, check=True,
    )  # fmt: skip
    os.close(terminal)
    shown = _read_all(primary)
    assert b"of 30" in shown
    assert b"packets" in shown
    assert summary(done.stdout.decode())["accepted"].split()[0] == "60"


@pytest.mark.parametrize("form", ["text", "json", "jsonl", "csv"])
def test_names_that_are_not_utf_8(form: str, tmp_path: Path) -> None:
    """Bytes of a name that no text has are shown as escapes, in results and in errors."""
    name = os.fsencode(tmp_path) + b"/\xff.pcap"
    Path(os.fsdecode(name)).write_bytes(Path(WEB).read_bytes()[:-1])
    command = [*COMMAND, name, "-F", "tcp", "--format", form, "-v"]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.count(b"pktbpf:") == 1
    assert b"\\xff.pcap: offset" in done.stderr
    assert b"\\xff.pcap" in done.stdout.replace(b"\\\\", b"\\")
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="no tcpdump")
@pytest.mark.parametrize("expression", ["", "greater 1"])
def test_records_with_more_captured_than_sent(expression: str, tmp_path: Path) -> None:
    """60 bytes of a packet that is said to have had 20: what is not cut is written as it came."""
    source, target = tmp_path / "in.pcap", tmp_path / "out.pcap"
    records = [struct.pack("<IIII", 1, 2, 60, wire) + bytes(12) + b"\x08\0" + bytes(46) for wire in (20, 60, 90)]
    source.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1) + b"".join(records))
    assert run(str(source), "-F", expression, "-w", str(target), "-q").exit_code == 0
    theirs = subprocess.run(["tcpdump", "-r", source, "-w", "-", expression], capture_output=True, check=True)
    assert target.read_bytes() == theirs.stdout
    assert target.stat().st_size == source.stat().st_size
