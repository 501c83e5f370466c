"""What `pktbpf verify` shows of a refusal: a case for each family, its text as stored, its JSON in line with the text.

A case is NAME.ebpf in explained/: comments first (why it is refused, `privilege`, `limit`, the `kind` of the need and
of the `remedy`), then the program. NAME.txt is what is printed at 80 columns; PKTBPF_UPDATE_EXPLAINED=1 writes it.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

import pktbpf
from pktbpf.errors import errno_name
from pktbpf.program import Program
from pktbpf.report import refusal
from pktbpf.verifier import VerifierRefused, verify, walk

FOLDER = Path(__file__).parent / "explained"
CASES = sorted(FOLDER.glob("*.ebpf"))
OBJECTS = sorted((Path(__file__).parents[2] / "filters" / "ebpf" / "refused").glob("*.o"))
UPDATE = bool(os.environ.get("PKTBPF_UPDATE_EXPLAINED"))
EMPTY = {"privilege": "root", "limit": "1000000"}


def head(path: Path) -> dict[str, str]:
    """`key: value` comments of a case."""
    found = re.findall(r"^; (\w+): (.*)$", path.read_text(), re.MULTILINE)
    return EMPTY | dict(found)


def refused(program: Program, privilege: str) -> VerifierRefused:
    """The refusal of a program that must be refused."""
    with pytest.raises(VerifierRefused) as caught:
        verify(program, privilege=privilege)
    return caught.value


def check_text(program: Program, error: VerifierRefused, stored: Path) -> None:
    """The text is the stored one, and fits into 80 columns where words can be broken."""
    text = refusal.refused(program, error, width=80) + "\n"
    if UPDATE:
        stored.write_text(text)
    assert text == stored.read_text()
    body = text.split("\n\n", 2)[-1] if error.explanation.instructions else ""
    assert not [line for line in body.splitlines() if len(line) > 80 and " " in line[30:]]
    assert "\x1b" not in text
    assert "\x1b" in refusal.refused(program, error, width=80, colour=True)


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_case(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = head(path)
    monkeypatch.setattr(walk, "MAX_INSNS", int(fields["limit"]))
    program = pktbpf.load(path)
    error = refused(program, fields["privilege"])
    check_text(program, error, path.with_suffix(".txt"))
    why = error.explanation
    assert why.need is not None
    assert (why.need.kind, why.remedy.kind) == (fields["kind"], fields["remedy"])
    assert error.hint == why.remedy.text
    assert "\n" not in str(error)


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_json_has_all_of_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = head(path)
    monkeypatch.setattr(walk, "MAX_INSNS", int(fields["limit"]))
    program = pktbpf.load(path)
    error = refused(program, fields["privilege"])
    found = json.loads(json.dumps(refusal.as_object(program, error)))
    assert (found["errno"], found["insn"], found["reason"]) == (error.errno, error.insn, error.reason)
    why = found["explanation"]
    assert set(why) == {
        "insn", "text", "lines", "instructions", "path", "registers", "state", "need", "origin", "speculative",
        "remedy", "sources",
    }  # fmt: skip
    assert why["need"]["kind"] == fields["kind"]
    assert why["need"]["requires"]
    assert why["remedy"]["kind"] == fields["remedy"]
    for one in why["state"]:
        assert one["place"][0] == "f" or one["notation"] == why["registers"].get(one["place"], "")
    for one in why["origin"]:
        assert one["insn"] is None or one["text"]


def test_there_is_a_case_for_each_family() -> None:
    assert len(CASES) >= 45
    assert len({head(path)["kind"] for path in CASES}) >= 25


@pytest.mark.parametrize("path", OBJECTS, ids=[path.stem for path in OBJECTS])
def test_objects_show_their_source(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MAX_PENDING", 600)
    program = pktbpf.load(path).program()
    text = path.with_suffix(".c").read_text()
    privilege = "none" if "without CAP_PERFMON" in text.splitlines()[0] else "root"
    error = refused(program, privilege)
    found = errno_name(error.errno)
    assert f"({found})" in text.splitlines()[0]
    check_text(program, error, FOLDER / f"{path.stem}.object.txt")
    why = refusal.as_object(program, error)["explanation"]
    assert why["sources"][str(error.insn)].startswith(f"./filters/ebpf/refused/{path.stem}.c:")
