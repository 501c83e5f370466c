"""Captures through filters: `replay`, its `Results`, and the streaming `Session` with sinks beneath it."""

from __future__ import annotations

from pktbpf.replayer.api import replay
from pktbpf.replayer.results import CaptureResult, Columns, FilterResult, Results

__all__ = ["CaptureResult", "Columns", "FilterResult", "Results", "replay"]
