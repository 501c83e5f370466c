"""The kernel's wording where it changed between versions: bits, offsets, kinds of registers, what helpers expect."""

from __future__ import annotations

from pktbpf.verifier import tnum
from pktbpf.verifier.profile import Profile
from pktbpf.verifier.scalar import Scalar
from pktbpf.verifier.state import kind_text


class Words:
    """The phrases of one version."""

    def __init__(self, rules: Profile):
        self.rules = rules

    def tnum(self, v: Scalar) -> str:
        """Known bits, `0` or, before 6.8, `(0x0; 0x0)`."""
        if self.rules.plain_bits:
            return tnum.text((v[0], v[1]))
        return f"({hex(v[0])}; {hex(v[1])})"

    def offset(self, offset: int) -> str:
        """The fixed part of an offset that varies; older messages leave it out."""
        return f" off={offset}" if self.rules.offsets_named else ""

    def kind(self, kind: int) -> str:
        """A kind of register; a number was `inv` before 5.18."""
        text = kind_text(kind)
        if not self.rules.trusted_pointers:
            text = text.replace("ringbuf_mem", self._record)
        return "inv" if text == "scalar" and not self.rules.says_scalar else text

    @property
    def _record(self) -> str:
        """Memory of a ring-buffer record, before it had its own name."""
        return "alloc_mem" if self.rules.says_scalar else "mem"

    def expected(self, text: str) -> str:
        """What a helper wanted in a register, as this version lists it."""
        if not self.rules.trusted_pointers:
            later = ("trusted_", "rcu_", "percpu_rcu_", "percpu_trusted_")
            text = ", ".join(word for word in text.split(", ") if not word.startswith(later))
            text = {"map_value, ptr_": "map_value"}.get(text, text)
            text = text.replace("ringbuf_mem", self._record)
        return text if self.rules.says_scalar else text.replace("scalar", "inv")
