"""`pktbpf dis`: a filter in any form as text that assembles back to the same bytes."""

from __future__ import annotations

import click

from pktbpf.cli import _forms


@click.command()
@click.argument("prog", metavar="PROG")
@_forms.output_options
@_forms.input_options
def command(
    prog: str,
    dump: int,
    form: str | None,
    output: str | None,
    linktype: str | None,
    unoptimized: bool,
    source_form: str | None,
    program: str | None,
) -> None:
    """Disassemble PROG: raw bytes, an object, or any other form of a filter; - is standard input.

    The text is bpf_asm's with labels, or the kernel's wording of an extended program, and `pktbpf asm` makes the same
    bytes of it. -d prints it as tcpdump does, with instruction numbers. Of an object all programs are listed, with
    maps, source lines, labels and the names of functions; --program chooses one.

    \b
    Examples:
      pktbpf dis tcp80.bin
      pktbpf dis -d '4,40 0 0 12,21 0 1 2048,6 0 0 65535,6 0 0 0'
      tcpdump -ddd icmp | pktbpf dis -
      pktbpf dis filters/ebpf/parser_chain.o
    """
    if dump == 0 and form in (None, "asm"):
        listing = _object(prog, program, linktype, unoptimized, source_form)
        if listing is not None:
            _forms.write_text(listing, output)
            return
    loaded = _forms.read_program(prog, linktype, unoptimized, source_form, program)
    _forms.write(loaded, _forms.chosen_form(dump, form, "asm"), output)


def _object(
    prog: str, program: str | None, linktype: str | None, unoptimized: bool, source_form: str | None
) -> str | None:
    """The programs of an object as text, each after its name; None for anything but an object."""
    from pktbpf import loader
    from pktbpf.asm import extended_print
    from pktbpf.objfile import Object
    from pktbpf.program import Program

    found = loader.load_argument(prog, linktype, optimize=not unoptimized, form=source_form, program=program)
    if isinstance(found, Object):
        programs = list(found.programs.values()) or [found.program()]
    elif isinstance(found, Program) and found.btf is not None:
        programs = [found]
    else:
        return None
    return "\n".join(extended_print.disassemble(one, labels=True) for one in programs)
