"""How a check stops the verification: an exception with the kernel's errno and the lines of its log.

`Refusal` travels inside this package only; `verify` turns it into `pktbpf.errors.ProgramRefused` with the explanation.
"""

from __future__ import annotations

import errno
from typing import NoReturn

ENOTSUPP = 524
# What a speculative path may run into without an end for the program: the path is fenced off instead.
RECOVERABLE = (errno.EPERM, errno.EACCES, errno.EINVAL)


class Refusal(Exception):
    """A check failed. lines: the kernel's log for it, the first being the reason. unsupported: not the kernel's word,
    but a feature that this verifier cannot judge. on_path: the walk stopped with it; its state is the refused one."""

    def __init__(self, number: int, *lines: str, insn: int | None = None, unsupported: bool = False):
        super().__init__(number, *lines)
        self.errno = number
        self.lines = lines
        self.insn = insn
        self.unsupported = unsupported
        self.on_path = False


def refuse(number: int, *lines: str, insn: int | None = None) -> NoReturn:
    """Stop with errno `number` and the kernel's log lines."""
    raise Refusal(number, *lines, insn=insn)


def invalid(*lines: str, insn: int | None = None) -> NoReturn:
    """Stop with EINVAL."""
    raise Refusal(errno.EINVAL, *lines, insn=insn)


def denied(*lines: str, insn: int | None = None) -> NoReturn:
    """Stop with EACCES."""
    raise Refusal(errno.EACCES, *lines, insn=insn)


def unsupported(what: str, insn: int | None = None) -> NoReturn:
    """Stop because this verifier cannot judge `what`; the kernel might accept it."""
    raise Refusal(errno.EOPNOTSUPP, f"cannot be judged offline: {what}", insn=insn, unsupported=True)
