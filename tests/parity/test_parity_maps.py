"""Final map contents of both sides: equal over captures, and a difference is found, shown and counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pktbpf.asm.extended_text import assemble
from pktbpf.capture.batch import batch_of
from pktbpf.capture.writer import open_writer
from pktbpf.cli import cli
from pktbpf.errors import KernelUnavailable
from pktbpf.kernel import syscall
from pktbpf.kernel.unix_rig import UnixRig
from pktbpf.parity.captures import verified_by_both
from pktbpf.parity.compare import Comparison, Session
from pktbpf.parity.contents import Contents, Entry, as_objects, entries_of, lines

# Records that each object hands out over pcaps/web.pcap; what of them hangs on the time.
RECORDS = {"sampler_ringbuf": ("samples", 14, (0,)), "syn_events": ("events", 6, ())}
pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module", autouse=True)
def _kernel() -> None:
    try:
        syscall.available()
    except KernelUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("capture", "path", "program", "rig"),
    [
        ("pcaps/web.pcap", "proto_counts", None, "packet"),
        ("pcaps/web.pcap", "proto_counts", None, "unix"),
        ("pcaps/vlan.pcap", "parser_chain", "parser_chain", "packet"),
        ("pcaps/web.pcap", "dest_bytes", None, "packet"),
        ("pcaps/icmp.pcap", "allow_lpm", None, "packet"),
        ("pcaps/web.pcap", "sampler_ringbuf", None, "packet"),
        ("pcaps/web.pcap", "syn_events", None, "packet"),
        ("pcaps/web.pcap", "rate_limit", None, "packet"),
    ],
)
def test_maps_are_equal_after_a_capture(capture: str, path: str, program: str | None, rig: str) -> None:
    arguments = ["parity", capture, "-F", f"filters/ebpf/{path}.o", "--rig", rig, "--format", "json"]
    done = CliRunner().invoke(cli, arguments + (["--program", program] if program else []))
    if done.exit_code == 1 and "Operation not permitted" in done.stderr:
        pytest.skip(done.stderr)
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert shown["maps"]
    assert all(one["differing"] == 0 for one in shown["maps"])
    if path in RECORDS:
        name, count, moving = RECORDS[path]
        entries = next(one["entries"] for one in shown["maps"] if one["name"] == name)
        assert len(entries) == count
        assert {tuple(entry["moving"]) for entry in entries} == {moving}
    if path in ("proto_counts", "parser_chain", "syn_events"):
        entries = [entry for one in shown["maps"] for entry in one["entries"]]
        assert entries
        assert all(entry["kernel"] == entry["pktbpf"] for entry in entries)


def test_variables_are_set_on_both_sides() -> None:
    """The sampler keeps every 16th packet, or with `period` set every one."""
    for period, count in ((None, 14), (1, 210)):
        arguments = ["parity", "pcaps/web.pcap", "-F", "filters/ebpf/sampler_ringbuf.o", "--format", "json"]
        done = CliRunner().invoke(cli, arguments + (["--set", f"period={period}"] if period else []))
        assert done.exit_code == 0, done.output
        (samples,) = (one for one in json.loads(done.stdout)["maps"] if one["name"] == "samples")
        assert (len(samples["entries"]), samples["differing"]) == (count, 0)


def put_out(events: int) -> str:
    """Hands out the whole packet so many times, and accepts it."""
    one = ["r1 = r6", "r2 = map[out] ll", "r4 = r10", "r4 += -8", "r5 = 8", "r3 = r7", "call bpf_perf_event_output"]
    lines = ["r6 = r1", "r7 = *(u32 *)(r1 +0)", "r7 <<= 32", "r1 = 0xffffffff ll", "r7 |= r1", "r1 = 0"]
    lines += ["*(u64 *)(r10 -8) = r1", *one * events, "r0 = -1", "exit"]
    return "\n".join([".map out PERF_EVENT_ARRAY key_size=4 value_size=4 max_entries=128", *lines, ""])


def test_a_reader_keeps_up_with_a_long_run() -> None:
    """More than any ring holds, a little at a time: the same events on both sides."""
    with UnixRig() as rig, Session(verified_by_both(assemble(put_out(1)), rig), rig) as session:
        total = session.run([bytes([n % 256]) * 1000 for n in range(2000)]) + session.contents()
    assert (total.pairs, total.differing) == (2000, ())
    (out,) = total.maps
    assert (len(out.entries), out.differing, out.lost) == (2000, 0, (0, 0))


def test_events_that_find_no_room_are_reported(tmp_path: Path) -> None:
    """What the kernel's ring has no room for from a single packet is counted, shown, and an error."""
    program, size = put_out(40), 20_000
    with UnixRig() as rig, Session(verified_by_both(assemble(program), rig), rig) as session:
        total = session.run([bytes(size)]) + session.contents()
    (out,) = total.maps
    there = sum(entry.kernel is not None for entry in out.entries)
    assert out.lost == (40 - there, 0)
    assert 0 < there < 40
    assert f"; found no room: {40 - there} in the kernel's ring, 0 in ours" in lines((out,))[1]
    source, capture = tmp_path / "loud.s", tmp_path / "long.pcap"
    source.write_text(program)
    with open_writer(capture, linktype=1) as writer:
        packets = batch_of([bytes(size)])
        writer.write(packets, np.arange(1), packets.caplen)
    done = CliRunner().invoke(cli, ["parity", str(capture), "-F", str(source), "--format", "json"])
    assert done.exit_code == 3, done.output
    assert f"map out: events found no room, {40 - there} in the live kernel's ring and 0 in ours" in done.stderr
    assert json.loads(done.stdout)["maps"][0]["lost"] == {"kernel": 40 - there, "pktbpf": 0}


def test_a_difference_is_shown_first_and_counted() -> None:
    entries = tuple(Entry(bytes([n]), b"\1\0\0\0", b"\1\0\0\0" if n != 30 else None) for n in range(40))
    one = Contents("counts", "HASH", entries)
    assert one.differing == 1
    text = lines((one,))
    assert text[1] == "map counts  HASH, 40 entries, 1 differing"
    assert text[3] == "  30   1       -  <>"
    assert text[-1] == "  ... and 24 more"
    assert as_objects((one,))[0]["entries"][30]["pktbpf"] is None


def test_what_moves_is_not_compared() -> None:
    runs = [{b"\0": bytes(8) + b"same " + bytes([n]) + bytes(10)} for n in (1, 2, 3)]
    (entry,) = entries_of({b"\0": bytes(8) + b"same \x09 and bytes"[:8] + bytes(8)}, runs)
    assert (entry.moving, entry.steady) == ((8,), True)
    assert entry.equal
    (entry,) = entries_of({b"\0": b"other   same \x09" + bytes(10)}, runs)
    assert not entry.equal
    text = lines((Contents("m", "HASH", (entry,)),))
    assert text[1] == "map m  HASH, 1 entries, 1 differing; 1 not compared whole, since they hang on the time or chance"
    assert "................" in text[3]


def test_an_entry_that_some_runs_lack_is_not_compared() -> None:
    gone, there = entries_of({b"\1": b"a"}, [{b"\0": b"a", b"\1": b"a"}, {b"\1": b"a"}])
    assert (gone.steady, there.steady) == (False, True)
    assert gone.equal
    (only,) = entries_of({b"\2": b"x"}, [{}, {}])
    assert not only.equal
    assert all(entry.equal for entry in entries_of({b"\2": b"x"}, [{}, {b"\3": b"y"}]))


def test_the_last_contents_count() -> None:
    first, last = Contents("a", "HASH", ()), Contents("b", "HASH", ())
    assert (Comparison(maps=(first,)) + Comparison(maps=(last,))).maps == (last,)
    assert (Comparison(maps=(first,)) + Comparison(pairs=3)).maps == (first,)
