"""The pytest plugin: options, markers and fixtures. Nothing heavy is imported until a fixture or test file is used.

Fixtures: pktbpf_filter, pktbpf_capture, pktbpf_packet, pktbpf_golden, pktbpf_engine. Files `*.bpftest.yaml` are
collected as tests. Failed assertions about filters get the packet, the path and the deciding instruction added.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pktbpf.testing.builder import PacketBuilder
    from pktbpf.testing.captures import CaptureUnderTest
    from pktbpf.testing.collect import Collected
    from pktbpf.testing.kernel import Witness
    from pktbpf.testing.subject import FilterUnderTest

YAML_SUFFIXES = (".bpftest.yaml", ".bpftest.yml")
_MARKERS = (
    "pktbpf_kernel: put every assertion about a filter to the live kernel too; skipped where it cannot be asked",
    "pktbpf_engines(*names): run the test once on each of these engines, on all without names",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The --pktbpf-* options and the pktbpf_* settings."""
    group = parser.getgroup("pktbpf", "packet filters")
    group.addoption("--pktbpf-update", action="store_true", help="write golden verdicts anew instead of comparing")
    group.addoption("--pktbpf-kernel", action="store_true",
                    help="put the assertions of all tests to the live kernel too")  # fmt: skip
    group.addoption("--pktbpf-engine", action="append", default=[], metavar="NAME",
                    help="engine of the filters [interpreter]; repeat it, or say all, for several")  # fmt: skip
    group.addoption("--pktbpf-cov", action="store_true", help="which instructions of the filters the tests ran")
    group.addoption("--pktbpf-cov-data", metavar="FILE", default=None,
                    help="merge coverage into this file [.pktbpf-coverage]")  # fmt: skip
    group.addoption("--pktbpf-cov-fail-under", type=float, metavar="PERCENT", default=None,
                    help="fail when fewer instructions and branch directions than this ran")  # fmt: skip
    group.addoption("--pktbpf-cov-report", action="append", default=[], metavar="KIND[:FILE]",
                    help="summary (default), annotate, lcov:FILE, json:FILE")  # fmt: skip
    parser.addini("pktbpf_golden_dir", "folder of golden verdicts, beside the test file", default="golden")
    parser.addini("pktbpf_cov_data", "file that coverage is merged into", default=".pktbpf-coverage")


def pytest_configure(config: pytest.Config) -> None:
    """Markers, and the collector of coverage when it is asked for."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    if config.getoption("pktbpf_engine"):
        _chosen(config)  # an unknown name ends the run before anything is collected
    if config.getoption("pktbpf_cov") or config.getoption("pktbpf_cov_fail_under") is not None:
        from pktbpf.testing.cov import CoveragePlugin

        config.pluginmanager.register(CoveragePlugin(config), "pktbpf-coverage")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Several engines: one run of the test for each."""
    if "pktbpf_engine" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("pktbpf_engines")
    from pktbpf.testing.engines import names_of

    names = names_of(marker.args or ("all",)) if marker is not None else _chosen(metafunc.config)
    if len(names) > 1 or marker is not None:
        metafunc.parametrize("pktbpf_engine", names, indirect=True)


def _chosen(config: pytest.Config) -> list[str]:
    from pktbpf.testing.engines import names_of

    return names_of(config.getoption("pktbpf_engine"))


@pytest.fixture
def pktbpf_engine(request: pytest.FixtureRequest) -> str:
    """Name of the engine that filters of this test run on."""
    chosen = getattr(request, "param", None)
    return str(chosen or (_chosen(request.config) or ["interpreter"])[0])


@pytest.fixture
def pktbpf_filter(
    request: pytest.FixtureRequest, pktbpf_engine: str
) -> Generator[Callable[..., FilterUnderTest], None, None]:
    """A factory: pktbpf_filter("filters/http.bpf", attach="packet", ...) is a FilterUnderTest.

    Paths are looked for beside the test file, then in the folders above it up to the root; what names no file is a
    filter's text or an expression. Keywords: attach, engine, env, maps, linktype, program (of an object), optimize.
    """
    from pktbpf.testing.factory import make_filter

    witnesses: list[Witness] = []

    def factory(source: Any, **options: Any) -> FilterUnderTest:
        __tracebackhide__ = True
        options.setdefault("engine", pktbpf_engine)
        return make_filter(request, source, witnesses, **options)

    yield factory
    for witness in witnesses:
        witness.close()


@pytest.fixture
def pktbpf_capture(request: pytest.FixtureRequest) -> Callable[[str | Path], CaptureUnderTest]:
    """A factory: pktbpf_capture("pcaps/web.pcap") is a CaptureUnderTest; paths as for pktbpf_filter."""
    from pktbpf.testing.factory import make_capture

    return lambda path: make_capture(request, path)


@pytest.fixture(scope="session")
def pktbpf_packet() -> PacketBuilder:
    """A PacketBuilder: pktbpf_packet.tcp(dport=80, flags="S"), .udp, .icmp, .arp, .dns, ..."""
    from pktbpf.testing.builder import PacketBuilder

    return PacketBuilder()


@pytest.fixture
def pktbpf_golden(request: pytest.FixtureRequest) -> Callable[..., None]:
    """A check: pktbpf_golden(filter, capture) compares every verdict with the committed file.

    Both arguments may be paths. name: of the file, without .txt; by default made from the names of both. With
    --pktbpf-update the file is written instead.
    """

    def check(filter: Any, capture: Any, name: str | None = None) -> None:
        __tracebackhide__ = True
        from pktbpf.testing.factory import check_golden

        if isinstance(filter, str | Path):
            filter = request.getfixturevalue("pktbpf_filter")(filter)
        problem = check_golden(request, filter, capture, name)
        if problem:
            pytest.fail(problem, pytrace=False)

    return check


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect *.bpftest.yaml."""
    if not file_path.name.endswith(YAML_SUFFIXES):
        return None
    from pktbpf.testing.collect import YamlFile

    found: Collected = YamlFile.from_parent(parent, path=file_path)
    return found


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Add what a failed assertion was about."""
    import sys

    if "pktbpf.testing.subject" in sys.modules:
        sys.modules["pktbpf.testing.subject"].Judgement.last = None
    try:
        return (yield)
    except AssertionError as error:
        if "pktbpf.testing.subject" in sys.modules:
            from pktbpf.testing.failures import add_explanations

            add_explanations(error)
        raise
    except Exception as error:
        if type(error).__module__ == "pktbpf.testing.kernel" and type(error).__name__ == "Unavailable":
            pytest.skip(f"the live kernel cannot be asked: {error}")
        raise


def pytest_assertrepr_compare(config: pytest.Config, op: str, left: object, right: object) -> list[str] | None:
    """`assert f.kept(pkt) == 96`: both numbers, then the same explanation."""
    import sys

    if "pktbpf.testing.subject" not in sys.modules:
        return None
    from pktbpf.testing.failures import compare_lines

    return compare_lines(op, left, right)
