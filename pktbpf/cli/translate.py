"""`pktbpf translate`: a classic filter beside the extended program that the kernel makes of it."""

from __future__ import annotations

import click

from pktbpf.cli import _forms
from pktbpf.errors import UsageError


@click.command(short_help="Show what the kernel makes of a classic filter.")
@click.argument("prog", metavar="PROG")
@click.option("-y", "linktype", metavar="DLT", help="The link type that an expression is compiled for [EN10MB].")
@click.option("-O", "no_optimize", is_flag=True, help="Compile an expression without libpcap's optimizer.")
@click.option("--format", "form", type=click.Choice(("text", "json")), default="text", help="Listing or JSON [text].")
@click.option("-o", "output", metavar="OUT", help="Write struct bpf_insn[] instead; - is standard output.")
def command(prog: str, linktype: str | None, no_optimize: bool, form: str, output: str | None) -> None:
    """Show what the kernel makes of a classic filter, instruction by instruction.

    PROG is a file in any form, an expression, or - for standard input.

    \b
    Examples:
      pktbpf translate filters/tcp-port-80.bpf
      pktbpf translate 'icmp' -o icmp.bin
    """
    from pktbpf import loader
    from pktbpf.program import ClassicProgram
    from pktbpf.translator import translate

    classic = loader.load_filter_argument(prog, linktype=linktype, optimize=not no_optimize)
    if not isinstance(classic, ClassicProgram):
        raise UsageError(f"{prog} is an extended program already; `pktbpf dis` lists it")
    program = translate(classic)
    from pktbpf.report import translation

    if output is not None:
        if program.internal_calls:
            click.echo(f"pktbpf: note: {translation.total(program).splitlines()[-1]}", err=True)
        _forms.write(program, "raw", output)
    elif form == "json":
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(translation.as_object(program)), indent=2))
    else:
        click.echo(translation.render(program))
