"""Programs that no kernel is asked about are known before: the one here makes Linux 6.18 oops."""

from __future__ import annotations

import pytest
from verifier_cases import FOLDER, cases, ours, read
from verifier_freed import Freed


def test_a_checkpoint_that_is_freed_and_followed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    (case,) = read(FOLDER / "freed" / "loop_in_callback.txt")
    freed = Freed(monkeypatch)
    assert ours(case.insns, case.privilege).errno == case.verdict.errno
    assert freed.found


def test_no_case_for_the_kernel_frees_one(monkeypatch: pytest.MonkeyPatch) -> None:
    freed = Freed(monkeypatch)
    for case in cases():
        freed.begin()
        ours(case.insns, case.privilege)
        assert not freed.found, case.name
