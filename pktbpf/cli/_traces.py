"""What `trace`, `why` and `debug` share: the options that name a filter, a packet and the world around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pktbpf.cli import _objects

if TYPE_CHECKING:
    from pktbpf.explain.run import Tracer

F = TypeVar("F", bound=Callable[..., Any])

PROFILES = ("packet", "packet-dgram", "udp", "raw-ip", "unix")


def tracing_options(function: F) -> F:
    """CAPTURE, --filter, --attach and what the packets' world is."""
    for option in reversed((
        click.argument("capture", metavar="CAPTURE"),
        click.option("-F", "--filter", "prog", required=True, metavar="PROG",
                     help="A file in any form, or a pcap-filter expression."),
        click.option("--program", metavar="NAME", help="Which program of an object."),
        click.option("--attach", type=click.Choice(PROFILES), default="packet", help="The filter's socket [packet]."),
        click.option("--meta", multiple=True, metavar="NAME=N", help="Set metadata of all packets: mark=5, ..."),
        click.option("--mac", metavar="ADDR", help="The station's own address."),
        click.option("--strip-vlan", is_flag=True, help="Move the outer VLAN tag into metadata."),
        click.option("--seed", type=int, default=0, metavar="N", help="Seed of the random numbers [0]."),
        click.option("--cpu", type=click.IntRange(min=0), default=0, metavar="N", help="Number of the processor [0]."),
        click.option("-O", "no_optimize", is_flag=True, help="Compile an expression without libpcap's optimizer."),
    )):  # fmt: skip
        function = option(function)
    return _objects.object_options(function)


def tracer(options: dict[str, Any], limit: int | None = None) -> Tracer:
    """The Tracer that the options describe, its maps filled as a replay's would be; nothing is written back."""
    from pktbpf.cli._progress import announce_compilations
    from pktbpf.cli.replay import _mac, _metadatum
    from pktbpf.engine.base import Env
    from pktbpf.explain.extended_trace import LIMIT
    from pktbpf.explain.run import Tracer
    from pktbpf.objfile.kernel_btf import given, running_kernel
    from pktbpf.replayer.api import environment

    announce_compilations()
    metadata: dict[str, int | None] = dict(_metadatum(text) for text in options["meta"])
    env = Env(
        mac=_mac(options["mac"]), strip_vlan=options["strip_vlan"], seed=options["seed"], cpu=options["cpu"],
        kernel_btf=given(options["btf"]) if options["btf"] is not None else running_kernel(),
    )  # fmt: skip
    values = _objects.assignments(options["values"], "--set", "NAME=VALUE")
    contents = _objects.assignments(options["contents"], "--map", "NAME=FILE.json")
    programs = [options["program"]] if options["program"] is not None else []
    choice = _objects.choose([options["prog"]], programs, values, options["btf"])
    env = replace(environment(env, metadata), variables=choice.variables)
    kept = _objects.load_maps(options["maps"], choice.filters, env.cpu + 1)
    sections = {name: one for (_, name), one in kept.sections.items()}  # of the one object that there is
    walk = Tracer(
        options["capture"], choice.filters[0].source, attach=options["attach"], env=env, maps=kept.shared | sections,
        optimize=not options["no_optimize"], limit=limit or LIMIT,
    )  # fmt: skip
    _objects.first_contents(choice.objects, walk.maps(), kept.sections, values, contents)
    return walk
