"""The rules of one kernel version as plain attributes, resolved once from the table of rules.py.

`profile(version)` gives the same object for the same version. The default is the newest, which the live kernel judges.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from functools import cache

from pktbpf.abi.helpers import COUNTS, Helper
from pktbpf.abi.helpers import ROWS as HELPERS
from pktbpf.abi.kfuncs import ROWS as KFUNCS
from pktbpf.abi.map_kinds import ROWS as KINDS
from pktbpf.errors import UsageError
from pktbpf.verifier.domain import Domain, domain
from pktbpf.verifier.rules import BY_NAME, ROWS, holds, version_of
from pktbpf.verifier.scalar import Reach

VERSIONS = ("5.10", "6.1", "6.6", "6.12", "6.18")
NEWEST = VERSIONS[-1]
LATEST = max((row.since for row in ROWS), key=version_of)  # some rule of it is known
_VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})(?:\.[0-9]+)?(?:[-+][\w.+~-]*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rules:
    """Each attribute is the row of that name: whether this kernel has the rule."""

    atomics: bool
    function_pointers: bool
    file_indexes: bool
    signed_instructions: bool
    long_goto: bool
    may_goto: bool
    empty_may_goto: bool
    address_spaces: bool
    ordered_atomics: bool
    whole_immediates: bool
    loops_anywhere: bool
    failing_packet_loads: bool
    ranges: bool
    tracks_swaps: bool
    forks_masks: bool
    half_copies: bool
    linked_sums: bool
    linked_halves: bool
    six_links: bool
    live_links: bool
    lifts_null: bool
    never_null_memory: bool
    never_null_maps: bool
    reads_below: bool
    zero_spills: bool
    unbounded_spills: bool
    narrow_fills: bool
    overwrites_scalars: bool
    scrubs_varying: bool
    stack_access_kinds: bool
    small_frames: bool
    context_immediates: bool
    sized_reads: bool
    bounds_cpu: bool
    elides_null: bool
    moved_records: bool
    zero_offsets: bool
    placed_dynptrs: bool
    sha256_tags: bool
    complexity_is_size: bool
    callback_rounds: bool
    fences: bool
    says_scalar: bool
    trusted_pointers: bool
    plain_bits: bool
    offsets_named: bool
    names_program_type: bool
    target_first: bool
    asks_constant: bool
    negative_offsets: bool
    numbers_from_zero: bool
    names_prog_array: bool
    names_target: bool
    returns_from_tail_calls: bool

@dataclass(frozen=True, slots=True)
class Profile(Rules):
    """The rules of one kernel version, its arithmetic and its helpers.

    approximate: what of an older kernel is not followed. last_helper: the first number that no helper has. map_kinds:
    names of the kinds of maps that exist. kfuncs: names of the kernel functions that a socket filter may call.
    """

    version: str
    domain: Domain
    approximate: tuple[str, ...]
    helpers: frozenset[int]
    last_helper: int
    map_kinds: frozenset[str]
    kfuncs: frozenset[str]

    def has_helper(self, row: Helper) -> bool:
        """Whether a socket filter may call the helper on this kernel."""
        return row.id in self.helpers


def version_number(text: str) -> tuple[int, int]:
    """"6.18" as (6, 18), and so are "6.18.5" and what `uname -r` says, "6.18.5-28-amd64" or "6.18-rc3". Raises
    UsageError for what is not a version."""
    found = _VERSION.fullmatch(text)
    if found is None:
        raise UsageError(f"kernel {text!r} is not a version such as {NEWEST}")
    return int(found[1]), int(found[2])


def profile(version: str) -> Profile:
    """The profile of a version from `VERSIONS`, or of any other from 5.10 on. Raises UsageError below that."""
    number = version_number(version)
    if number < version_number(VERSIONS[0]):
        raise UsageError(f"kernel {version} is older than {VERSIONS[0]}, the oldest with a profile")
    return _resolved(f"{number[0]}.{number[1]}")


def without_rule(version: str, name: str) -> Profile:
    """The profile of a version that lacks one of its rules."""
    return _resolved(version, name)


@cache
def _resolved(version: str, lacking: str = "") -> Profile:
    has = {row.name: holds(row, version) and row.name != lacking for row in ROWS}
    reach = Reach(**{field.name: has[field.name] for field in fields(Reach)})
    rules = {field.name: has[field.name] for field in fields(Rules)}
    approximate = tuple(
        row.approximate
        for row in ROWS
        if row.approximate and not has[row.name] and version_of(version) >= version_of(row.seen_from)
    )
    helpers = frozenset(row.id for row in HELPERS if version_of(version) >= version_of(row.since))
    kinds = frozenset(row.name for row in KINDS if version_of(version) >= version_of(row.since))
    kernel = frozenset(row.name for row in KFUNCS if version_of(version) >= version_of(row.since))
    last = next(count for first, count in reversed(COUNTS) if version_of(version) >= first)
    return Profile(
        **rules, version=version, domain=domain(reach), approximate=approximate, helpers=helpers, last_helper=last,
        map_kinds=kinds, kfuncs=kernel,
    )


__all__ = ["BY_NAME", "LATEST", "NEWEST", "VERSIONS", "Profile", "profile", "version_number", "without_rule"]
