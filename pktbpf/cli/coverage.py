"""`pktbpf coverage`: report what replays and test runs have exercised, from their data files."""

from __future__ import annotations

from pathlib import Path

import click

from pktbpf.cli._coverage import DATA
from pktbpf.errors import CheckFailed, UsageError


@click.command()
@click.argument("data", nargs=-1, type=click.Path(), metavar="[DATA]...")
@click.option("--annotate", "form", flag_value="annotate", help="The listing of every program with its counts.")
@click.option("--json", "form", flag_value="json", help="Everything as JSON.")
@click.option("--lcov", metavar="FILE", help="Write an LCOV tracefile, and listings where there is no source.")
@click.option("--merge", metavar="FILE", help="Write all DATA as one file.")
@click.option("--fail-under", type=float, metavar="PERCENT", help="Exit with 3 when less than this ran.")
@click.option("--erase", is_flag=True, help="Remove the data files instead.")
def command(
    data: tuple[str, ...], form: str | None, lcov: str | None, merge: str | None, fail_under: float | None, erase: bool
) -> None:  # fmt: skip
    """Report which instructions and branch directions of filters were exercised.

    DATA are files of `pktbpf replay --coverage` and `pytest --pktbpf-cov` [.pktbpf-coverage]; several are added up.

    \b
    Examples:
      pktbpf replay web.pcap --filter filters/http.bpf --coverage
      pktbpf coverage --annotate
      pktbpf coverage --lcov filters.info --fail-under 90
    """
    paths = [Path(one) for one in data or (DATA,)]
    if erase:
        for path in paths:
            path.unlink(missing_ok=True)
        return
    from pktbpf.explain import coverage_data, coverage_report
    from pktbpf.explain.coverage import Coverage

    whole = Coverage()
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: no coverage data; make some with `pktbpf replay --coverage`")
        whole.merge(coverage_data.read(path))
    if merge is not None:
        coverage_data.write(Path(merge), whole)
    if lcov is not None:
        Path(lcov).write_text(coverage_report.lcov(whole, Path(f"{lcov}.listings")))
    if form == "json":
        import json

        click.echo(json.dumps(coverage_report.as_object(whole), indent=2))
    elif form == "annotate":
        click.echo(coverage_report.annotate(whole))
    elif lcov is None:
        click.echo(coverage_report.summary(whole))
    percent = whole.totals().percent
    if fail_under is not None and percent < fail_under:
        raise CheckFailed(f"coverage is {percent:.1f} %, less than the {fail_under:g} % asked for")
