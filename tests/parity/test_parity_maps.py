"""Final map contents of both sides: equal over captures, and a difference is found, shown and counted."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from pktbpf.cli import cli
from pktbpf.errors import KernelUnavailable
from pktbpf.kernel import syscall
from pktbpf.parity.compare import Comparison
from pktbpf.parity.contents import Contents, Entry, as_objects, lines

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
    if path in ("proto_counts", "parser_chain"):
        entries = [entry for one in shown["maps"] for entry in one["entries"]]
        assert entries
        assert all(entry["kernel"] == entry["pktbpf"] for entry in entries)


def test_a_difference_is_shown_first_and_counted() -> None:
    entries = tuple(Entry(bytes([n]), b"\1\0\0\0", b"\1\0\0\0" if n != 30 else None) for n in range(40))
    one = Contents("counts", "HASH", entries)
    assert one.differing == 1
    text = lines((one,))
    assert text[1] == "map counts  HASH, 40 entries, 1 differing"
    assert text[3] == "  30   1       -  <>"
    assert text[-1] == "  ... and 24 more"
    assert as_objects((one,))[0]["entries"][30]["pktbpf"] is None
    assert Contents("counts", "HASH", entries, steady=False).differing == 0


def test_the_last_contents_count() -> None:
    first, last = Contents("a", "HASH", ()), Contents("b", "HASH", ())
    assert (Comparison(maps=(first,)) + Comparison(maps=(last,))).maps == (last,)
    assert (Comparison(maps=(first,)) + Comparison(pairs=3)).maps == (first,)
