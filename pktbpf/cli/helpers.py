"""`pktbpf helpers`: what a socket filter may call of the kernel, who may load such a program, and what runs here."""

from __future__ import annotations

import json

import click

from pktbpf.abi.helpers import NUMBERS
from pktbpf.engine.supported import Support, kfunc_table, table
from pktbpf.errors import UsageError


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME|NUMBER]...")
@click.option("--kfuncs", is_flag=True, help="Kernel functions that go by name (kfuncs) instead of helpers.")
@click.option("--format", "form", type=click.Choice(("text", "json")), default="text", help="[text]")
def command(names: tuple[str, ...], kfuncs: bool, form: str) -> None:
    """List what the kernel lets a socket filter call: number, name, who may load such a program, the first Linux
    version that has it, and whether it runs here or why not.

    GPL marks what only programs with a GPL-compatible license may call.

    \b
    Examples:
      pktbpf helpers
      pktbpf helpers ringbuf_output 35
      pktbpf helpers --kfuncs --format json
    """
    rows = kfunc_table() if kfuncs else table()
    if names:
        rows = [_row(name, rows, kfuncs) for name in names]
    if form == "json":
        click.echo(json.dumps([_object(row) for row in rows], indent=2))
        return
    width = max(len(_title(row)) for row in rows)
    loaders = max(len(row.loader) for row in rows)
    for row in rows:
        number = "" if row.number is None else f"{row.number:>3d}  "
        gpl = "GPL" if row.gpl else ""
        runs = f"refused: {row.reason}" if row.reason else "runs"
        click.echo(f"{number}{_title(row):<{width}}  {row.loader:<{loaders}}  {row.since:<4}  {gpl:<3}  {runs}")


def _title(row: Support) -> str:
    return row.name if row.number is None else f"bpf_{row.name}"


def _row(wanted: str, rows: list[Support], kfuncs: bool) -> Support:
    """The line of a name, with or without `bpf_`, or of a number."""
    plain = wanted if kfuncs else wanted.removeprefix("bpf_")
    for row in rows:
        if plain in (row.name, str(row.number)) or (kfuncs and f"bpf_{plain}" == row.name):
            return row
    if not kfuncs and (plain in NUMBERS or plain in map(str, NUMBERS.values())):
        raise UsageError(f"{wanted}: a socket filter cannot call this helper; `pktbpf helpers` lists those it can")
    other = "helpers" if kfuncs else "helpers --kfuncs"
    kind = "kernel function" if kfuncs else "helper"
    raise UsageError(f"{wanted}: no such {kind} for socket filters; see `pktbpf {other}`, too")


def _object(row: Support) -> dict[str, object]:
    return {
        "number": row.number,
        "name": _title(row),
        "loader": row.loader,
        "since": row.since,
        "gpl_only": row.gpl,
        "runs": not row.reason,
        "reason": row.reason or None,
    }
