"""Results as one JSON object: plain counters under stable names, sizes in bytes, times in seconds."""

from __future__ import annotations

from typing import Any

from pktbpf.capture import linktypes
from pktbpf.maps.face import Map
from pktbpf.replayer.livemaps import entries
from pktbpf.replayer.results import CaptureResult, FilterResult, Results


def render(results: Results) -> str:
    """The object as indented text, without a line break at its end."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(as_object(results)), indent=2).decode()


def as_object(results: Results) -> dict[str, Any]:
    """The same as Python values."""
    return {
        "linktypes": [linktypes.name_of(kind) for kind in results.linktypes],
        "packets": results.packets,
        "bytes": results.bytes,
        "wire_bytes": results.wire_bytes,
        "accepted": results.accepted,
        "dropped": results.dropped,
        "elapsed": round(results.elapsed, 6),
        "rate": round(results.rate, 1),
        "complete": results.complete,
        "filters": [_filter(result) for result in results.filters],
        "maps": {name: _map(one) for name, one in results.maps.items()},
        "captures": [_capture(capture) for capture in results.captures],
    }


def _filter(result: FilterResult) -> dict[str, Any]:
    return {
        "filter": result.name,
        "accepted": result.accepted,
        "dropped": result.dropped,
        "truncated": result.truncated,
        "indeterminate": result.indeterminate,
        "undelivered": result.undelivered,
        "bytes_kept": result.bytes_kept,
        "faults": result.faults,
    }


def _map(one: Map) -> dict[str, Any]:
    """entries: how many hold something (of arrays those that are not zero); records of a ring, events."""
    return {
        "type": one.kind.lower(),
        "key_size": one.key_size,
        "value_size": one.value_size,
        "max_entries": one.max_entries,
        "entries": entries(one),
    }


def _capture(capture: CaptureResult) -> dict[str, Any]:
    return {
        "capture": capture.name,
        "linktypes": [linktypes.name_of(kind) for kind in capture.linktypes],
        "packets": capture.packets,
        "bytes": capture.bytes,
        "wire_bytes": capture.wire_bytes,
        "accepted": capture.accepted,
        "error": str(capture.error) if capture.error is not None else None,
    }
