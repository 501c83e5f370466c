"""`pktbpf parity`: the live kernel's verdict beside ours, packet by packet."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from pktbpf.cli import _objects, one_line
from pktbpf.engine import NAMES as ENGINES
from pktbpf.errors import CheckFailed

if TYPE_CHECKING:
    from pktbpf.engine.base import Env
    from pktbpf.kernel.rigs import Rig

RIGS = ("unix", "packet", "packet-dgram", "udp", "raw-ip")


@click.command()
@click.argument("capture", required=False, metavar="CAPTURE")
@click.option("-F", "--filter", "prog", metavar="PROG", help="A file in any form, or a pcap-filter expression.")
@click.option("--program", "name", metavar="NAME", help="The program of an object that has several.")
@click.option("--set", "values", multiple=True, metavar="NAME=VALUE",
              help="Set a global variable of an object, or say what the kernel's are: runqueues[1].cpu=1.")  # fmt: skip
@click.option("--rig", type=click.Choice(RIGS), default="unix",
              help="The live socket; unix needs no root, the others a network namespace [unix].")  # fmt: skip
@click.option("-c", "count", type=click.IntRange(min=1), metavar="N", help="Stop after N packets.")
@click.option("-O", "no_optimize", is_flag=True, help="Compile an expression without libpcap's optimizer.")
@click.option("--engine", type=click.Choice(ENGINES), default="interpreter",
              help="What runs our side [interpreter].")  # fmt: skip
@click.option("--extended", is_flag=True, help="Load our translation of a classic filter by bpf(2) (root).")
@click.option("--random", "programs", type=click.IntRange(min=1), metavar="N",
              help="Instead of a capture and a filter: N random programs, 25 random packets each.")  # fmt: skip
@click.option("--seed", type=int, default=0, metavar="N", help="Seed of --random [0].")
@click.option("--format", "form", type=click.Choice(("text", "json")), default="text", help="[text]")
def command(**options: Any) -> None:
    """Give every packet to the live kernel and to pktbpf, and compare what they keep of it.

    The exit code is 3 when a verdict, a kept length or the admission of the program differs. Packets that the capture
    cut short are given to both sides as if they were whole.

    \b
    Examples:
      pktbpf parity web.pcap --filter filters/tcp-port-80.bpf
      pktbpf parity web.pcap --filter 'tcp port 80' --rig packet --format json
      pktbpf parity --random 1000 --rig packet
    """
    if options["programs"] is None:
        if options["capture"] is None or options["prog"] is None:
            raise click.UsageError("give a capture and --filter PROG, or --random N")
    elif options["capture"] is not None or options["prog"] is not None:
        raise click.UsageError("--random makes its own programs and packets")
    from pktbpf.kernel.rigs import open_rig

    with open_rig(options["rig"]) as rig:
        if options["programs"] is None:
            _capture(rig, options)
        else:
            _random(rig, options)


def _capture(rig: Rig, options: dict[str, Any]) -> None:
    from pktbpf.cli._progress import announce_compilations
    from pktbpf.parity import render
    from pktbpf.parity.captures import replay_capture
    from pktbpf.parity.compare import Comparison

    announce_compilations()
    total = Comparison()
    failure: Exception | None = None
    argument, env = _with_values(options)
    try:
        for part in replay_capture(
            options["capture"], argument, rig, engine=options["engine"], extended=options["extended"],
            count=options["count"], optimize=not options["no_optimize"],
            name=options["name"], env=env,
        ):  # fmt: skip
            total += part
    except Exception as error:
        if not total.packets:
            raise
        failure = error
    given = {
        "capture": options["capture"],
        "filter": options["prog"],
        "rig": options["rig"],
        "engine": options["engine"],
    }
    if options["form"] == "json":
        click.echo(json.dumps(render.as_object(total, **given), indent=2))
    else:
        click.echo(render.as_text(total, [(name, one_line(str(value))) for name, value in given.items()]))
    if failure is not None:
        raise failure
    for one in total.maps:
        if any(one.lost):  # it explains what else differs: the program saw the error, and all numbers have moved
            raise CheckFailed(
                f"map {one.name}: events found no room, {one.lost[0]} in the live kernel's ring and {one.lost[1]} in "
                "ours; less output per packet can be compared"
            )
    if total.differing:
        raise CheckFailed(f"{len(total.differing)} of {total.pairs} verdicts differ from the live kernel's")
    for one in total.maps:
        if one.differing:
            raise CheckFailed(f"map {one.name}: {one.differing} entries differ from the live kernel's")


def _with_values(options: dict[str, Any]) -> tuple[Any, Env | None]:
    """The filter with the values of --set in it, and the environment with those that the kernel has."""
    from pktbpf.engine.base import Env

    if not options["values"]:
        return options["prog"], None
    values = _objects.assignments(options["values"], "--set", "NAME=VALUE")
    names = [options["name"]] if options["name"] is not None else []
    chosen = _objects.choose([options["prog"]], names, values)
    return chosen.filters[0].source, Env(variables=chosen.variables)


def _random(rig: Rig, options: dict[str, Any]) -> None:
    from pktbpf.parity import render
    from pktbpf.parity.captures import random_run

    run = random_run(options["programs"], options["seed"], rig, engine=options["engine"], extended=options["extended"])
    given = {"programs": run.programs, "seed": options["seed"], "rig": options["rig"], "engine": options["engine"]}
    admission = {"checked": run.programs, "differing": len(run.admission)}
    if options["form"] == "json":
        fields = {**given, "admission": admission}
        if run.first is not None:
            fields["program"] = run.first[0].to_bytes().hex()
        click.echo(json.dumps(render.as_object(run.total, **fields), indent=2))
    else:
        heading = [(name, str(value)) for name, value in given.items()]
        heading.append(("admission", f"{run.programs:,} damaged programs checked, {len(run.admission):,} differing"))
        click.echo(render.as_text(run.total, heading))
        if run.first is not None:
            click.echo("\nits program:\n" + "\n".join(f"  {insn}" for insn in run.first[0].insns))
    if run.admission:
        worst = run.admission[0]
        raise CheckFailed(f"admission differs: kernel errno {worst.kernel}, ours {worst.ours} ({worst.reason})")
    if run.total.differing:
        raise CheckFailed(f"{len(run.total.differing)} of {run.total.pairs} verdicts differ from the live kernel's")
