"""Final map contents of both sides: equal over captures, and a difference is found, shown and counted."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from pktbpf.cli import cli
from pktbpf.errors import KernelUnavailable
from pktbpf.kernel import syscall
from pktbpf.parity.compare import Comparison
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
