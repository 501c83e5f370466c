"""A progress bar on standard error for replays that take longer than a second; updated per batch, never per packet."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import click

from pktbpf.capture.batch import Batch
from pktbpf.capture.open import Capture
from pktbpf.replayer.session import Judged, Session
from pktbpf.report import numbers

PATIENCE = 1.0  # seconds before anything is shown
INTERVAL = 0.1  # seconds between updates


def announce_compilations() -> None:
    """On a terminal, one line when the engine is compiled for longer than PATIENCE: what a program calls decides."""
    if not sys.stderr.isatty():
        return
    from pktbpf.hot import watch_compilations

    told = threading.Event()
    timers: list[threading.Timer] = []

    def tell() -> None:
        told.set()
        click.echo("compiling the engine for what this program calls; later runs find it in the cache", err=True)

    def begun() -> None:
        if not told.is_set():
            timers.append(threading.Timer(PATIENCE, tell))
            timers[-1].daemon = True
            timers[-1].start()

    def ended() -> None:
        if timers:
            timers.pop().cancel()

    watch_compilations(begun, ended)


class Progress:
    """Share of the input where its size is known, else what was read so far. captures: how many there are."""

    def __init__(self, session: Session, captures: int):
        self._session = session
        self._captures = captures
        self._begun = time.monotonic()
        self._next = self._begun + PATIENCE
        self._bar: Any = None
        self._task: Any = None

    def begin(self, capture: int, source: Capture) -> None:
        """Nothing to prepare."""

    def take(self, capture: int, batch: Batch, judged: Sequence[Judged]) -> None:
        """Show how far the replay is, if it is time to."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + INTERVAL
        if self._bar is None:
            self._start()
        packets, source = self._session.results.packets, self._session.capture
        done = source.position / source.size if source is not None and source.size else None
        text = f"{numbers.count(packets)} packets, {numbers.rate(packets / (now - self._begun))}"
        if self._captures > 1:
            text = f"capture {capture + 1} of {self._captures}, {text}"
        self._bar.update(self._task, total=None if done is None else 1.0, completed=min(done or 0.0, 1.0), text=text)

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        console = Console(stderr=True, no_color=bool(os.environ.get("NO_COLOR")) or None)
        columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[text]}"), TimeRemainingColumn())
        self._bar = RichProgress(*columns, console=console, transient=True)
        self._task = self._bar.add_task("replay", total=None, text="")
        self._bar.start()

    def close(self) -> None:
        """Take the bar away; the summary says it all."""
        if self._bar is not None:
            self._bar.stop()
