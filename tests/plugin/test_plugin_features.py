"""Options, markers, fixtures and messages of the plugin, each in a little project of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

FILTER = "ldh [12]\njne #0x800, drop\nldb [23]\njne #17, drop\nkeep: ret #64\ndrop: ret #0\n"


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """Runs in this process forget the modules they import; numba does not survive that, so all is loaded before."""
    import hypothesis  # noqa: F401

    import pktbpf.cli.coverage
    import pktbpf.testing.collect
    import pktbpf.testing.cov
    import pktbpf.testing.engines
    import pktbpf.testing.failures
    from pktbpf.testing import CaptureUnderTest, FilterUnderTest, Golden

    capture = CaptureUnderTest(Path(__file__).parents[2] / "pcaps" / "icmp.pcap")
    for engine in ("interpreter", pktbpf.testing.cov.CountingEngine("x"), "reference"):
        FilterUnderTest("udp", engine=engine).accepts(capture[0]).explain()
        FilterUnderTest("udp", engine=engine).accepts(bytes(60)).explain()
    Golden(capture.path, FilterUnderTest("udp"), capture).render()


@pytest.fixture
def run(pytester: pytest.Pytester):  # type: ignore[no-untyped-def]
    """run(source, *options) with udp.bpf beside the test file."""
    (pytester.path / "udp.bpf").write_text(FILTER)

    def call(source: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(source)
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", *options)

    return call


def test_messages_of_every_kind_of_assertion(run) -> None:  # type: ignore[no-untyped-def]
    done = run("""
        import pytest

        @pytest.fixture
        def udp(pktbpf_filter):
            return pktbpf_filter("udp.bpf")

        def test_accepts(udp, pktbpf_packet):
            assert udp.accepts(pktbpf_packet.tcp())

        def test_not(udp, pktbpf_packet):
            assert not udp.accepts(pktbpf_packet.udp())

        def test_kept(udp, pktbpf_packet):
            assert udp.kept(pktbpf_packet.udp("x" * 99)) == 65

        def test_all(udp, pktbpf_packet):
            assert all(udp.rejects(p) for p in (pktbpf_packet.tcp(), pktbpf_packet.udp(dport=7)))

        def test_other(udp, pktbpf_packet):
            assert udp.rejects(pktbpf_packet.arp())
            assert 1 == 2
    """)
    done.assert_outcomes(failed=5)
    done.stdout.fnmatch_lines([
        "*test_accepts*",
        "E*assert <rejected by instruction 3 (jeq #0x11 jt 4 jf 5): ip.proto = 6, not 17>",
        "E*packet of 54 bytes:",
        "E*ip*proto 6*",
        "E*udp.bpf: rejected because ip.proto = 6, not 17",
        "E*path taken:",
        "E*2 ldb [[]23]*ip.proto = 6",
        "E*decided by instruction 3 (jeq #0x11 jt 4 jf 5): ip.proto = 6, not 17",
        "*test_not*",
        "E*accepted because ether.type = 0x0800, ip.proto = 17",
        "*test_kept*",
        "E*assert 64 == 65",
        "E*64 of 141 bytes kept of the packet of 141 bytes",
        "E*verdict: accepted, 64 of 141 bytes kept (returned 0x40)",
        "*test_all*",
        "E*udp*dstport 7*",
        "*test_other*",
        "E*assert 1 == 2",
    ])  # fmt: skip
    after = done.stdout.str().split("test_other")[-1]
    assert "path taken" not in after


def test_golden_missing_changed_updated(run, pytester: pytest.Pytester) -> None:  # type: ignore[no-untyped-def]
    capture = Path(__file__).parents[2] / "pcaps" / "icmp.pcap"
    (pytester.path / "icmp.pcap").write_bytes(capture.read_bytes())
    source = """
        def test_golden(pktbpf_golden):
            pktbpf_golden("udp.bpf", "icmp.pcap")
    """
    run(source).stdout.fnmatch_lines(["there is no golden file *golden/udp.bpf--icmp.pcap.txt; run*--pktbpf-update*"])
    run(source, "--pktbpf-update").assert_outcomes(passed=1)
    run(source).assert_outcomes(passed=1)
    path = pytester.path / "golden" / "udp.bpf--icmp.pcap.txt"
    lines = path.read_text().splitlines()
    assert lines[0] == "# pktbpf golden verdicts 1"
    assert lines[4].split()[:3] == ["1", lines[4].split()[1], lines[4].split()[2]]
    changed = [line.replace("reject ", "accept ", 1) if n == 6 else line for n, line in enumerate(lines)]
    path.write_text("\n".join([*changed, "   999 accept 5  a packet that is not there", ""]))
    done = run(source)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines([
        "2 of * verdicts of udp.bpf over icmp.pcap changed (udp.bpf--icmp.pcap.txt):",
        "  packet 3: was accept, 0 bytes kept, is reject",
        "    IP*ICMP*",
        "    rejected because ip.proto = 1, not 17",
        "    decided by instruction 3 *",
        "  packet 999: was accept, 5 bytes kept, is absent",
        "*pytest --pktbpf-update*",
    ])  # fmt: skip
    path.write_text("nonsense")
    run(source).stdout.fnmatch_lines(["*does not begin with '# pktbpf golden verdicts 1'"])


def test_engines(run) -> None:  # type: ignore[no-untyped-def]
    source = """
        import pytest

        def test_plain(pktbpf_filter, pktbpf_packet):
            assert pktbpf_filter("udp.bpf").accepts(pktbpf_packet.udp())

        @pytest.mark.pktbpf_engines("reference")
        def test_marked(pktbpf_filter, pktbpf_engine, pktbpf_packet):
            assert pktbpf_engine == "reference"
            assert type(pktbpf_filter("udp.bpf").runner).__name__ == "Referenced"
    """
    run(source).assert_outcomes(passed=2)
    done = run(source, "--pktbpf-engine", "all", "-v")
    names = [line.split()[0] for line in done.stdout.lines if "PASSED" in line]
    assert any(name.endswith("test_plain[interpreter]") for name in names)
    assert any(name.endswith("test_plain[reference]") for name in names)
    assert run(source, "--pktbpf-engine", "steam").ret == pytest.ExitCode.USAGE_ERROR


def test_kernel_marker_and_option(run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    source = """
        import pytest

        @pytest.mark.pktbpf_kernel
        def test_marked(pktbpf_filter, pktbpf_packet):
            udp = pktbpf_filter("udp.bpf")
            assert udp.accepts(pktbpf_packet.udp())
            assert udp.witness is not None

        def test_plain(pktbpf_filter, pktbpf_packet, request):
            udp = pktbpf_filter("udp.bpf")
            assert udp.rejects(pktbpf_packet.tcp())
            assert (udp.witness is not None) == request.config.getoption("pktbpf_kernel")
    """
    assert run(source).ret == 0
    assert run(source, "--pktbpf-kernel").ret == 0

    import pktbpf.testing.kernel as kernel
    from pktbpf.errors import KernelUnavailable

    def refuse(name: str) -> None:
        raise KernelUnavailable(1, "AF_UNIX socket filters")

    monkeypatch.setattr(kernel, "open_rig", refuse)
    done = run(source, "-rs")
    done.assert_outcomes(passed=1, skipped=1)
    done.stdout.fnmatch_lines(["SKIPPED*the live kernel cannot be asked: AF_UNIX socket filters: * (EPERM)"])


@pytest.mark.kernel
def test_a_kernel_that_disagrees_fails_the_test(run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """The kernel is given another program than ours runs."""
    from pktbpf.filter import verify
    from pktbpf.loader import load
    from pktbpf.testing import kernel

    other = verify(load("ret #0"))
    monkeypatch.setattr(kernel.Witness, "__init__", lambda self, definition: _witness(self, other))
    done = run("""
        def test_one(pktbpf_filter, pktbpf_packet):
            assert pktbpf_filter("udp.bpf").accepts(pktbpf_packet.udp())
    """, "--pktbpf-kernel")  # fmt: skip
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines([
        "E*the live kernel disagrees on packet of 42 bytes: it rejects what udp.bpf accepts"
    ])  # fmt: skip


def _witness(self, definition) -> None:  # type: ignore[no-untyped-def]
    self.definition, self._rig, self._session = definition, None, None


def test_coverage_threshold_and_reports(run, pytester: pytest.Pytester) -> None:  # type: ignore[no-untyped-def]
    source = """
        def test_one(pktbpf_filter, pktbpf_packet):
            assert pktbpf_filter("udp.bpf").accepts(pktbpf_packet.udp())
    """
    done = run(source, "--pktbpf-cov-fail-under", "90")
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(["*filter coverage*", "udp.bpf*5 of 6 instructions, 2 of 4 branch directions",
                               "FAIL: filter coverage is 70.0 %, less than the 90 % asked for"])  # fmt: skip
    more = """
        def test_two(pktbpf_filter, pktbpf_packet):
            assert pktbpf_filter("udp.bpf").rejects(pktbpf_packet.tcp())
    """
    done = run(more, "--pktbpf-cov", "--pktbpf-cov-report", "annotate", "--pktbpf-cov-report", "lcov:out.info")
    assert done.ret == 0
    done.stdout.fnmatch_lines(["*3 of 4 branch directions*"])
    assert "BRDA:2,0,0," in (pytester.path / "out.info").read_text()
    assert json.loads((pytester.path / ".pktbpf-coverage").read_text())["programs"][0]["name"] == "udp.bpf"
    assert run(more, "--pktbpf-cov", "--pktbpf-cov-report", "html").ret == pytest.ExitCode.USAGE_ERROR


YAML = """
filter: udp.bpf
tests:
  - {name: good, packet: {udp: {dport: 5}}, accept: true, kept: 42}
  - {name: several, packets: [{tcp: {}}, {udp: {}}, "00"], accepted: [2], count: 1}
  - {name: ranges, packets: [{udp: {}}, {udp: {}}, {udp: {}}, {arp: {}}], accepted: [1-3], verdicts: {4: 0, 1: 64}}
  - {name: bad, packet: {tcp: {dport: 5}}, accept: true}
  - {name: cut, packet: {udp: {}}, wire_len: 1500, kept: 64}
"""


def test_tests_without_python(pytester: pytest.Pytester) -> None:
    (pytester.path / "udp.bpf").write_text(FILTER)
    (pytester.path / "udp.bpftest.yaml").write_text(YAML)
    done = pytester.runpytest_inprocess("-v", "-p", "no:cacheprovider")
    done.assert_outcomes(passed=4, failed=1)
    done.stdout.fnmatch_lines([
        "udp.bpftest.yaml::good PASSED*",
        "*udp.bpftest.yaml: bad*",
        "packet of 54 bytes: expected to be accepted",
        "*udp.bpf: rejected because ip.proto = 6, not 17",
        "decided by instruction 3*",
    ])  # fmt: skip
    assert "runtest" not in done.stdout.str()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tests: [{packet: '00', acept: true}]", "*unknown key 'acept'; there are accept, *"),
        ("tests: [{packet: '00'}]", "*test 1: nothing is expected; say one of accept, *"),
        ("tests: [{accept: true}]", "*exactly one of packet, packets and capture is wanted"),
        ("tests: []", "*a mapping with a list `tests` is wanted"),
        ("tests: [", "*udp.bpftest.yaml: while parsing*"),
        ("tests: [{packet: {ipx: {}}, accept: true}]", "*unknown kind of packet 'ipx'; there are eth, *"),
        ("tests: [{packet: {tcp: {dprt: 1}}, accept: true}]", "*unexpected keyword argument 'dprt'*"),
        ("tests: [{packet: 'zz', accept: true}]", "*'zz' is not hexadecimal*"),
        ("filter: none.bpf\ntests: [{packet: '00', accept: true}]", "*none.bpf: no such file beside *"),
        ("tests: [{capture: none.pcap, count: 1}]", "*none.pcap: no such file beside *"),
        ("tests: [{packet: '00', accept: false, maps: {m: {0: 1}}}]", "*udp.bpf has no map 'm'; there are none"),
    ],
)
def test_wrong_test_files_are_told(pytester: pytest.Pytester, text: str, message: str) -> None:
    (pytester.path / "udp.bpf").write_text(FILTER)
    (pytester.path / "udp.bpftest.yaml").write_text(text)
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    assert done.ret != 0
    done.stdout.fnmatch_lines([message])
    assert "INTERNALERROR" not in done.stdout.str()


def test_paths_from_the_root_and_beside_the_test(pytester: pytest.Pytester) -> None:
    (pytester.path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    inner = pytester.path / "deep" / "er"
    inner.mkdir(parents=True)
    (pytester.path / "udp.bpf").write_text(FILTER)
    (inner / "near.bpf").write_text(FILTER)
    (inner / "test_paths.py").write_text(
        "import pytest\nfrom pktbpf import UsageError\n"
        "def test_paths(pktbpf_filter, pktbpf_packet):\n"
        "    for name in ('near.bpf', 'udp.bpf', 'udp', 'ldh [12]\\nret a'):\n"
        "        assert pktbpf_filter(name).accepts(pktbpf_packet.udp())\n"
        "    with pytest.raises(UsageError, match='no such file'):\n"
        "        pktbpf_filter('far.bpf')\n"
    )
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
