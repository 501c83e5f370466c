"""why, trace and debug over objects: the same --map, --maps and --set as replay, and the same exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pktbpf.cli import cli

REFUSED = "filters/ebpf/refused/index_bound.o"
COUNTS = "filters/ebpf/proto_counts.o"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def test_a_packet_is_explained_with_the_maps_that_replay_had(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert run("replay", "pcaps/web.pcap", "-F", COUNTS, "--maps", str(state)).exit_code == 0
    before = {one.name: one.read_bytes() for one in state.iterdir()}
    plain = run("debug", "pcaps/web.pcap", "-F", COUNTS, "-n", "1", "-x", "maps")
    kept = run("debug", "pcaps/web.pcap", "-F", COUNTS, "-n", "1", "-x", "maps", "--maps", str(state))
    filled = run(
        "debug", "pcaps/web.pcap", "-F", COUNTS, "-n", "1", "-x", "maps", "--map", f"counts={state / 'counts.json'}"
    )
    assert plain.exit_code == kept.exit_code == filled.exit_code == 0, kept.output + filled.output
    assert plain.stdout != kept.stdout == filled.stdout
    assert {one.name: one.read_bytes() for one in state.iterdir()} == before


@pytest.mark.parametrize("command", [("why",), ("trace", "-n", "1"), ("debug",)])
def test_map_and_set_are_checked_as_in_replay(command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps([]))
    name, *rest = command
    for wrong in (("--map", f"nothing={tmp_path / 'x.json'}"), ("--map", "nothing"), ("--set", "nothing=1")):
        asked = run(name, "pcaps/web.pcap", "-F", COUNTS, *rest, *wrong)
        replayed = run("replay", "pcaps/web.pcap", "-F", COUNTS, *wrong)
        assert asked.exit_code == replayed.exit_code != 0
        assert asked.stderr.split(" (see")[0] == replayed.stderr.split(" (see")[0]


@pytest.mark.parametrize("command", [("why",), ("trace", "-n", "1"), ("debug",), ("replay",)])
def test_a_refused_program_is_no_fault_of_the_capture(command: tuple[str, ...]) -> None:
    name, *rest = command
    done = run(name, "pcaps/web.pcap", "-F", REFUSED, *rest)
    assert done.exit_code == 3
    assert "web.pcap" not in done.stderr
    assert "invalid access to map value" in done.stderr
