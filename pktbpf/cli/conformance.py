"""`pktbpf conformance`: the plug-in protocol of the bpf_conformance project, so that its runner can drive our engines.

Program bytes come as hex in the first line of standard input or with `--program`, memory as a hex argument; r0 goes to
standard output in hex. Anything wrong is a message on standard error and an exit code other than 0.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from pktbpf.errors import UsageError

if TYPE_CHECKING:
    from pktbpf.program import Program

MAX_INPUT = 64 << 20


@click.command()
@click.argument("memory", required=False, default="", metavar="[MEMORY]")
@click.option("--program", "text", metavar="HEX", help="The program, instead of standard input.")
@click.option("--elf", is_flag=True, help="The program is an ELF object.")
@click.option("--engine", type=click.Choice(("interpreter", "reference")), default="interpreter",
              help="What runs the program [interpreter].")  # fmt: skip
@click.option("--debug", is_flag=True, help="List the program on standard error.")
@click.argument("rest", nargs=-1, metavar="")
def command(memory: str, text: str | None, elf: bool, engine: str, debug: bool, rest: tuple[str, ...]) -> None:
    """Run a program over MEMORY and print r0; both are pairs of hexadecimal digits.

    r1 points to the memory and r2 is its length. Nothing is verified. As a plug-in of the bpf_conformance runner:
    a script with the line `exec pktbpf conformance "$@"`.

    \b
    Examples:
      echo 'b7 00 00 00 07 00 00 00 95 00 00 00 00 00 00 00' | pktbpf conformance
      pktbpf conformance 'aa bb cc' --engine reference < program.hex
    """
    if any(word.strip() for word in rest):  # the runner passes an empty argument for no options
        raise click.UsageError(f"unexpected argument {rest[0]!r}")
    area = _hex(memory, "MEMORY")
    if text is None:
        text = sys.stdin.buffer.read(MAX_INPUT + 1).decode("latin-1")
        if len(text) > MAX_INPUT:
            raise UsageError(f"more than {MAX_INPUT >> 20} MiB, this is no program")
    program = _program(_hex(text, "the program"), elf)
    if debug:
        from pktbpf.asm.extended_print import disassemble

        click.echo(disassemble(program), nl=False, err=True)
    from pktbpf.engine.conformance import run_memory

    click.echo(f"{run_memory(program, area, engine):x}")


def _hex(text: str, what: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise UsageError(f"{what} is not pairs of hexadecimal digits") from None


def _program(raw: bytes, elf: bool) -> Program:
    if elf:
        from pktbpf.engine.conformance import program_of_elf

        return program_of_elf(raw)
    from pktbpf.program import Program

    if not raw or len(raw) % 8:
        raise UsageError(f"a program of {len(raw)} bytes is not a whole number of 8-byte instructions")
    return Program.from_bytes(raw)
