"""Which need a refusal stands for: the first rule whose pattern fits the kernel's line and that can say something."""

from __future__ import annotations

import re
from typing import Any

from pktbpf.verifier.reasons import (
    need_bounds,
    need_calls,
    need_fields,
    need_general,
    need_leaks,
    need_memory,
    need_program,
    need_stack,
    need_values,
)
from pktbpf.verifier.reasons.need_program import Rule
from pktbpf.verifier.reasons.scene import Need, Scene

_Rules = tuple[tuple[re.Pattern[str], Rule], ...]


def _compiled(*modules: Any) -> _Rules:
    return tuple((re.compile(pattern), rule) for module in modules for pattern, rule in module.RULES)


# Rules about the program as a whole ask for no register: they are all there is before the walk begins.
_OF_PROGRAMS = _compiled(need_program, need_general)
_OF_STATES = _compiled(need_fields, need_memory, need_bounds, need_stack, need_leaks, need_values, need_calls)


def find(scene: Scene) -> Need | None:
    """The need that was not met; None where no rule knows the line."""
    rules = _OF_PROGRAMS if scene.walk is None else (*_OF_STATES, *_OF_PROGRAMS)
    for line in scene.lines:
        for pattern, rule in rules:
            match = pattern.search(line)
            if match is not None and (need := rule(scene, match)) is not None:
                return need
    return None
