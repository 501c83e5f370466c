"""What `compile`, `asm` and `dis` share: the forms a program is printed in, where it goes, and how PROG is given.

Text goes to standard output or the file of `-o`; raw bytes never go to a terminal. `-d`, `-dd` and `-ddd` are
tcpdump's, and shorthands of `--to`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pktbpf.errors import KernelUnavailable, UsageError
from pktbpf.program import ClassicProgram, Program

F = TypeVar("F", bound=Callable[..., Any])

FORMS = ("asm", "d", "dd", "ddd", "line", "c", "hex", "raw")
FORMS_HELP = (
    "Form of the output: asm (bpf_asm text; of an extended program the kernel's wording), d, dd, ddd (as tcpdump), "
    "line (ddd on one line, for xt_bpf), c (a C array), hex, raw (bytes)."
)


def output_options(function: F) -> F:
    """-d (counted), --to and -o."""
    function = click.option("-o", "output", metavar="OUT", help="Write to this file; - is standard output.")(function)
    function = click.option("--to", "form", type=click.Choice(FORMS), help=FORMS_HELP)(function)
    return click.option("-d", "dump", count=True, help="Listing as tcpdump's -d; -dd: C array; -ddd: decimal.")(
        function
    )


def input_options(function: F) -> F:
    """How PROG is read."""
    function = click.option("--program", metavar="NAME", help="Which program of an object, or array of a C source.")(
        function
    )
    function = click.option("--form", "source_form", metavar="FORM", help="Read PROG as this form, without guessing.")(
        function
    )
    function = click.option("-O", "unoptimized", is_flag=True, help="Compile an expression without optimizing.")(
        function
    )
    return click.option("-y", "linktype", metavar="DLT", help="Link type an expression is compiled for [EN10MB].")(
        function
    )


def read_program(
    prog: str, linktype: str | None, unoptimized: bool, source_form: str | None, program: str | None
) -> Any:
    """PROG of the command line: a file in any form, text, an expression, or - for standard input."""
    from pktbpf.loader import load_filter_argument

    return load_filter_argument(prog, linktype, optimize=not unoptimized, form=source_form, program=program)


def chosen_form(dump: int, form: str | None, default: str) -> str:
    """The form that -d and --to ask for. Raises UsageError where they contradict each other."""
    if not dump:
        return form or default
    counted = "d" * min(dump, 3)
    if form is not None and form != counted:
        raise UsageError(f"-{counted} and --to {form} contradict each other")
    return counted


def render(program: ClassicProgram | Program, form: str) -> str | bytes:
    """The program in a form of FORMS. Raises UsageError where an extended program has no such form."""
    if form in ("raw", "hex") and isinstance(program, Program) and program.kfuncs:
        program = _numbered(program)
    if form == "raw":
        return program.to_bytes()
    if form == "hex":
        raw = program.to_bytes()
        return "".join(raw[at : at + 8].hex(" ") + "\n" for at in range(0, len(raw), 8))
    if isinstance(program, Program):
        if form != "asm":
            raise UsageError(f"an extended program has no form {form!r}; it has asm, hex and raw")
        from pktbpf.asm import extended_print

        return extended_print.disassemble(program)
    from pktbpf.asm import classic_dis, listing

    writers: dict[str, Callable[[ClassicProgram], str]] = {
        "asm": classic_dis.disassemble,
        "d": listing.to_d,
        "dd": listing.to_dd,
        "ddd": listing.to_ddd,
        "line": listing.to_xt_bpf,
        "c": listing.to_c,
    }
    return writers[form](program)


def _numbered(program: Program) -> Program:
    """Bytes have no names of kernel functions, only one kernel's numbers: those of the kernel that runs here."""
    from pktbpf.kernel.loading import numbered
    from pktbpf.kernel.syscall import LoadRefused

    try:
        found = numbered(program)
    except (KernelUnavailable, LoadRefused) as why:
        raise UsageError(f"kernel functions have no number in bytes without a kernel: {why}; use --to asm") from why
    click.echo("pktbpf: note: kernel functions have the numbers of the running kernel", err=True)
    return found


def write(program: ClassicProgram | Program, form: str, output: str | None) -> None:
    """Print, or write to the file `output`. Raises UsageError rather than sending bytes to a terminal."""
    write_text(render(program, form), output)


def write_text(content: str | bytes, output: str | None) -> None:
    """The same for a program that is rendered already."""
    if output not in (None, "-"):
        data = content if isinstance(content, bytes) else content.encode()
        Path(str(output)).write_bytes(data)
    elif isinstance(content, bytes):
        if sys.stdout.isatty():
            raise UsageError("raw bytes do not go to a terminal; give -o FILE, or --to hex")
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        click.echo(content, nl=False)
