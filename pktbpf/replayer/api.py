"""`replay`: captures and filters in, Results out. The command line builds the same Session with sinks of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, BinaryIO, Literal, TypeAlias, cast

from pktbpf.capture import linktypes
from pktbpf.capture.batch import Batch
from pktbpf.engine.base import Env, profile
from pktbpf.engine.skb import metadatum
from pktbpf.errors import PktbpfError, UsageError
from pktbpf.filter import Filter
from pktbpf.maps.face import Map
from pktbpf.objfile.values import Object
from pktbpf.program import ClassicProgram, Program, Verified
from pktbpf.replayer.livemaps import MapSpace
from pktbpf.replayer.output import WriterSink
from pktbpf.replayer.results import Results
from pktbpf.replayer.selection import FilterSource, Selection
from pktbpf.replayer.session import Judged, Policy, Session, Sink
from pktbpf.replayer.sinks import CallbackSink, ColumnSink

CaptureSource: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO"


def replay(
    captures: CaptureSource | Sequence[CaptureSource],
    filters: FilterSource | Sequence[FilterSource],
    *,
    engine: str = "interpreter",
    attach: str = "packet",
    write: str | os.PathLike[str] | BinaryIO | None = None,
    count: int | None = None,
    linktype: str | int | None = None,
    indeterminate: Policy = "drop",
    optimize: bool = True,
    env: Env | None = None,
    maps: Mapping[str, Map] | None = None,
    columns: bool = True,
    errors: Literal["raise", "keep"] = "raise",
    on_batch: Callable[[int, Batch, Sequence[Judged]], None] | None = None,
    **metadata: int | None,
) -> Results:
    """Run every packet of the captures through every filter, in one pass.

    captures: paths, `-`, bytes or binary files. filters: what `pktbpf.load` takes or gives, or `Filter` objects; an
    expression is compiled for each link type met, an object stands for its only program. write: file for packets that
    any filter accepts, cut to what is kept. count: stop after so many accepted packets. linktype: the DLT that all
    packets must have. indeterminate: what to do with packets whose verdict depends on bytes that were not captured.
    env, metadata: see `Env`; keywords name metadata columns (`mark=5`). maps: live maps to use by name; the others are
    made, all are in `Results.maps`. columns: keep per-packet columns (about 50 bytes a packet, 13 more for each further
    filter). on_batch: called as on_batch(capture, batch, judged). errors: "keep" leaves damage of captures in
    `Results.errors` alone; "raise" raises the first at the end, with what was found until then as its `results`.
    Raises FilterSyntaxError, ExpressionError, ProgramRefused, LinkTypeError, UsageError, CaptureError.
    """
    if errors not in ("raise", "keep"):
        raise UsageError(f"errors={errors!r} is neither 'raise' nor 'keep'")
    where, sources = environment(env, metadata), _captures(captures)
    socket = profile(attach)
    space = MapSpace(maps, cpus=where.cpu + 1, env=where)
    given = _filters(filters)
    chosen = [
        Selection(one, engine=engine, profile=socket, env=where, optimize=optimize, space=space, several=len(given) > 1)
        for one in given
    ]
    collected = ColumnSink() if columns else None
    sinks: list[Sink] = [collected] if collected is not None else []
    if on_batch is not None:
        sinks.append(CallbackSink(on_batch))
    if write is not None:
        sinks.append(WriterSink(write, sources))
    session = Session(
        chosen, profile=socket, env=where, linktype=_dlt(linktype),
        indeterminate=indeterminate, count=count, sinks=sinks,
    )  # fmt: skip
    _run(session, sources, collected)
    if errors == "raise" and session.results.errors:
        first = session.results.errors[0]
        first.results = session.results
        raise first
    return session.results


def _run(session: Session, sources: list[Any], collected: ColumnSink | None) -> None:
    """The pass itself; what it found belongs to the error that ends it, and columns to the results in any case."""
    try:
        session.run(sources)
    except PktbpfError as error:
        error.results = session.results
        raise
    finally:
        if collected is not None:
            collected.put_into(session.results)


def environment(env: Env | None, metadata: dict[str, int | None]) -> Env:
    """`env` with metadata added, None for unset; UsageError for a column that there is not, or what it cannot be."""
    env = env or Env()
    stated = {name: metadatum(name, value) for name, value in metadata.items()}
    return replace(env, metadata={**env.metadata, **stated}) if stated else env


def _filters(given: Any) -> list[FilterSource]:
    single = isinstance(given, str | bytes | os.PathLike | ClassicProgram | Program | Verified | Filter | Object)
    chosen = [given] if single else list(given)
    if not chosen:
        raise UsageError("no filter given")
    return cast("list[FilterSource]", chosen)


def _captures(given: Any) -> list[Any]:
    single = isinstance(given, str | bytes | bytearray | memoryview | os.PathLike) or hasattr(given, "read")
    chosen = [given] if single else list(given)
    if not chosen:
        raise UsageError("no capture given")
    return chosen


def _dlt(linktype: str | int | None) -> int | None:
    return linktypes.by_name(linktype) if isinstance(linktype, str) else linktype
