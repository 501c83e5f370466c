"""Coverage as data, listing, LCOV and through the commands."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pktbpf.cli import cli
from pktbpf.engine.base import Env, profile
from pktbpf.engine.skb import view
from pktbpf.explain import coverage_data, coverage_report
from pktbpf.explain.coverage import CountingEngine, Coverage, of_program
from pktbpf.filter import Filter, verify
from pktbpf.loader import load, load_filter_argument
from pktbpf.testing import PacketBuilder

ROOT = Path(__file__).parents[2]
MAKE = PacketBuilder()
HTTP = "ldh [12]\njne #0x800, drop\nldb [23]\njne #6, drop\nret #96\ndrop: ret #0\n"


def counted(program: str, packets: list[bytes], title: str = "http") -> Coverage:
    engine = CountingEngine(title)
    filter = Filter(program, engine=engine)
    for packet in packets:
        filter.run(packet)
    return engine.coverage()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def test_annotated_listing() -> None:
    said = coverage_report.annotate(counted(HTTP, [MAKE.tcp(), MAKE.tcp(), MAKE.arp()])).splitlines()
    assert said[0] == "http: 90.0 %  6 of 6 instructions, 3 of 4 branch directions"
    assert said[1].split() == ["3", "0", "ldh", "[12]"]
    assert said[2].endswith("true 2, false 1")
    assert said[4].startswith("?")
    never = coverage_report.annotate(counted(HTTP, [MAKE.arp()])).splitlines()
    assert [line[0] for line in never[1:7]] == [" ", "?", "!", "!", "!", " "]


def test_runs_add_up_in_the_data_file(data: Path) -> None:
    coverage_data.update(data, counted(HTTP, [MAKE.tcp()]))
    whole = coverage_data.update(data, counted(HTTP, [MAKE.arp(), MAKE.udp()]))
    other = coverage_data.update(data, counted(HTTP.replace("#6", "#17"), [MAKE.udp()], "other"))
    assert [one.name for one in other.programs] == ["http", "other"]
    (one,) = whole.programs
    assert one.counts[:, 0].tolist() == [3, 3, 2, 2, 1, 2]
    assert whole.totals().percent == 100
    again = coverage_data.read(data)
    assert coverage_report.annotate(again) == coverage_report.annotate(other)


def _one_more(path: str) -> None:
    coverage_data.update(Path(path), counted(HTTP, [MAKE.tcp()]))


@pytest.mark.long
def test_parallel_runs_lose_nothing(data: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_one_more, args=(str(data),)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    (one,) = coverage_data.read(data).programs
    assert one.counts[0, 0] == 4


def test_damaged_data_is_told(data: Path) -> None:
    coverage_data.update(data, counted(HTTP, [MAKE.tcp()]))
    value = json.loads(data.read_text())
    value["programs"][0]["counts"].pop()
    data.write_text(json.dumps(value))
    done = run("coverage", str(data))
    assert done.exit_code == 2
    assert "6 instructions, counts of shape (5, 3)" in done.output


def lcov_records(text: str) -> dict[str, dict[str, list[str]]]:
    """Tracefile -> source file -> lines of each kind."""
    records: dict[str, dict[str, list[str]]] = {}
    current: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line == "end_of_record":
            current = {}
            continue
        kind, _, rest = line.partition(":")
        if kind == "SF":
            current = records.setdefault(rest, {})
        elif kind != "TN":
            current.setdefault(kind, []).append(rest)
    return records


def test_lcov_of_a_text_with_lines(tmp_path: Path) -> None:
    path = tmp_path / "http.bpf"
    path.write_text("; a remark\n" + HTTP)
    text = coverage_report.lcov(counted(str(path), [MAKE.tcp(), MAKE.arp()]), tmp_path / "none")
    (record,) = lcov_records(text).values()
    assert list(lcov_records(text)) == [str(path)]
    assert record["DA"] == ["2,2", "3,2", "4,1", "5,1", "6,1", "7,1"]
    assert record["BRDA"] == ["3,0,0,1", "3,0,1,1", "5,0,0,1", "5,0,1,0"]
    assert (record["LF"], record["LH"], record["BRF"], record["BRH"]) == (["6"], ["6"], ["4"], ["3"])
    assert not (tmp_path / "none").exists()


def test_lcov_of_what_has_no_source_gets_a_listing(tmp_path: Path) -> None:
    text = coverage_report.lcov(counted("udp port 53", [MAKE.dns()], "udp port 53"), tmp_path / "listings")
    ((name, record),) = lcov_records(text).items()
    assert Path(name).read_text().splitlines()[0] == "   0  ldh [12]"
    assert len(record["DA"]) == len(Path(name).read_text().splitlines())


def test_lcov_of_an_object_names_the_c_source(tmp_path: Path) -> None:
    engine = CountingEngine()
    filter = Filter(load_filter_argument(str(ROOT / "filters" / "ebpf" / "proto_counts.o")), engine=engine)
    for _ in range(3):
        filter.run(MAKE.tcp())
    text = coverage_report.lcov(engine.coverage(), tmp_path)
    ((name, record),) = lcov_records(text).items()
    assert name == "./filters/ebpf/proto_counts.c"
    source = (ROOT / "filters" / "ebpf" / "proto_counts.c").read_text().splitlines()
    executed = {int(row.split(",")[0]): int(row.split(",")[1]) for row in record["DA"]}
    add = next(n for n, line in enumerate(source, 1) if "__sync_fetch_and_add" in line)
    assert executed[add] == 3
    six = next(n for n, line in enumerate(source, 1) if "ETH_HLEN + IP6_NEXT_HEADER" in line)
    ways = [row.split(",")[3] for row in record["BRDA"] if row.startswith(f"{six},")]
    assert ways == ["-", "-"]


def test_programs_behind_a_program_array_count_on_their_own() -> None:
    opened = load(str(ROOT / "filters" / "ebpf" / "parser_chain.o"))
    engine = CountingEngine("chain")
    filter = Filter(opened.program("parser_chain"), engine=engine)
    for packet in (MAKE.tcp(), MAKE.tcp(src="2001:db8::1"), MAKE.udp(vlan=3)):
        filter.run(packet)
    found = {one.name: one for one in engine.coverage().programs}
    assert list(found) == ["chain", *(f"chain, parse_{name}" for name in ("vlan", "mpls", "ip", "ip6"))]
    began = {name: int(one.counts[0, 0]) for name, one in found.items()}
    assert began.pop("chain") == 3
    assert list(began.values()) == [1, 0, 2, 1]


def test_a_changed_program_array_does_not_mix_counters() -> None:
    opened = load(str(ROOT / "filters" / "ebpf" / "parser_chain.o"))
    engine = CountingEngine("chain")
    filter = Filter(opened.program("parser_chain"), engine=engine)
    filter.run(MAKE.tcp())
    (array,) = [one for one in filter.maps.values() if one.spec.kind == "PROG_ARRAY"]
    for index in list(array.programs()):
        array.delete(index.to_bytes(4, "little") if isinstance(index, int) else index)
    filter.run(MAKE.tcp())
    began = {one.name: int(one.counts[0, 0]) for one in engine.coverage().programs}
    assert (began["chain"], began["chain, parse_ip"]) == (2, 1)


def test_unreachable_instructions_count_for_nothing() -> None:
    found = counted("ja over\nret #1\nover: ret #0\n", [MAKE.tcp()])
    assert found.totals() == (2, 2, 0, 0)
    assert "cannot be reached" in coverage_report.annotate(found)


def test_replay_and_coverage_commands(tmp_path: Path, data: Path) -> None:
    for _ in range(2):
        done = run("replay", "pcaps/web.pcap", f"--coverage={data}", "-F", "filters/tcp-port-80.bpf")
        assert done.exit_code == 0, done.output
    assert "coverage of this run" in done.output
    found = json.loads(run("coverage", str(data), "--json").output)
    (program,) = found["programs"]
    assert program["instructions"][0]["executed"] == 420
    assert program["name"] == "filters/tcp-port-80.bpf"
    assert run("coverage", str(data)).output.startswith("filters/tcp-port-80.bpf  ")
    assert "ldh [12]" in run("coverage", str(data), "--annotate").output
    failed = run("coverage", str(data), "--fail-under", "100")
    assert failed.exit_code == 3
    merged = tmp_path / "merged"
    assert run("coverage", str(data), str(data), "--merge", str(merged)).exit_code == 0
    both = json.loads(run("coverage", str(merged), "--json").output)["programs"]
    assert both[0]["instructions"][0]["executed"] == 840
    assert run("coverage", str(data), "--lcov", str(tmp_path / "out.info")).exit_code == 0
    assert (tmp_path / "out.info").read_text().startswith("TN:pktbpf\nSF:")
    run("coverage", str(data), "--erase")
    assert "no coverage data" in run("coverage", str(data)).output


def test_replay_counts_what_the_reference_does(data: Path) -> None:
    """The same counts come out of the command as out of the engine alone."""
    run("replay", "pcaps/dns.pcap", f"--coverage={data}", "-F", "udp port 53", "-q")
    engine = CountingEngine()
    from pktbpf.capture.open import open_capture

    program = load_filter_argument("udp port 53", savefile=True)
    runner = engine.prepare(verify(program), Env())
    with open_capture(ROOT / "pcaps" / "dns.pcap") as source:
        for batch in source:
            with view(batch, profile("packet"), Env(), meta=False) as skbs:
                runner.run(skbs)
    (one,), (other,) = coverage_data.read(data).programs, engine.coverage().programs
    assert np.array_equal(one.counts, other.counts)


def test_coverage_does_not_eat_the_capture_nor_overwrite_it(tmp_path: Path) -> None:
    capture = tmp_path / "web.pcap"
    capture.write_bytes((ROOT / "pcaps" / "web.pcap").read_bytes())
    done = run("replay", str(capture), f"--coverage={capture}", "-F", "tcp")
    assert done.exit_code == 2
    assert capture.read_bytes() == (ROOT / "pcaps" / "web.pcap").read_bytes()
    assert run("replay", str(capture), "-F", "tcp", "--engine", "reference", "--coverage=x").exit_code == 2


def test_counts_of_a_slot_table() -> None:
    """of_program on counters made by hand: the third column is what was not taken."""
    program = verify(load_filter_argument("ldh [12]\njeq #0x800, yes, no\nyes: ret #1\nno: ret #0\n")).program
    counts = np.zeros((len(program.insns), 2), dtype=np.int64)
    counts[program.starts[0]] = (5, 0)
    counts[program.starts[1]] = (5, 2)  # JNE: taken is the false direction
    assert of_program("x", program, counts).counts[1].tolist() == [5, 3, 2]
