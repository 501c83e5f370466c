"""A refusal by an older kernel's rules: the feature that it lacks, and the first version that accepts the program.

The program is judged again by the rules of newer versions, and by those of the first that lets it pass without one rule
at a time; a program that every version refuses there is left to the other remedies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pktbpf.abi import helpers, kfuncs, map_kinds
from pktbpf.verifier.explanation import Explanation
from pktbpf.verifier.profile import NEWEST, VERSIONS, Profile, profile, without_rule
from pktbpf.verifier.reasons.scene import Remedy
from pktbpf.verifier.rules import ROWS, holds, version_of, words

if TYPE_CHECKING:
    from pktbpf.isa.extended import Insn
    from pktbpf.program import Program

LONGEST = 20_000  # instructions that a version may check before its answer is given up
# What a newer kernel takes as it is: only another kernel helps, or doing without.
_WITHOUT = ("encoding", "helper", "kernel_function", "map_type")


class Verdict(NamedTuple):
    """What a version says. insn: the refused instruction, None for none. refused: whether it is. whole: whether it was
    checked to the end, and not given up."""

    insn: int | None
    refused: bool
    whole: bool = True


class Feature(NamedTuple):
    """What the older kernel lacks. name: in a word or two. notice: what it is, empty for helpers and the like. since:
    the version that brought it. also: older long-term series that got it later."""

    name: str
    since: str
    notice: str = ""
    also: tuple[str, ...] = ()


Judge = Callable[[Profile], Verdict]
_ACCEPTED = Verdict(None, False)


def told(why: Explanation, program: Program, rules: Profile, judge: Judge) -> Explanation:
    """The explanation with a remedy that names the missing feature, where the version of `rules` is what refuses."""
    if version_of(rules.version) >= version_of(NEWEST) or _stays(judge(profile(NEWEST)), why.insn):
        return why
    later = _later(rules.version)
    verdicts = {one: judge(profile(one)) for one in later}
    first = next(one for one in later if not _stays(verdicts[one], why.insn))
    feature = _feature(why, program, rules, first, judge)
    accepted, also = _accepting(verdicts)
    text = f"kernel {rules.version} lacks {feature.name}{f' ({feature.notice})' if feature.notice else ''}, which came "
    text += f"with {feature.since}{f' and was backported to {_listed(feature.also)}' if feature.also else ''}; "
    if accepted:
        text += f"the program is accepted from {accepted} on{f', and by {_listed(also)}' if also else ''}"
    else:
        text += "there the program is refused for another reason"
    if why.remedy.text and why.remedy.kind not in _WITHOUT:
        text += f". On {rules.version}: {why.remedy.text}"
    else:
        text += f"; do without it on {rules.version}"
    data = {"feature": feature.name, "since": feature.since, "accepted": accepted or None}
    remedy = Remedy("kernel", text, why.remedy.insn, data)
    return replace(why, remedy=remedy, need=replace(why.need, remedy=remedy) if why.need is not None else None)


def _stays(verdict: Verdict, insn: int | None) -> bool:
    """Whether it is refused there as well, or nothing can be said."""
    return not verdict.whole or (verdict.refused and verdict.insn == insn)


def _later(version: str) -> list[str]:
    """The versions that brought something after that one, in order, the newest last."""
    since = {row.since for row in ROWS} | {row.since for row in helpers.ROWS} | {NEWEST}
    since |= {row.since for row in kfuncs.ROWS} | {row.since for row in map_kinds.ROWS}
    between = {one for one in since if version_of(version) < version_of(one) <= version_of(NEWEST)}
    return sorted(between, key=version_of)


def _accepting(verdicts: Mapping[str, Verdict]) -> tuple[str, tuple[str, ...]]:
    """The version from which on all accept, empty for none, and the long-term series before it that do."""
    first = ""
    for version, verdict in reversed(list(verdicts.items())):
        if verdict != _ACCEPTED:
            break
        first = version
    before = [one for one in VERSIONS if one in verdicts and (not first or version_of(one) < version_of(first))]
    return first, tuple(one for one in before if verdicts[one] == _ACCEPTED)


def _listed(versions: tuple[str, ...]) -> str:
    return " and ".join(versions)


def _feature(why: Explanation, program: Program, rules: Profile, first: str, judge: Judge) -> Feature:
    """What version `first` has, and no older one, that lets the program pass the refused instruction."""
    at = why.insn if why.insn is not None and why.insn < len(program.insns) else -1
    named = _named(program.insns[at], program.kfuncs.get(at), first) if at >= 0 else ""
    if named:
        return Feature(named, first)
    kind = why.lines[0].removeprefix("map type ").split(" ")[0]
    if why.lines[0].startswith("map type ") and kind in map_kinds.BY_NAME:
        return Feature(f"maps of type {kind}", first)
    new = [row for row in ROWS if holds(row, first) and not holds(row, rules.version)]
    needed = [row for row in new if _stays(judge(without_rule(first, row.name)), why.insn)]
    # Of several the newest one is what is missing last; where no single one is missed, any of that version may do.
    chosen = sorted(needed, key=lambda row: version_of(first if first in row.kept else row.since))[-1:]
    chosen = chosen or [row for row in new if row.since == first]
    if not 0 < len(chosen) < 3:
        return Feature(f"what Linux {first} brought", first)
    notice = "; ".join(row.notice for row in chosen)
    also = tuple(one for one in chosen[0].kept if needed)
    return Feature(" or ".join(f'"{words(row)}"' for row in chosen), chosen[0].since, notice, also)


def _named(insn: Insn | None, kfunc: str | None, since: str) -> str:
    """The helper or kernel function that the instruction calls, where it came with that version."""
    if insn is None or insn.code != 0x85:
        return ""
    helper = helpers.BY_ID.get(insn.imm) if insn.src == 0 else None
    if helper is not None and helper.since == since:
        return f"bpf_{helper.name}"
    row = kfuncs.BY_NAME.get(kfunc or "")
    return row.name if row is not None and row.since == since else ""
