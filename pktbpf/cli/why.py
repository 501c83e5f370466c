"""`pktbpf why`: the two or three tests that made a filter accept or reject a packet, in words."""

from __future__ import annotations

import json
from typing import Any

import click

from pktbpf.cli._traces import tracer, tracing_options


@click.command()
@tracing_options
@click.option("-n", "--packet", "numbers", type=click.IntRange(min=1), multiple=True, metavar="N",
              help="Number of a packet, from 1; repeat for several [all packets].")  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="Name every test that decided, not the most telling three.")
@click.option("--format", "form", type=click.Choice(("text", "json")), default="text", help="[text]")
def command(numbers: tuple[int, ...], everything: bool, form: str, **options: Any) -> None:
    """Say why packets were accepted or rejected.

    A test decided when the verdict would have been another had it come out the other way. A returned value that was
    computed is named with what it was computed from.

    \b
    Examples:
      pktbpf why web.pcap --filter 'tcp port 80' --packet 25
      pktbpf why web.pcap --filter filters/http-get.bpf
    """
    from pktbpf.explain.why import reason, returned, sentence

    walk = tracer(options)
    for number, trace in walk.some(numbers) if numbers else walk.traces():
        said = sentence(trace, all_reasons=everything)
        if form == "text":
            click.echo(said if len(numbers) == 1 else f"{number}: {said}")
            continue
        steps = reason(trace).all if everything else reason(trace).deciding
        click.echo(json.dumps({
            "packet": number, "accepted": trace.accepted, "verdict": trace.verdict, "why": said,
            "computed": returned(trace) if trace.computed else None,
            "tests": [
                {"instruction": s.slot, "text": s.text, "test": s.condition.text(trace.dissection)}
                for s in steps if s.condition is not None
            ],
        }, ensure_ascii=False))  # fmt: skip
