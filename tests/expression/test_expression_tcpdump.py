"""Listings byte for byte as tcpdump's, for the expressions of expressions.txt over four link types."""

import subprocess
from pathlib import Path

import pytest
from tcpdump_oracle import EXPRESSIONS, LINKTYPES, require_tcpdump, tcpdump

import pktbpf
from pktbpf.asm import listing
from pktbpf.errors import ExpressionError

FORMS = {"-d": listing.to_d, "-dd": listing.to_dd, "-ddd": listing.to_ddd}
BATCHES = 8


def ours(expression: str, linktype: str, form: str, optimize: bool = True) -> tuple[str, str]:
    try:
        return FORMS[form](pktbpf.compile(expression, linktype, optimize)), ""
    except ExpressionError as error:
        return "", str(error)


def test_there_are_enough_expressions() -> None:
    assert len(EXPRESSIONS) == len(set(EXPRESSIONS)) >= 320


@pytest.mark.parametrize("linktype", LINKTYPES)
def test_most_expressions_compile(linktype: str) -> None:
    """The comparison below is not one of error messages."""
    compiled = [text for text in EXPRESSIONS if ours(text, linktype, "-d")[0]]
    assert len(compiled) >= 320


@pytest.mark.parametrize("batch", range(BATCHES))
@pytest.mark.parametrize("linktype", LINKTYPES)
def test_one_form_of_every_expression(tmp_path_factory: pytest.TempPathFactory, linktype: str, batch: int) -> None:
    """Each expression in one form per link type; the forms take turns, and every fifth is not optimised."""
    require_tcpdump()
    directory = tmp_path_factory.getbasetemp()
    shift = list(LINKTYPES).index(linktype)
    wrong = []
    for number, text in list(enumerate(EXPRESSIONS))[batch::BATCHES]:
        form = list(FORMS)[(number + shift) % 3]
        optimize = (number + shift) % 5 != 0
        theirs = tcpdump(directory, linktype, text, form, *(() if optimize else ("-O",)))
        if theirs != ours(text, linktype, form, optimize):
            wrong.append((text, form, theirs, ours(text, linktype, form, optimize)))
    assert not wrong


@pytest.mark.long
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("linktype", LINKTYPES)
def test_every_form_of_every_expression(tmp_path: Path, linktype: str, form: str) -> None:
    require_tcpdump()
    for optimize in (True, False):
        flags = (form,) if optimize else (form, "-O")
        wrong = [
            text
            for text in EXPRESSIONS
            if tcpdump(tmp_path, linktype, text, *flags) != ours(text, linktype, form, optimize)
        ]
        assert not wrong


@pytest.mark.parametrize("expression", ["inbound", "outbound", "outbound and tcp port 80"])
def test_directions_are_those_of_a_live_capture(expression: str) -> None:
    """tcpdump refuses them for most capture files; as packets here have a type, the live program is the useful one."""
    require_tcpdump()
    done = subprocess.run(["tcpdump", "-i", "lo", "-d", expression], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"tcpdump cannot open a live device here: {done.stderr.strip()}")
    assert ours(expression, "EN10MB", "-d") == (done.stdout, "")
