"""`--coverage[=FILE]` of commands that run filters: an engine that counts, and the data file afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pktbpf.errors import UsageError

if TYPE_CHECKING:
    from pktbpf.explain.coverage import CountingEngine

F = TypeVar("F", bound=Callable[..., Any])

DATA = ".pktbpf-coverage"


class CoverageCommand(click.Command):
    """A command with --coverage, which takes its value after an equals sign only: what follows may be a capture."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        given = [f"--coverage={DATA}" if one == "--coverage" else one for one in args[:end]]
        return super().parse_args(ctx, given + args[end:])


def coverage_option(function: F) -> F:
    """The option; its parameter `coverage` is a file name, or None."""
    return click.option(
        "--coverage", metavar="[=FILE]",
        help=f"Merge which instructions ran, and which way branches went, into FILE [{DATA}]; see `pktbpf coverage`.",
    )(function)  # fmt: skip


def engine_for(coverage: str | None, engine: str) -> Any:
    """The engine's name, or an engine that counts. Raises UsageError for engines that have no counters."""
    if coverage is None:
        return engine
    if engine != "interpreter":
        raise UsageError(f"--coverage is counted by the interpreter, not by --engine {engine}")
    from pktbpf.explain.coverage import CountingEngine

    return CountingEngine()


def save(coverage: str | None, engine: CountingEngine | str, *, quiet: bool = False) -> None:
    """Merge what the engine counted into the data file, and say on standard error how much that was."""
    if coverage is None or isinstance(engine, str):
        return
    from pktbpf.explain import coverage_data, coverage_report

    found = engine.coverage()
    coverage_data.update(Path(coverage), found)
    if not quiet:
        click.echo(f"coverage of this run (merged into {coverage}):", err=True)
        click.echo(coverage_report.summary(found), err=True)
