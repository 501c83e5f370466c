"""Keep the calling thread on one processor, so that `ld cpu` has a value that can be foretold."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def one_processor() -> Iterator[int]:
    """This thread on one of its allowed processors for the duration: yields that processor's number."""
    allowed = os.sched_getaffinity(0)
    chosen = min(allowed)
    os.sched_setaffinity(0, {chosen})
    try:
        yield chosen
    finally:
        os.sched_setaffinity(0, allowed)
