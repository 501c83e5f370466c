"""Coverage counters of the compiled core against the reference machines' steps, instruction by instruction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pktbpf.capture.batch import batch_of
from pktbpf.capture.open import open_capture
from pktbpf.engine.base import Env, Skbs, profile
from pktbpf.engine.reference import ENGINE as REFERENCE
from pktbpf.engine.reference import Random, Referenced
from pktbpf.engine.reference_classic import Machine, Returned
from pktbpf.engine.reference_extended import Exited
from pktbpf.engine.reference_packet import Faulted, LoadFailed, Packet
from pktbpf.engine.skb import view
from pktbpf.errors import PktbpfError
from pktbpf.explain.coverage import CountingEngine, ProgramCoverage
from pktbpf.filter import verify
from pktbpf.instance import Instance
from pktbpf.isa.extended import Kind
from pktbpf.loader import load, load_filter_argument
from pktbpf.program import ClassicProgram, Program, Verified
from pktbpf.testing import PacketBuilder

ROOT = Path(__file__).parents[2]
FILTERS = sorted(p for p in (ROOT / "filters").iterdir() if p.is_file())
CASES = sorted((ROOT / "tests" / "cases" / "classic").glob("*.case"))
CAPTURES = sorted((ROOT / "pcaps").glob("*.pcap*"))
SOCKETS = ("packet", "packet-dgram")

Tally = tuple[Counter[int], Counter[int], Counter[int]]


def classic_tally(program: ClassicProgram, skbs: Skbs, random: Random, tally: Tally) -> None:
    """Count what the plain classic machine does with every packet: executions, true and false branches."""
    executed, true, false = tally
    for row in range(len(skbs)):
        if not skbs.delivered[row]:
            continue
        machine = Machine(Packet.of(skbs, row), random)
        steps = machine.steps(program.insns)
        try:
            while True:
                pc = machine.pc
                executed[pc] += 1
                next(steps)
                insn = program.insns[pc]
                if insn.row is not None and insn.row.branch and insn.jt != insn.jf:
                    (true if machine.pc == pc + 1 + insn.jt else false)[pc] += 1
        except (Returned, LoadFailed, Faulted):
            pass


def extended_tally(program: Program, skbs: Skbs, reference: Referenced, tally: Tally) -> None:
    """The same on the plain extended machine, slot by slot."""
    executed, true, false = tally
    for row in range(len(skbs)):
        if not skbs.delivered[row]:
            continue
        machine = reference.machine(Packet.of(skbs, row))
        steps = machine.steps(program.insns)
        try:
            while True:
                pc = machine.pc
                executed[pc] += 1
                next(steps)
                insn = program.insns[pc]
                if insn.row is not None and insn.row.kind is Kind.BRANCH:
                    (true if machine.pc == pc + 1 + insn.off and insn.off else false)[pc] += 1
        except (Exited, LoadFailed, Faulted):
            pass


def views(attach: str, captures: list[Path]) -> Iterator[Skbs]:
    for path in captures:
        with open_capture(path) as source:
            for batch in source:
                with view(batch, profile(attach), Env(), meta=True) as skbs:
                    yield skbs


def table(tally: Tally, count: int) -> list[list[int]]:
    return [[one[number] for one in tally] for number in range(count)]


def coverage_of(verified: Verified, attach: str, captures: list[Path]) -> ProgramCoverage:
    engine = CountingEngine("filter")
    runner = engine.prepare(verified, Env())
    for skbs in views(attach, captures):
        runner.run(skbs)
    (found,) = engine.coverage().programs
    return found


@pytest.mark.parametrize("path", FILTERS, ids=lambda path: path.name)
def test_classic_counts_are_those_of_the_reference(path: Path) -> None:
    """Every shipped filter over every capture, whatever the capture's link type: the counts are what is compared."""
    program = load_filter_argument(str(path))
    assert isinstance(program, ClassicProgram)
    verified = verify(program)
    for attach in SOCKETS:
        found = coverage_of(verified, attach, CAPTURES)
        tally: Tally = (Counter(), Counter(), Counter())
        random = Random.seeded(0)
        for skbs in views(attach, CAPTURES):
            classic_tally(program, skbs, random, tally)
        assert found.counts.tolist() == table(tally, len(program))
        assert found.counts[0, 0] > 0


@pytest.mark.parametrize("path", FILTERS, ids=lambda path: path.name)
def test_extended_counts_are_those_of_the_reference(path: Path) -> None:
    """The translations, as programs of their own: per slot, on the extended machine."""
    classic = load_filter_argument(str(path))
    translated = verify(classic).program
    program = Program(translated.insns)
    verified = Verified(program, trusted=True)
    captures = [ROOT / "pcaps" / name for name in ("web.pcap", "vlan.pcap", "netlink.pcap", "dns.pcap")]
    found = coverage_of(verified, "packet", captures)
    reference = Referenced(program, Env(), Random.seeded(0))
    tally: Tally = (Counter(), Counter(), Counter())
    for skbs in views("packet", captures):
        extended_tally(program, skbs, reference, tally)
    assert found.counts.tolist() == table(tally, len(program))


def object_programs() -> list[tuple[Path, str | None]]:
    """Programs of filters/ebpf; of the tail-call chain its entry, from which the others are reached."""
    return [(p, "parser_chain" if p.stem == "parser_chain" else None)
            for p in sorted((ROOT / "filters" / "ebpf").glob("*.o"))]  # fmt: skip


@pytest.mark.parametrize(("path", "name"), object_programs(), ids=lambda value: getattr(value, "stem", ""))
def test_counts_of_objects_are_those_of_the_reference(path: Path, name: str | None) -> None:
    """Maps, helpers and tail calls: each side has maps of its own and sees the same packets in the same order."""
    captures = [ROOT / "pcaps" / "web.pcap", ROOT / "pcaps" / "vlan.pcap"]
    definition = verify(load_filter_argument(str(path), program=name))
    engine = CountingEngine("filter")
    runner = engine.prepare(Instance(admit=verify).bind(definition), Env())
    reference = REFERENCE.prepare(Instance(admit=verify).bind(definition), Env())
    tallies: dict[bytes, Tally] = {}
    for skbs in views("packet", captures):
        runner.run(skbs)
        for row in range(len(skbs)):
            object_tally(reference, Packet.of(skbs, row), tallies)
    for found in engine.coverage().programs:
        tally = tallies.get(found.program.to_bytes(), (Counter(), Counter(), Counter()))
        assert found.counts.tolist() == table(tally, len(found.program))
    assert sum(tally[0].total() for tally in tallies.values()) > 1000


def object_tally(reference: Referenced, packet: Packet, tallies: dict[bytes, Tally]) -> None:
    """One packet on the plain extended machine; a tail call goes on in the counters of the other program."""
    machine = reference.machine(packet)
    steps = machine.steps(reference.program.insns)
    try:
        while True:
            program, pc = machine.program, machine.pc
            executed, true, false = tallies.setdefault(program.to_bytes(), (Counter(), Counter(), Counter()))
            executed[pc] += 1
            next(steps)
            insn = program.insns[pc]
            if insn.row is not None and insn.row.kind is Kind.BRANCH:
                (true if machine.pc == pc + 1 + insn.off and insn.off else false)[pc] += 1
    except (Exited, Faulted):
        pass


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_counts_on_the_case_files(path: Path) -> None:
    """Every admitted program of tests/cases/classic over its own packets."""
    lines = path.read_text().splitlines()
    if any(line.startswith("refused: ") for line in lines):
        return
    attach = next(line.removeprefix("attach: ") for line in lines if line.startswith("attach: "))
    begin, end = lines.index("program:"), lines.index("packets:")
    program = load("\n".join(lines[begin + 1 : end]) + "\n", form="asm")
    rows = [line.split("->")[0].strip() for line in lines[end + 1 :] if "->" in line]
    batch = batch_of([b"" if row == "-" else bytes.fromhex(row) for row in rows])
    engine, tally = CountingEngine("case"), (Counter(), Counter(), Counter())
    runner = engine.prepare(verify(program), Env())
    with view(batch, profile(attach), Env(), meta=True) as skbs:
        runner.run(skbs)
        classic_tally(program, skbs, Random.seeded(0), tally)
    (found,) = engine.coverage().programs
    assert found.counts.tolist() == table(tally, len(program))
    assert found.counts[0, 0] >= 1


BRANCHES = """
    ldh [12]
    jeq #{a}, same, same
same: jset #8, {one}, {two}
one: jgt #0x90000000, two
    ldb [14]
    jge #0x45, three, two
three: jlt #0x46, two
    ldx #3
    jeq x, two, one_more
one_more: ret #1
two: ret #0
"""


@pytest.mark.parametrize("a", [0, 0x800, 0xFFFFFFFF])
@pytest.mark.parametrize(("one", "two"), [("one", "two"), ("two", "one")])
def test_every_shape_of_translated_branch(a: int, one: str, two: str) -> None:
    program = load_filter_argument(BRANCHES.format(a=a, one=one, two=two))
    assert isinstance(program, ClassicProgram)
    tally: Tally = (Counter(), Counter(), Counter())
    captures = CAPTURES[:6]
    for skbs in views("packet", captures):
        classic_tally(program, skbs, Random.seeded(0), tally)
    found = coverage_of(verify(program), "packet", captures)
    assert found.counts.tolist() == table(tally, len(program))


def test_totals_count_instructions_and_directions() -> None:
    program = load_filter_argument("ldh [12]\njeq #0x800, yes, no\nyes: ret #1\nno: ret #0\n")
    verified = verify(program)
    engine = CountingEngine()
    runner = engine.prepare(verified, Env())
    with view(batch_of([PacketBuilder().arp()] * 7), profile("packet"), Env(), meta=False) as skbs:
        runner.run(skbs)
    totals = engine.coverage().totals()
    assert totals == (4, 3, 2, 1)
    assert totals.percent == pytest.approx(100 * 4 / 6)
    (one,) = engine.coverage().programs
    assert one.counts.tolist() == [[7, 0, 0], [7, 0, 7], [0, 0, 0], [7, 0, 0]]


def test_wrong_form_is_a_usage_error(tmp_path: Path) -> None:
    from pktbpf.explain import coverage_data

    bad = tmp_path / "data"
    bad.write_text("{}")
    with pytest.raises(PktbpfError, match="no coverage data of version"):
        coverage_data.read(bad)
    bad.write_text("nothing")
    with pytest.raises(PktbpfError, match="is no coverage data"):
        coverage_data.read(bad)
