"""What changed between kernel versions that a socket filter can notice; one row per rule, the default is the newest."""

from __future__ import annotations

from dataclasses import dataclass

from pktbpf.abi.helpers import Arg, Helper
from pktbpf.errors import UsageError

VERSIONS = ("5.10", "6.1", "6.6", "6.12", "6.18")
NEWEST = VERSIONS[-1]


def version_number(text: str) -> tuple[int, int]:
    """"6.18" as (6, 18). Raises UsageError for what is not a version."""
    major, _, minor = text.partition(".")
    if not (major.isdigit() and minor.isdigit()):
        raise UsageError(f"kernel {text!r} is not a version such as {NEWEST}")
    return int(major), int(minor)


@dataclass(frozen=True, slots=True)
class Profile:
    """The rules of one kernel version."""

    version: str

    @property
    def number(self) -> tuple[int, int]:
        """Comparable version."""
        return version_number(self.version)

    def since(self, version: str) -> bool:
        """Whether this kernel is at least `version`."""
        return self.number >= version_number(version)

    def has_helper(self, row: Helper) -> bool:
        """Whether a socket filter may call the helper on this kernel."""
        return self.since(row.since)

    @property
    def elides_null(self) -> bool:
        """An array lookup with a constant key in range is never null (6.14)."""
        return self.since("6.14")

    @property
    def bounds_cpu(self) -> bool:
        """get_smp_processor_id is known to be below the number of processors (6.3)."""
        return self.since("6.3")

    @property
    def tracks_swaps(self) -> bool:
        """Byte swaps keep what is known of single bits (6.18)."""
        return self.since("6.18")

    @property
    def forks_masks(self) -> bool:
        """A mask of a value that is 0 or -1 is checked for both (6.18)."""
        return self.since("6.18")

    def const_dynptr_ok(self, arg: Arg) -> bool:
        """Helpers that only read through a dynptr take a constant one, whatever their row says (6.2)."""
        return arg.rdonly and self.since("6.2")


def profile(version: str) -> Profile:
    """The profile of a version from `VERSIONS`, or of any other in between. Raises UsageError below 5.10."""
    if version_number(version) < (5, 10):
        raise UsageError(f"kernel {version} is older than 5.10, the oldest with a profile")
    return Profile(version)
