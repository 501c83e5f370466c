"""What the plugin's fixtures do once they are used: paths, filters, captures, golden files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pktbpf.errors import UsageError
from pktbpf.filter import verify
from pktbpf.testing.captures import CaptureUnderTest
from pktbpf.testing.golden import Golden
from pktbpf.testing.kernel import Witness
from pktbpf.testing.subject import FilterUnderTest


def find(config: pytest.Config, beside: Path, name: str | Path) -> Path | None:
    """The file of that name beside `beside`, in a folder above it up to the root, or from the working directory."""
    wanted = Path(name)
    if wanted.is_absolute():
        return wanted if wanted.exists() else None
    root = config.rootpath
    folders = [beside.parent, *beside.parent.parents]
    if root in folders:
        folders = folders[: folders.index(root) + 1]
    for folder in [*folders, root, Path.cwd()]:
        found = folder / wanted
        if found.is_file():
            return found
    return None


def must_find(config: pytest.Config, beside: Path, name: str | Path) -> Path:
    """As `find`; UsageError where there is no such file."""
    __tracebackhide__ = True
    found = find(config, beside, name)
    if found is None:
        raise UsageError(f"{name}: no such file beside {beside.name} or in a folder above it, up to {config.rootpath}")
    return found


def wants_kernel(node: Any) -> bool:
    """Whether the assertions of a test go to the live kernel too."""
    return bool(node.config.getoption("pktbpf_kernel") or node.get_closest_marker("pktbpf_kernel"))


def make_filter(
    request: pytest.FixtureRequest, source: Any, witnesses: list[Witness], *, engine: Any = "interpreter",
    linktype: str | int | None = None, optimize: bool = True, program: str | None = None, **options: Any,
) -> FilterUnderTest:  # fmt: skip
    """The factory behind pktbpf_filter."""
    __tracebackhide__ = True
    node = request.node
    return build(node, node.path, source, witnesses, engine, {
        "linktype": linktype, "optimize": optimize, "program": program,
    }, options)  # fmt: skip


def build(
    node: Any, beside: Path, source: Any, witnesses: list[Witness], engine: Any, loading: dict[str, Any],
    options: dict[str, Any],
) -> FilterUnderTest:  # fmt: skip
    """A filter for a test node, with coverage and the live kernel as its options say."""
    __tracebackhide__ = True
    from pktbpf import loader
    from pktbpf.program import ClassicProgram, Program, Verified

    name, covered = None, ""
    if isinstance(source, str | Path):
        path = find(node.config, beside, source) if "\n" not in str(source) else None
        if path is None and (isinstance(source, Path) or loader.looks_like_path(str(source))):
            must_find(node.config, beside, source)
        name = _shown(node.config, source)
        covered = _shown(node.config, path) if path is not None else name
        source = loader.load_filter_argument(str(path or source), **loading)
    elif isinstance(source, bytes):
        source = loader.load(source, **loading)
    if not isinstance(source, ClassicProgram | Program | Verified):
        source = source.program()
    verified = verify(source)
    witness = Witness(verified) if wants_kernel(node) else None
    if witness is not None:
        witnesses.append(witness)
    collector = node.config.pluginmanager.get_plugin("pktbpf-coverage")
    if collector is not None and engine == "interpreter":
        engine = collector.engine(covered)
    return FilterUnderTest(verified, name=name, engine=engine, witness=witness, **options)


def _shown(config: pytest.Config, source: str | Path) -> str:
    """A path as the report calls it: from the root where it lies below it."""
    if isinstance(source, Path) and source.is_relative_to(config.rootpath):
        return str(source.relative_to(config.rootpath))
    return str(source)


def make_capture(request: pytest.FixtureRequest, path: str | Path) -> CaptureUnderTest:
    """The factory behind pktbpf_capture."""
    return CaptureUnderTest(must_find(request.config, request.node.path, path), str(path))


def check_golden(request: pytest.FixtureRequest, filter: FilterUnderTest, capture: Any, name: str | None) -> str | None:
    """Compare or update; the message of a failure, None where all is well."""
    if not isinstance(capture, CaptureUnderTest):
        capture = make_capture(request, capture)
    stem = name or f"{_stem(filter.name)}--{_stem(capture.path.name)}"
    folder = request.node.path.parent / request.config.getini("pktbpf_golden_dir")
    golden = Golden(folder / f"{stem}.txt", filter, capture)
    if request.config.getoption("pktbpf_update"):
        golden.update()
        return None
    if not golden.path.exists():
        return f"there is no golden file {golden.path}; run `pytest --pktbpf-update` to write it"
    try:
        changes = golden.compare()
    except ValueError as error:
        return f"{golden.path}: {error}"
    return golden.message(changes) if changes else None


def _stem(name: str) -> str:
    """A file name's part of a golden file's name."""
    return re.sub(r"[^\w.-]+", "_", Path(name).name if "/" in name else name).strip("_.") or "filter"
