"""Results as a short, aligned text summary: what was read, what each filter did, how fast it went."""

from __future__ import annotations

from typing import NamedTuple

from pktbpf.capture import linktypes
from pktbpf.maps.face import Map
from pktbpf.replayer.livemaps import entries
from pktbpf.replayer.results import CaptureResult, FilterResult, Results
from pktbpf.report import numbers

NAME_WIDTH = 14


class Row(NamedTuple):
    """One line: counts are right-aligned among themselves, words are not."""

    name: str
    value: int | str
    note: str = ""


def render(results: Results, *, verbose: bool = False) -> str:
    """The summary, without a line break at its end. With several filters each has a block of its own under its name.

    verbose: one line per capture as well.
    """
    rate = Row("rate", numbers.rate(results.rate), f"in {numbers.duration(results.elapsed)}")
    if len(results.filters) == 1:
        blocks = [_table([*_read(results), *_filter(results.filters[0]), rate])]
    else:
        blocks = [_table([*_read(results), rate])]
        blocks += [f"{result.name}\n{_table(_filter(result))}" for result in results.filters]
    if results.maps:
        blocks.append("maps\n" + _table([_map(name, one) for name, one in sorted(results.maps.items())]))
    if verbose:
        blocks.append("\n".join(map(_capture, results.captures)))
    if not results.complete:
        blocks.append("stopped early: the numbers are those until then")
    return "\n\n".join(blocks)


def _read(results: Results) -> list[Row]:
    rows = [Row("captures", len(results.captures))] if len(results.captures) > 1 else []
    kinds = results.linktypes
    named = ", ".join(map(linktypes.name_of, kinds)) or "none"
    rows.append(Row("link type", f"{named} ({linktypes.describe(kinds[0])})" if len(kinds) == 1 else named))
    rows.append(Row("packets", results.packets))
    cut = results.wire_bytes > results.bytes
    on_wire = f"captured, {numbers.size(results.wire_bytes)} on the wire" if cut else ""
    rows.append(Row("bytes", numbers.size(results.bytes), on_wire))
    return rows


def _filter(result: FilterResult) -> list[Row]:
    whole = result.packets
    kept = f"{numbers.share(result.accepted, whole)}, {numbers.size(result.bytes_kept)} kept" if whole else ""
    rows = [
        Row("accepted", result.accepted, kept),
        Row("dropped", result.dropped, numbers.share(result.dropped, whole)),
        Row("truncated", result.truncated, "accepted, cut to the return value" if result.truncated else ""),
    ]
    if result.indeterminate:
        rows.append(Row("indeterminate", result.indeterminate, "read past the captured bytes"))
    if result.undelivered:
        rows.append(Row("undelivered", result.undelivered, "would not reach such a socket"))
    return rows + [Row(name, count, "faults") for name, count in sorted(result.faults.items())]


def _map(name: str, one: Map) -> Row:
    note = f"entries, {one.kind} of at most {numbers.count(one.max_entries)}"
    if one.kind in ("ARRAY", "PERCPU_ARRAY"):
        note = f"of {numbers.count(one.max_entries)} entries not zero, {one.kind}"
    elif one.kind == "RINGBUF":
        note = f"records, {one.kind} of {numbers.size(one.max_entries)}"
    elif one.kind == "PERF_EVENT_ARRAY":
        note = f"events, {one.kind}" + (f", {numbers.count(one.lost)} more found no room" if one.lost else "")
    return Row(name, entries(one), note)


def _table(rows: list[Row]) -> str:
    counts = [numbers.count(row.value) for row in rows if isinstance(row.value, int)]
    width = max(map(len, counts), default=0)
    lines = []
    for row in rows:
        value = f"{numbers.count(row.value).rjust(width)} " if isinstance(row.value, int) else row.value
        lines.append(f"{row.name:<{NAME_WIDTH}}{value} {row.note}".rstrip())
    return "\n".join(lines)


def _capture(capture: CaptureResult) -> str:
    kinds = ", ".join(map(linktypes.name_of, capture.linktypes)) or "none"
    packets, accepted = numbers.count(capture.packets), numbers.count(capture.accepted)
    line = f"{capture.name}: {kinds}, {packets} packets, {accepted} accepted"
    return f"{line}, ended early" if capture.error is not None else line
