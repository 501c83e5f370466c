"""`pktbpf debug`: step through a filter over the packets of a capture, forwards and backwards."""

from __future__ import annotations

import sys
from typing import Any

import click

from pktbpf.cli._traces import tracer, tracing_options
from pktbpf.errors import UsageError


@click.command()
@tracing_options
@click.option("-n", "--packet", "number", type=click.IntRange(min=1), default=1, metavar="N",
              help="The packet to begin with [1].")  # fmt: skip
@click.option("-x", "--execute", "given", multiple=True, metavar="COMMAND", help="Run this command first; repeatable.")
def command(number: int, given: tuple[str, ...], **options: Any) -> None:
    """Debug a filter over a capture on a terminal, or with commands on standard input.

    Commands: step, back, run, until N, break N, break CONDITION, next [accepted | N true], packet [N], regs, stack,
    maps, list, why, help, quit. An empty line repeats the last step.

    \b
    Examples:
      pktbpf debug web.pcap --filter filters/tcp-port-80.bpf --packet 25
      echo 'break ip.proto == 6; run; regs' | tr ';' '\\n' | pktbpf debug web.pcap -F filters/tcp-port-80.bpf
    """
    from pktbpf.explain.debugger import Debugger

    if options["capture"] == "-":
        raise UsageError("standard input has the commands; give the capture as a file")
    debugger = Debugger(lambda: tracer(options))
    try:
        lines = debugger.go_to(number)
    except UsageError as error:
        raise UsageError(f"{options['capture']}: {error}") from None
    click.echo("\n".join(lines))
    for one in given:
        _show(debugger.execute(one))
    _converse(debugger)


def _converse(debugger: Any) -> None:
    """Read commands to the end of input or `quit`."""
    interactive = sys.stdin.isatty()
    if interactive:
        import readline  # noqa: F401  input() edits lines once it is imported
    last = ""
    while not debugger.done:
        try:
            line = input(debugger.prompt if interactive else "")
        except EOFError:
            if interactive:
                click.echo()
            return
        except KeyboardInterrupt:
            click.echo()
            continue
        if not line.strip() and last.split()[:1] in (["step"], ["s"], ["back"]):
            line = last
        last = line
        _show(debugger.execute(line))


def _show(lines: list[str]) -> None:
    if lines:
        click.echo("\n".join(lines))
