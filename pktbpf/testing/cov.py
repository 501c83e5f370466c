"""`pytest --pktbpf-cov`: collects the coverage of all filters of a test run, over all workers, and reports it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pktbpf.explain import coverage_data, coverage_report
from pktbpf.explain.coverage import CountingEngine, Coverage

_REPORTS = ("summary", "annotate", "lcov", "json")


class CoveragePlugin:
    """Registered when coverage is asked for. In an xdist worker it hands its counts to the controller."""

    def __init__(self, config: pytest.Config):
        self.config = config
        self.engines: list[CountingEngine] = []
        self.gathered = Coverage()
        self.whole: Coverage | None = None
        self.notes: list[str] = []
        self.reports = config.getoption("pktbpf_cov_report") or ["summary"]
        for report in self.reports:
            kind, _, target = report.partition(":")
            if kind not in _REPORTS or (kind in ("lcov", "json")) != bool(target):
                raise pytest.UsageError(
                    f"--pktbpf-cov-report {report!r} is none of summary, annotate, lcov:FILE, json:FILE"
                )

    def engine(self, name: str) -> CountingEngine:
        """An engine for one filter whose counts belong to the run."""
        made = CountingEngine(name)
        self.engines.append(made)
        return made

    def _own(self) -> Coverage:
        found = Coverage()
        for engine in self.engines:
            found.merge(engine.coverage())
        return found

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """A worker has ended: take what it counted."""
        text = getattr(node, "workeroutput", {}).get("pktbpf_coverage")
        if text:
            self.gathered.merge(coverage_data.from_object(json.loads(text), f"worker {node.gateway.id}"))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Hand over, or write the data file and judge the threshold."""
        self.gathered.merge(self._own())
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput["pktbpf_coverage"] = json.dumps(coverage_data.as_object(self.gathered))
            return
        if self.config.getoption("collectonly"):
            return
        data = self.config.getoption("pktbpf_cov_data") or self.config.getini("pktbpf_cov_data")
        self.whole = coverage_data.update(self.config.rootpath / data, self.gathered)
        self._write_files(self.whole)
        least = self.config.getoption("pktbpf_cov_fail_under")
        percent = self.whole.totals().percent
        if least is not None and percent < least:
            self.notes.append(f"FAIL: filter coverage is {percent:.1f} %, less than the {least:g} % asked for")
            if session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _write_files(self, coverage: Coverage) -> None:
        for report in self.reports:
            kind, _, target = report.partition(":")
            if kind == "lcov":
                path = Path(target)
                path.write_text(coverage_report.lcov(coverage, path.with_name(f"{path.name}.listings")))
            elif kind == "json":
                Path(target).write_text(json.dumps(coverage_report.as_object(coverage), indent=2) + "\n")
            if target:
                self.notes.append(f"filter coverage written to {target}")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the reports."""
        if self.whole is None:
            return
        terminalreporter.section("filter coverage")
        if "annotate" in self.reports:
            terminalreporter.write_line(coverage_report.annotate(self.whole))
        if "summary" in self.reports or self.reports == ["annotate"]:
            terminalreporter.write_line(coverage_report.summary(self.whole))
        for note in self.notes:
            terminalreporter.write_line(note)
