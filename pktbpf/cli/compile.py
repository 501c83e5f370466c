"""`pktbpf compile`: a pcap-filter expression as the program that libpcap makes of it, printed as tcpdump prints it."""

from __future__ import annotations

import click

from pktbpf.cli import _forms
from pktbpf.errors import UsageError


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": True})
@click.argument("expression", nargs=-1, metavar="[EXPRESSION]...")
@click.option("-y", "linktype", metavar="DLT", default="EN10MB", help="Link type, by name or number [EN10MB].")
@click.option("-O", "unoptimized", is_flag=True, help="Do not optimize.")
@click.option("-s", "snaplen", metavar="SNAPLEN", type=click.IntRange(0), default=262144,
              help="What an accepted packet is cut to; 0 is 262144 [262144].")  # fmt: skip
@click.option("-F", "file", metavar="FILE", help="Read the expression from this file; - is standard input.")
@click.option("--netmask", metavar="MASK", help="Of the local network, for `ip broadcast`: 255.255.255.0 or 24 [0].")
@_forms.output_options
def command(
    expression: tuple[str, ...],
    linktype: str,
    unoptimized: bool,
    snaplen: int,
    file: str | None,
    netmask: str | None,
    dump: int,
    form: str | None,
    output: str | None,
) -> None:
    """Compile a pcap-filter EXPRESSION; the listing is that of `tcpdump -d` with the same libpcap.

    Host names are looked up, as tcpdump does it. No expression at all accepts every packet.

    \b
    Examples:
      pktbpf compile 'tcp port 80'
      pktbpf compile -y LINUX_SLL -ddd udp and not port 53
      pktbpf compile 'icmp' -o icmp.bpf --to raw
    """
    from pktbpf import expression as backend

    if file is not None and expression:
        raise UsageError("an expression and -F FILE contradict each other")
    text = " ".join(expression) if file is None else _read(file)
    program = backend.compile(text, linktype, not unoptimized, snaplen, netmask)
    _forms.write(program, _forms.chosen_form(dump, form, "d"), output)


def _read(file: str) -> str:
    """The expression in a file, as tcpdump reads it."""
    from pktbpf import loader
    from pktbpf.expression import strip_comments

    return strip_comments(loader.read_text(file))
