"""`pktbpf asm`: filter text to bytes, C arrays or decimal listings."""

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
    """Assemble PROG: bpf_asm text, a listing, extended text, or any other form of a filter; - is standard input.

    Extended text names maps (`r1 = map[NAME] ll`), helpers and kernel functions (`call NAME`) and variables of the
    kernel (`r1 = ksym[NAME] ll`). Without -o, the C array of `tcpdump -dd` is printed (an extended program as hex);
    with -o, raw bytes are written.

    \b
    Examples:
      pktbpf asm filters/tcp-port-80.bpf
      pktbpf asm filters/tcp-port-80.bpf -o tcp80.bin
      echo 'ret #0' | pktbpf asm - --to line
    """
    from pktbpf.program import Program

    loaded = _forms.read_program(prog, linktype, unoptimized, source_form, program)
    default = "raw" if output not in (None, "-") else "hex" if isinstance(loaded, Program) else "dd"
    _forms.write(loaded, _forms.chosen_form(dump, form, default), output)
