"""Every refusal of thousands of nearly right programs is explained: a path that the program has, origins that define
what they say, a need for each message, and remedies that mend what they are about.

`PKTBPF_VERIFIER_SEED` chooses other programs.
"""

from __future__ import annotations

import ast
import os
import random
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from verifier_cases import made
from verifier_generate import programs

from pktbpf.errors import ProgramRefused
from pktbpf.isa.extended import Insn
from pktbpf.program import Program
from pktbpf.report import refusal
from pktbpf.verifier import VerifierRefused, explanation, reasons, verify, walk
from pktbpf.verifier.explanation import Explanation, Origin
from pktbpf.verifier.profile import NEWEST, VERSIONS
from pktbpf.verifier.reasons import need
from pktbpf.verifier.reasons.way import Branch, Rounds, Way, fold

SEED = int(os.environ.get("PKTBPF_VERIFIER_SEED", "3000000"))
_LINE = re.compile(r"^(\d+): \(", re.MULTILINE)


def refusals(
    privilege: str, first: int, count: int, feature: str | None = None, kernel: str = NEWEST
) -> list[tuple[int, VerifierRefused]]:
    """(seed, error) of the refused programs among `count`."""
    found = []
    for seed, _, insns in programs(first, count, feature, privilege=privilege):
        try:
            verify(made(insns), privilege=privilege, kernel=kernel)
        except VerifierRefused as error:
            found.append((seed, error))
    return found


def test_a_refusal_as_data() -> None:
    insns = (Insn(0x61, 7, 1), Insn(0x25, 7, 0, 2, 3), Insn(0xB7), Insn(0x95), Insn(0x71, 0, 7), Insn(0x95))
    with pytest.raises(VerifierRefused) as caught:
        verify(Program(insns))
    why = caught.value.explanation
    assert (why.insn, why.text, why.lines) == (4, "(71) r0 = *(u8 *)(r7 +0)", ("R7 invalid mem access 'scalar'",))
    assert (why.instructions, why.path) == ((0, 1, 4), (Branch(1, 4, "taken", "r7 > 3"),))
    assert why.registers == {"R1": "ctx()", "R7": why.state[0].notation, "R10": "fp0"}
    assert (why.state[0].place, why.state[0].words) == ("R7", "4..0xffffffff")
    assert [(one.insn, one.place, one.how, one.value) for one in why.origin] == [
        (0, "R7", "load", "any 32-bit number"), (1, "R7", "tested", "4..0xffffffff"),
    ]  # fmt: skip
    assert caught.value.hint == why.remedy.text == "put an address into r7 before instruction 4"


# ---- paths


def is_edge(insns: tuple[Insn, ...], index: int, following: int, calls: list[int]) -> bool:
    """Whether the program can go from one instruction to the next; `calls` are the call sites on the way."""
    insn = insns[index]
    kind, operation = insn.code & 7, insn.code & 0xF0
    if kind not in (5, 6):
        if following == index + (2 if insn.code == 0x18 else 1):
            return True
        return kind == 0 and bool(calls) and following == calls.pop() + 1
    if operation == 0x90:
        site = calls.pop() if calls else None
        return site is not None and following in (site, site + 1)
    if operation == 0x80:
        if following == index + 1:
            return True
        if insn.src == 0 and insn.imm == 12:
            # A tail call may end the function that it stands in.
            return bool(calls) and following == calls.pop() + 1
        calls.append(index)
        return following == index + insn.imm + 1 if insn.src == 1 else insn.src == 0
    distance = insn.imm if insn.code == 0x06 else insn.off
    targets = {index + distance + 1} if operation == 0x00 else {index + distance + 1, index + 1}
    return following in targets


def check_path(insns: tuple[Insn, ...], why: Explanation) -> None:
    """Each step is an edge of the program, from its start to the refused instruction."""
    path = why.instructions
    if not path:
        return
    assert path[-1] == why.insn
    assert path[0] == 0 or insns[path[0] - 1].code == 0x95
    calls: list[int] = []
    for index, following in pairwise(path):
        assert is_edge(insns, index, following, calls), (index, following)
    decided = [one for one in unfolded(why.path) if one.how in ("taken", "not taken")]
    tested = [index for index in path[:-1] if is_decision(insns[index])]
    assert [one.insn for one in decided] == tested


def is_decision(insn: Insn) -> bool:
    return insn.code & 7 in (5, 6) and insn.code & 0xF0 not in (0x00, 0x80, 0x90)


def unfolded(path: Way) -> list[Branch]:
    """The branches with loops written out."""
    out: list[Branch] = []
    for one in path:
        out += [one] if isinstance(one, Branch) else unfolded(one.body) * one.times
    return out


# ---- origins


def check_origin(insns: tuple[Insn, ...], why: Explanation) -> None:
    """Each entry is on the path, and its instruction sets or tests its place."""
    passed = set(why.instructions)
    for one in why.origin:
        if one.insn is not None:
            assert one.insn in passed
            assert defines(insns[one.insn], one), one


def defines(insn: Insn, one: Origin) -> bool:
    kind, operation = insn.code & 7, insn.code & 0xF0
    if one.place[0] == "f":
        return kind in (2, 3) or (insn.code == 0x85 and one.how == "written")
    number = int(one.place[1:])
    if one.how == "tested":
        return is_decision(insn) and number in (insn.dst, insn.src)
    if kind in (5, 6):
        if operation == 0x90:
            return number == 0 and one.how == "returned"
        return operation == 0x80 and (number == 0 or (number < 6 and one.how in ("cleared", "argument")))
    if kind == 0 and insn.code != 0x18:
        return number == 0 or (number < 6 and one.how == "cleared")
    if kind == 3:
        return number in (0, insn.src, insn.dst)
    return insn.dst == number


def check(privilege: str, first: int, count: int, kernel: str = NEWEST) -> int:
    """Explain all; how many there were."""
    found = refusals(privilege, first, count, kernel=kernel)
    generated = {seed: insns for seed, _, insns in programs(first, count, privilege=privilege)}
    for seed, error in found:
        program, why = made(generated[seed]), error.explanation
        text = refusal.refused(program, error, width=80)
        assert text.startswith("refused"), seed
        assert refusal.as_object(program, error)["explanation"]["lines"] == list(why.lines)
        assert why.need is not None, (seed, why.lines)
        assert why.remedy.text, (seed, why.lines)
        check_path(program.insns, why)
        check_origin(program.insns, why)
    return len(found)


@pytest.mark.parametrize("privilege", ["root", "none", "cap_bpf"])
def test_every_refusal_is_explained(privilege: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MAX_INSNS", 2000)
    assert check(privilege, SEED, 500) > 125


@pytest.mark.parametrize("kernel", VERSIONS[:-1])
def test_refusals_of_older_kernels_are_explained(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MAX_INSNS", 2000)
    assert check("none", SEED + 5000, 300, kernel) > 80


@pytest.mark.long
@pytest.mark.parametrize("privilege", ["root", "none", "cap_bpf"])
def test_every_refusal_of_many_is_explained(privilege: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MAX_INSNS", 20_000)
    assert check(privilege, SEED + 1_000_000, 30_000) > 10_000


def test_the_path_is_that_of_the_log() -> None:
    """Two ways to the same path: what the history says, and the log of level 1, which forgets the other paths."""
    seen = 0
    for feature in ("arithmetic", "calls", "loops", "joins", "packet", "anyhelper"):
        for seed, error in refusals("root", SEED, 60, feature):
            (insns,) = (insns for _, _, insns in programs(seed, 1, feature))
            if not error.explanation.instructions or error.errno == 7:
                continue
            with pytest.raises(ProgramRefused) as caught:
                verify(made(insns), log_level=1)
            logged = [int(number) for number in _LINE.findall(caught.value.log)]
            path = list(error.explanation.instructions)
            assert logged == (path[:-1] if error.reason.startswith("infinite loop") else path), seed
            seen += 1
    assert seen > 100


def test_long_paths_are_explained_without_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasons.trail, "LONGEST", 10)
    for seed, error in refusals("root", SEED, 400):
        (insns,) = (insns for _, _, insns in programs(seed, 1))
        check_path(insns, error.explanation)
        check_origin(insns, error.explanation)
        assert refusal.refused(made(insns), error, width=80)


def test_loops_are_folded() -> None:
    a, b, c = (Branch(n, n + 5, "taken", "") for n in range(3))
    assert fold([a, b, c]) == (a, b, c)
    assert fold([a, b, a, b, a, b, c]) == (Rounds(3, (a, b)), c)
    assert fold([c, a, b, b, b, a, b, b, b]) == (c, Rounds(2, (a, Rounds(3, (b,)))))
    rng = random.Random(3)
    for _ in range(300):
        walked = [rng.choice((a, b, c)) for _ in range(rng.randrange(40))]
        assert unfolded(fold(walked)) == walked


# ---- remedies


def inserted(insns: tuple[Insn, ...], at: int, new: Insn) -> tuple[Insn, ...]:
    """The program with `new` in front of instruction `at`, a jump to an exit at the end; jumps to `at` meet it."""
    out = []
    for index, insn in enumerate(insns):
        place = index + (index >= at)
        jumps = insn.code & 7 in (5, 6) and insn.code & 0xF0 not in (0x80, 0x90)
        call = insn.code == 0x85 and insn.src == 1
        if jumps or call:
            target = index + 1 + (insn.off if jumps else insn.imm)
            distance = target + (target > at) - place - 1
            insn = insn._replace(off=distance) if jumps else insn._replace(imm=distance)
        if index == at:
            out.append(new._replace(off=len(insns) - at))
        out.append(insn)
    return (*out, Insn(0xB7), Insn(0x95))


def checks(kind: str, register: int, data: Mapping[str, Any]) -> list[Insn]:
    """The conditional jumps that a remedy asks for."""
    if kind == "null_check":
        return [Insn(0x15, register)]
    least = [Insn(0xA5, register, 0, 0, data["least"])] if data["least"] else []
    return [*least, Insn(0x25, register, 0, 0, data["most"])]


def outcome(insns: tuple[Insn, ...]) -> ProgramRefused | None:
    """The refusal, None for none."""
    try:
        verify(made(insns))
    except ProgramRefused as error:
        return error
    return None


@pytest.mark.parametrize("feature", ["lookup", "arithmetic", "linked", "joins", "loops"])
def test_remedies_mend(feature: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the test that the remedy asks for, the program is accepted or refused for another reason or further on."""
    monkeypatch.setattr(walk, "MAX_INSNS", 1000)
    tried = mended = 0
    for seed, error in refusals("root", SEED, 800, feature):
        why = error.explanation
        data = why.remedy.data or {}
        if why.remedy.kind not in ("null_check", "bound") or why.remedy.insn is None or "insert" not in why.remedy.text:
            continue
        (insns,) = (insns for _, _, insns in programs(seed, 1, feature))
        if any(insn.code == 0x85 and insn.src == 1 for insn in insns):
            continue
        register, added = int(data["register"][1:]), 0
        for test in checks(why.remedy.kind, register, data):
            insns = inserted(insns, why.remedy.insn, test)
            added += 1
        tried += 1
        second = outcome(insns)
        again = second is not None and second.insn == (why.insn or 0) + added and second.reason == error.reason
        mended += not again
    assert tried > 5, (tried, mended)
    assert mended > tried * 0.95, (tried, mended)


# ---- every message


def messages() -> list[tuple[str, str]]:
    """(file, first line) of all refusals that the verifier's sources spell out; what they insert is a 1."""
    found = []
    for path in sorted(Path(explanation.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                skip = {"invalid": 0, "denied": 0, "unsupported": 0, "refuse": 1}.get(node.func.id)
                if skip is not None and len(node.args) > skip:
                    prefix = "cannot be judged offline: " if node.func.id == "unsupported" else ""
                    lines = node.args[skip:]
                    # Lines put together elsewhere may come first: then any of the others.
                    chosen = lines[1:] if isinstance(lines[0], ast.Starred) else lines[:1]
                    found += [(path.name, prefix + text) for line in chosen for text in texts(line)]
    return found


def texts(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return ["".join(part.value if isinstance(part, ast.Constant) else "1" for part in node.values)]  # type: ignore[misc]
    if isinstance(node, ast.IfExp):
        return texts(node.body) + texts(node.orelse)
    return []


# What the sources put together from parts, as a 1 in the middle of it.
COMPOSED = re.compile(
    r"^1 (cannot be accessed|access|bpf_1|1 1 is not)|prohibited|, 1$|1 stack R1|1 read from|^1 should|^R1 1$"
)


def test_every_message_has_a_need() -> None:
    found = messages()
    assert len(found) > 150
    rules = [*need._OF_STATES, *need._OF_PROGRAMS]
    missing = [one for one in found if not any(pattern.search(one[1]) for pattern, _ in rules)]
    assert not [one for one in missing if not COMPOSED.search(one[1])]


def test_refusals_before_and_after_the_walk_are_explained() -> None:
    for insns, kind in (((), None), ((Insn(0x95, 0, 0, 0, 0),) * 5000, "budget"), ((Insn(0xB7), Insn(0xB7)), "end")):
        with pytest.raises(VerifierRefused) as caught:
            verify(Program(insns), privilege="none")
        why = caught.value.explanation
        assert (why.need.kind if why.need is not None else None) == kind
        assert refusal.refused(Program(insns), caught.value)
