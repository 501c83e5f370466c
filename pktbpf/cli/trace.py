"""`pktbpf trace`: one packet through one filter, instruction by instruction."""

from __future__ import annotations

import json
from typing import Any

import click

from pktbpf.cli._traces import tracer, tracing_options


@click.command()
@tracing_options
@click.option("-n", "--packet", "numbers", type=click.IntRange(min=1), multiple=True, required=True, metavar="N",
              help="Number of the packet, from 1; repeat for several.")  # fmt: skip
@click.option("--backwards", is_flag=True, help="From the verdict back, with the step that made each value.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Show at most N instructions [5000].")
@click.option("--format", "form", type=click.Choice(("text", "json")), default="text", help="[text]")
def command(numbers: tuple[int, ...], backwards: bool, limit: int | None, form: str, **options: Any) -> None:
    """Show each step of a filter over a packet: what it read, what changed, which way it went, and the verdict.

    Bytes are named where a dissector knows them. A program with maps sees the packets before N first.

    \b
    Examples:
      pktbpf trace web.pcap --filter filters/tcp-port-80.bpf --packet 25
      pktbpf trace web.pcap --filter 'tcp port 80' -n 25 --backwards
      pktbpf trace dns.pcap --filter filters/ebpf/proto_counts.o -n 3 --format json
    """
    from pktbpf.explain import render

    found = []
    for number, trace in tracer(options, limit).some(numbers):
        if form == "json":
            found.append({"packet": number, **render.as_object(trace)})
            continue
        click.echo(f"packet {number} of {options['capture']}, {len(trace.packet.buffer)} bytes")
        for line in render.text(trace, backwards=backwards):
            click.echo(line.rstrip())
        if number != max(numbers):
            click.echo()
    if form == "json":
        click.echo(json.dumps(found if len(found) > 1 else found[0], indent=2))
