"""What a failed assertion about a filter was about, found in the frames of its traceback."""

from __future__ import annotations

from collections.abc import Iterator
from types import FrameType, TracebackType

from pktbpf.testing.subject import Judgement, Kept

MOST = 2


def add_explanations(error: AssertionError) -> None:
    """Add notes with the explanations of the judgements that the failed assertion looked at."""
    found: list[Judgement] = []
    for judgement in _of(error.__traceback__):
        if all(judgement is not one for one in found):
            found.append(judgement)
    if not found and Judgement.last is not None and not Judgement.last:
        found.append(Judgement.last)  # inside all(...), or where assertions are not rewritten
    for judgement in found[:MOST]:
        error.add_note("\n".join(judgement.explain()))


def _of(trace: TracebackType | None) -> Iterator[Judgement]:
    """Judgements in the temporaries that pytest's rewritten assertions leave in their frame."""
    frames: list[FrameType] = []
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    for frame in reversed(frames):
        for name, value in frame.f_locals.items():
            if name.startswith("@py_assert"):
                if isinstance(value, Judgement):
                    yield value
                elif isinstance(value, Kept):
                    yield value.judgement


def compare_lines(op: str, left: object, right: object) -> list[str] | None:
    """The head of a failed comparison with a kept length; the explanation follows as a note."""
    for side, other in ((left, right), (right, left)):
        if isinstance(side, Kept):
            judgement = side.judgement
            said = f"{int(side)} of {judgement.length} bytes kept of the {judgement.title}"
            return [f"{int(side)} {op} {int(other) if isinstance(other, int) else other!r}", said]
    return None
