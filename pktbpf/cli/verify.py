"""`pktbpf verify`: what the kernel's checks say of a program, with the reason."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

import click

from pktbpf.errors import ProgramRefused, UsageError

REFUSED = 3
_LOG_LEVELS = "The kernel's log before it: 1 the last path, 2 all paths, 4 numbers [0]."


@click.command(short_help="The kernel's checks, offline, with the reason.")
@click.argument("prog", metavar="PROG", required=False)
@click.option("--program", "name", metavar="NAME", help="The program of an object that has several.")
@click.option("--unprivileged", is_flag=True, help="As a loader without capabilities (extended programs).")
@click.option("--log-level", type=click.Choice(("0", "1", "2", "4")), default="0", help=_LOG_LEVELS)
@click.option("--kernel", metavar="VERSION", help="The rules of this kernel version, or list [newest known].")
@click.option("--btf", metavar="FILE", help="The kernel's own types, raw BTF or ELF [the running kernel's].")
@click.option("-y", "linktype", metavar="DLT", help="The link type that an expression is compiled for [EN10MB].")
@click.option("-O", "no_optimize", is_flag=True, help="Compile an expression without libpcap's optimizer.")
@click.option("--format", "form", type=click.Choice(("text", "json")), default="text", help="Words or JSON [text].")
@click.option("--no-color", is_flag=True, help="No colour, on a terminal either.")
def command(prog: str | None, name: str | None, linktype: str | None, no_optimize: bool, **options: Any) -> int:
    """What SO_ATTACH_FILTER or BPF_PROG_LOAD would say of PROG: accepted, or refused with errno and reason.

    PROG is a file in any form, an object, an expression, or - for standard input. Ends with 3 for a refused program.
    A refusal of an extended program shows the path to it, what was needed, where the values came from, and a remedy.

    \b
    Examples:
      pktbpf verify filters/tcp-port-80.bpf
      pktbpf verify filters/ebpf/rate_limit.o --unprivileged
      pktbpf verify filters/ebpf/rate_limit.o --kernel 6.1
      pktbpf verify --kernel list
    """
    if options["kernel"] == "list":
        return _list()
    if prog is None:
        raise UsageError("PROG is missing: a file, an expression, or - for standard input")
    from pktbpf import loader
    from pktbpf.program import ClassicProgram

    chosen = loader.load_argument(prog, linktype=linktype, optimize=not no_optimize, btf=options["btf"])
    if hasattr(chosen, "programs"):
        chosen = chosen.program(name)
    elif name is not None:
        raise UsageError(f"--program {name}: {prog} is no object with named programs")
    rules = {} if isinstance(chosen, ClassicProgram) else _rules(options)
    return _report(chosen, rules, options)


def _rules(options: dict[str, Any]) -> dict[str, Any]:
    from pktbpf.objfile.kernel_btf import running_kernel, running_symbols

    rules: dict[str, Any] = {"privilege": "none" if options["unprivileged"] else "root"}
    rules["log_level"] = int(options["log_level"])
    rules["kernel_btf"] = options["btf"] or running_kernel()
    rules["kernel_symbols"] = running_symbols() if options["btf"] is None else None
    if options["kernel"] is not None:
        rules["kernel"] = options["kernel"]
    return rules


def _list() -> int:
    """What changed with which version."""
    from pktbpf.verifier import profile, rules

    versions = " ".join(profile.VERSIONS)
    click.echo(f"{'since':7}{'also':12}rule and what a socket filter sees of it; versions: {versions} or any between")
    for row in rules.ordered():
        click.echo(f"{row.since:7}{' '.join(row.kept):12}{rules.words(row)}: {row.notice}")
    return 0


def _report(program: Any, rules: dict[str, Any], options: dict[str, Any]) -> int:
    from pktbpf.filter import verify
    from pktbpf.report import refusal
    from pktbpf.verifier.profile import LATEST, NEWEST, profile
    from pktbpf.verifier.rules import version_of

    kernel = profile(rules.get("kernel", NEWEST))
    colour = sys.stdout.isatty() and not options["no_color"] and "NO_COLOR" not in os.environ
    try:
        verdict: Any = verify(program, **rules)
    except ProgramRefused as error:
        verdict = error
    if options["form"] == "json":
        import msgspec

        found = refusal.as_object(program, verdict)
        if rules:
            found |= {"kernel": kernel.version, "approximate": list(kernel.approximate)}
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    else:
        if options["log_level"] != "0" and verdict.log:
            click.echo(verdict.log)
        if isinstance(verdict, ProgramRefused):
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else refusal.WIDTH
            click.echo(refusal.refused(program, verdict, colour=colour, width=width))
        else:
            digest = "sha256" if kernel.sha256_tags else "sha1"
            click.echo(refusal.accepted(program, verdict, colour=colour, digest=digest))
        if rules and version_of(kernel.version) > version_of(LATEST):
            note = f"kernel {kernel.version} is not known; the newest known is {LATEST}, judged by its rules"
            click.echo(f"pktbpf: {note}", err=True)
        if rules and kernel.approximate:
            click.echo(f"pktbpf: kernel {kernel.version} approximately: {'; '.join(kernel.approximate)}", err=True)
    return REFUSED if isinstance(verdict, ProgramRefused) else 0
