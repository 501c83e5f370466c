"""What all tests share: the long ones wait for `-m long`, those that ask the live kernel say why they cannot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave `long` tests out unless the marker expression names them or PKTBPF_LONG_TESTS is set.

    Tests that ask the live kernel say so in the JUnit report, where CI counts how many of them were skipped.
    """
    for item in items:
        if item.get_closest_marker("kernel"):
            item.user_properties.append(("kernel", "asked"))
    if "long" in (config.option.markexpr or "") or os.environ.get("PKTBPF_LONG_TESTS"):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the checkout: `filters/`, `pcaps/` and README.md lie there."""
    return ROOT


@pytest.fixture(autouse=True, scope="session")
def _at_the_root() -> None:
    """Paths in tests and in the README begin at the top of the checkout."""
    os.chdir(ROOT)
