"""`pktbpf replay`: captures through filters in one pass, with a summary, records, packet lines or a capture file."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from pktbpf.cli import INTERRUPTED, _coverage, _objects, fail
from pktbpf.errors import CaptureError, PktbpfError

if TYPE_CHECKING:
    from pktbpf.engine.base import Env
    from pktbpf.replayer.results import Results
    from pktbpf.replayer.session import Session, Sink

PROFILES = ("packet", "packet-dgram", "udp", "raw-ip", "unix")
ENGINES = ("interpreter", "reference")
FORMATS = ("text", "json", "jsonl", "csv")
POLICIES = ("drop", "accept", "error")


@dataclass(frozen=True)
class Options:
    """The command line of one replay, field by parameter."""

    captures: tuple[str, ...]
    read: tuple[str, ...]
    filters: tuple[str, ...]
    write: str | None
    count: int | None
    linktype: str | None
    attach: str
    engine: str
    indeterminate: str
    strip_vlan: bool
    meta: tuple[str, ...]
    mac: str | None
    seed: int
    cpu: int
    no_optimize: bool
    format: str
    packets: bool
    program: tuple[str, ...]
    values: tuple[str, ...]
    btf: str | None
    maps: str | None
    contents: tuple[str, ...]
    trace_pipe: bool
    coverage: str | None
    exit_status: bool
    quiet: bool
    verbose: bool

    @property
    def sources(self) -> tuple[str, ...]:
        """All captures: arguments and those of -r."""
        return (*self.captures, *self.read)

    @property
    def streams_records(self) -> bool:
        """Whether standard output carries something else than the summary."""
        return self.packets or self.trace_pipe or self.format in ("jsonl", "csv") or self.write == "-"


@click.command(cls=_coverage.CoverageCommand, context_settings={"show_default": False})
@click.argument("captures", nargs=-1, metavar="CAPTURE...")
@click.option("-r", "read", multiple=True, metavar="CAPTURE", help="A capture, as tcpdump names it.")
@click.option("-F", "--filter", "filters", multiple=True, metavar="PROG",
              help="A file in any form, or a pcap-filter expression. Repeat for several filters.")  # fmt: skip
@click.option("-w", "write", metavar="OUT",
              help="Write packets that any filter accepts; - is standard output; the ending (.pcapng, .gz, ...)"
                   " chooses the format.")  # fmt: skip
@click.option("-c", "count", type=click.IntRange(min=1), metavar="N", help="Stop after N accepted packets.")
@click.option("-y", "linktype", metavar="DLT", help="The link type that all packets must have.")
@click.option("--attach", type=click.Choice(PROFILES), default="packet", help="The socket of the filter [packet].")
@click.option("--engine", type=click.Choice(ENGINES), default="interpreter",
              envvar=["PKTBPF_REPLAY_ENGINE", "PKTBPF_ENGINE"], help="What runs the filter [interpreter].")  # fmt: skip
@click.option("--indeterminate", type=click.Choice(POLICIES), default="drop",
              help="What to do with packets whose verdict needs bytes that were not captured [drop].")  # fmt: skip
@click.option("--strip-vlan", is_flag=True, help="Move the outer VLAN tag into metadata, as a live socket sees it.")
@click.option("--meta", multiple=True, metavar="NAME=N", help="Set metadata of all packets: mark=5, ifindex=2, ...")
@click.option("--mac", metavar="ADDR", help="The station's own address: tells host, other-host and outgoing packets.")
@click.option("--seed", type=int, default=0, metavar="N", help="Seed of the random numbers [0].")
@click.option("--cpu", type=click.IntRange(min=0), default=0, metavar="N", help="Number of the processor [0].")
@click.option("-O", "no_optimize", is_flag=True, help="Compile expressions without libpcap's optimizer.")
@click.option("--format", type=click.Choice(FORMATS), default="text",
              help="Summary as text or json, or every packet as jsonl or csv [text].")  # fmt: skip
@click.option("--print", "packets", is_flag=True, help="Print accepted packets, one line each, times in UTC.")
@click.option("--program", multiple=True, metavar="NAME",
              help="Which program of an object; repeat to run several, which share the object's maps.")  # fmt: skip
@_objects.object_options
@click.option("--trace-pipe", is_flag=True, help="Print what programs trace, as the kernel's trace pipe does.")
@_coverage.coverage_option
@click.option("--exit-status", is_flag=True, help="Exit with 0 if a packet was accepted, 1 if none, 2 on an error.")
@click.option("-q", "--quiet", is_flag=True, help="No summary, no progress.")
@click.option("-v", "--verbose", is_flag=True, help="A line per capture in the summary, the log of a refused program.")
def command(**values: Any) -> int:
    """Run every packet of the captures through every filter.

    The summary goes to standard output, or to standard error when records, packet lines or -w - go to standard output.
    With several filters, -w and -c count a packet that any of them accepts. Bytes kept in the summary are captured
    bytes, as -w saves them; kept in a record is what the socket would get of the packet as it was sent.

    \b
    Examples:
      pktbpf replay web.pcap --filter filters/tcp-port-80.bpf
      pktbpf replay *.pcapng.gz -F 'udp port 53' -F arp --format json
      pktbpf replay -r web.pcap -F 'tcp port 80' -w - | tcpdump -r -
      pktbpf replay web.pcap -F filters/ebpf/proto_counts.o --maps state
    """
    options = Options(**values)
    try:
        return _replay(options)
    except (PktbpfError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        return _failed(error, options)


def _replay(options: Options) -> int:
    _check(options)
    engine = _coverage.engine_for(options.coverage, options.engine)
    session, filters = _session(options, engine)
    interrupted = False
    try:
        session.run(options.sources)
    except KeyboardInterrupt:
        interrupted = True
    except PktbpfError:
        _summary(session.results, options)
        raise
    finally:
        if options.maps is not None:
            _objects.save_maps(options.maps, filters, [one.maps for one in session.results.filters])
        _coverage.save(options.coverage, engine, quiet=options.quiet)
    results = session.results
    _summary(results, options)
    _report_errors(results)
    if interrupted:
        return INTERRUPTED
    if results.errors:
        return 2 if options.exit_status else 1
    return 1 if options.exit_status and not results.accepted else 0


def _report_errors(results: Results) -> None:
    """One line per thing that went wrong with a capture; with several captures it says which, as far as it does not."""
    for capture in results.captures:
        if capture.error is not None:
            several = len(results.captures) > 1 and not isinstance(capture.error, CaptureError)
            fail(capture.error, prefix=f"{capture.name}: " if several else "")


def _failed(error: Exception, options: Options) -> int:
    """One line for what stopped the replay, with the verifier's log before it on request."""
    log = getattr(error, "log", "")
    if log and options.verbose:
        click.echo(log.rstrip("\n"), err=True)
    code = fail(error)
    return 2 if options.exit_status else code


def _check(options: Options) -> None:
    """Contradictions between options that click cannot see."""
    if not options.sources:
        raise click.UsageError("no capture given; name a file, or - for standard input")
    if not options.filters:
        raise click.UsageError("no filter given; say --filter PROG")
    if options.sources.count("-") + options.filters.count("-") > 1:
        raise click.UsageError("standard input can be read once only")
    if options.packets and options.format != "text":
        raise click.UsageError(f"--print and --format {options.format} both want standard output")
    if options.trace_pipe and (options.packets or options.format in ("jsonl", "csv")):
        raise click.UsageError("--trace-pipe and packets both want standard output")
    if options.write == "-" and (options.packets or options.trace_pipe or options.format in ("jsonl", "csv")):
        raise click.UsageError("-w - leaves no standard output for packets")


def _session(options: Options, engine: Any) -> tuple[Session, list[_objects.Chosen]]:
    """The session with all its sinks, and its filters in order, loaded and checked before anything is written."""
    from pktbpf.capture import linktypes
    from pktbpf.engine.base import profile
    from pktbpf.replayer.livemaps import MapSpace
    from pktbpf.replayer.selection import Selection
    from pktbpf.replayer.session import Session

    socket, env = profile(options.attach), _environment(options)
    linktype = linktypes.by_name(options.linktype) if options.linktype is not None else None
    values = _objects.assignments(options.values, "--set", "NAME=VALUE")
    contents = _objects.assignments(options.contents, "--map", "NAME=FILE.json")
    filters, objects, variables = _objects.choose(options.filters, options.program, values, options.btf)
    env = replace(env, variables=variables)
    before = _objects.load_maps(options.maps, filters, env.cpu + 1)
    space = MapSpace(before.shared, cpus=env.cpu + 1, env=env, own=before.own, shared=options.maps is not None)
    chosen = [
        Selection(
            one.source, engine=engine, profile=socket, env=env, optimize=not options.no_optimize,
            space=space, name=one.name, several=len(filters) > 1,
        )
        for one in filters
    ]  # fmt: skip
    session = Session(
        chosen, profile=socket, env=env, linktype=linktype, count=options.count,
        indeterminate=options.indeterminate,  # type: ignore[arg-type]
    )  # fmt: skip
    _objects.first_contents(objects, session.results.maps, before.sections, values, contents)
    session.sinks = _sinks(options, session)
    return session, filters


def _sinks(options: Options, session: Session) -> list[Sink]:
    """What sees the packets besides the counters."""
    from pktbpf.replayer.session import capture_name

    if not options.quiet:
        from pktbpf.cli._progress import announce_compilations

        announce_compilations()
    sinks: list[Sink] = []
    captures = [capture_name(source) for source in options.sources]
    names = [selection.name for selection in session.selections]
    if options.write is not None:
        from pktbpf.replayer.output import WriterSink

        sinks.append(WriterSink(options.write if options.write != "-" else _output(), options.sources))
    if options.trace_pipe:
        from pktbpf.report.traces import TracePipe

        sinks.append(TracePipe(_output(), session))
    if options.packets:
        from pktbpf.report.printer import Printer

        sinks.append(Printer(_output(), captures, names))
    if options.format in ("jsonl", "csv"):
        from pktbpf.report.records import SINKS

        sinks.append(SINKS[options.format](_output(), captures, names))
    if not options.quiet and sys.stderr.isatty() and not options.packets:
        from pktbpf.cli._progress import Progress

        sinks.append(Progress(session, len(options.sources)))
    return sinks


def _output() -> BinaryIO:
    """Standard output for bytes."""
    return sys.stdout.buffer


def _environment(options: Options) -> Env:
    """Metadata and machine as the options say."""
    from pktbpf.engine.base import Env
    from pktbpf.objfile.kernel_btf import given, running_kernel
    from pktbpf.replayer.api import environment

    metadata: dict[str, int | None] = dict(_metadatum(text) for text in options.meta)
    env = Env(
        mac=_mac(options.mac), strip_vlan=options.strip_vlan, seed=options.seed, cpu=options.cpu,
        kernel_btf=given(options.btf) if options.btf is not None else running_kernel(),
    )  # fmt: skip
    return environment(env, metadata)


def _metadatum(text: str) -> tuple[str, int]:
    name, equals, value = text.partition("=")
    try:
        number = int(value, 0)
    except ValueError:
        number, equals = 0, ""
    if not equals:
        raise click.UsageError(f"--meta {text!r} is not NAME=NUMBER")
    return name.strip().replace("-", "_"), number


def _mac(text: str | None) -> bytes | None:
    """Six octets in hexadecimal with colons or dashes."""
    if text is None:
        return None
    try:
        address = bytes(int(part, 16) for part in text.replace("-", ":").split(":"))
    except ValueError:
        address = b""
    if len(address) != 6:
        raise click.UsageError(f"--mac {text!r} is not an address like 02:00:5e:10:00:01")
    return address


def _summary(results: Results, options: Options) -> None:
    """Print the summary, unless nothing at all could be read."""
    if options.quiet or (not results.packets and (results.errors or not results.complete)):
        return
    if options.format == "json":
        from pktbpf.report import as_json

        text = as_json.render(results)
    else:
        from pktbpf.report import as_text

        text = as_text.render(results, verbose=options.verbose)
    click.echo(text, err=options.streams_records)
