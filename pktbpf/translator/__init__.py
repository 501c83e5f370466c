"""Classic programs: the kernel's checks at attach, and the translation into extended instructions.

check(classic) mirrors bpf_check_classic and what the conversion after it can still refuse; translate(classic) mirrors
bpf_convert_filter (net/core/filter.c) in instructions that user space can load, as far as they exist.
"""

from __future__ import annotations

from pktbpf.translator.check import check
from pktbpf.translator.translate import translate

__all__ = ["check", "translate"]
