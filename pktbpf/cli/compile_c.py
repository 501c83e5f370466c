"""`pktbpf compile-c`: C source -> BPF object, with the clang of the machine."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from pktbpf.objfile.compile_c import CPUS, DEFAULT_CPU


@click.command()
@click.argument("source", metavar="FILE.c")
@click.option("-o", "output", metavar="OUT.o", help="The object to write [FILE.o in the current directory].")
@click.option("-I", "includes", metavar="DIR", multiple=True, help="Look for headers here first.")
@click.option("-D", "defines", metavar="NAME[=VALUE]", multiple=True, help="Define a macro.")
@click.option("--cpu", type=click.Choice(CPUS), default=DEFAULT_CPU, help=f"Instruction set [{DEFAULT_CPU}].")
@click.option("--clang", metavar="PATH", help="The compiler [clang, else the newest clang-N].")
@click.option("--show-command", is_flag=True, help="Print the command instead of running it.")
def command(
    source: str,
    output: str | None,
    includes: tuple[str, ...],
    defines: tuple[str, ...],
    cpu: str,
    clang: str | None,
    show_command: bool,
) -> None:
    """Compile C to an object that replay, dis and prog take.

    Where clang refuses the source, all that it says is shown and the last line repeats its first error; that and a
    missing clang end with 1.

    \b
    Examples:
      pktbpf compile-c filters/ebpf/proto_counts.c -o proto_counts.o
      pktbpf compile-c probe.c -I include -D DEBUG=1 --cpu v2 --show-command
    """
    from pktbpf.errors import ObjectError
    from pktbpf.objfile import load_object
    from pktbpf.objfile.compile_c import CompileError, clang_command, compile_c

    target = output or Path(source).with_suffix(".o").name
    if show_command:
        arguments = clang_command(source, target, includes=includes, defines=defines, cpu=cpu, clang=clang or "clang")
        click.echo(shlex.join(arguments))
        return
    try:
        warnings = compile_c(source, target, includes=includes, defines=defines, cpu=cpu, clang=clang)
    except CompileError as error:
        if error.diagnostics.strip():
            click.echo(error.diagnostics.rstrip(), err=True)
        raise
    if warnings:
        click.echo(warnings.rstrip(), err=True)
    try:
        found = load_object(target)
    except ObjectError as error:  # it is compiled; what this machine cannot make of it is worth a word
        click.echo(f"pktbpf: note: {error}", err=True)
        return
    programs, maps = ", ".join(found.programs) or "none", ", ".join(found.maps) or "none"
    click.echo(f"pktbpf: note: {target}: programs {programs}; maps {maps}", err=True)
