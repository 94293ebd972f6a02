"""Publishing writes reports side by side for people and programs: one HTML page, Markdown, CSV and JSON in one folder.

`write` is what every evaluation ends with, and can be called again on reports read back, since nothing in it needs a
model or a store. Each file is replaced whole. `card` says what is needed to repeat a run.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from sleuth.eval.calibration import Calibration, calibration
from sleuth.eval.causes import CAUSES
from sleuth.eval.compare import Difference, compare, values_in
from sleuth.eval.passk import PassAt, chain_checked, pass_at_k, repeated
from sleuth.eval.report import Report, figure, grid, label, replace, text_of
from sleuth.eval.slices import SMALL
from sleuth.eval.stats import interval

PACKAGES = (
    "sleuth", "torch", "transformers", "peft", "sentence-transformers", "faiss-cpu", "bm25s", "langgraph", "llguidance",
    "numpy", "scipy",
)  # fmt: skip
"""Whose versions can change a figure."""


def write(
    folder: str | Path,
    reports: Sequence[Report],
    title: str = "",
    command: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """``report.html`` (with ``episodes/``), ``.md``, ``.csv`` and ``.json`` in a folder; the path of the page.

    ``command`` is what a person typed to get here. The reports keep a card that they have.
    """
    from sleuth.eval.page import write_page

    folder = Path(folder)
    made = card(command)
    reports = [dataclasses.replace(report, card=report.card or made) for report in reports]
    replace(folder / "report.json", text_of(reports))
    replace(folder / "report.csv", table(reports))
    replace(folder / "report.md", markdown(reports, title))
    return write_page(folder, reports, title, progress)


def card(command: str = "") -> dict[str, Any]:
    """When, where and with which versions a report was made."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "made": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "command": command,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": versions,
    }


def by_benchmark(reports: Sequence[Report]) -> dict[str, list[Report]]:
    """The reports of each benchmark, both in the order given."""
    found: dict[str, list[Report]] = {}
    for report in reports:
        found.setdefault(report.benchmark, []).append(report)
    return found


def overview(reports: Sequence[Report]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Benchmarks, each with its primary metric, and for every run its figure on each; a dash where it has none."""
    groups = by_benchmark(reports)
    found = {(report.benchmark, report.name): report for report in reports}
    names = list(dict.fromkeys(report.name for report in reports))
    heads = [f"{benchmark}, {label(ours[0].primary)}" for benchmark, ours in groups.items()]
    return heads, [(name, [_primary(found.get((benchmark, name))) for benchmark in groups]) for name in names]


def _primary(report: Report | None) -> str:
    found = report.summary(report.primary).interval if report and report.primary else None
    return f"{figure(report.primary, found)} n {found.n}" if report and found else "–"


def uneven(reports: Sequence[Report]) -> str:
    """A warning where the runs of one benchmark are over different questions; empty otherwise."""
    asked = [{row.task_id for row in report.scored} for report in reports]
    common = set.intersection(*asked)
    if all(found == common for found in asked):
        return ""
    counts = ", ".join(f"{report.name} {len(found)}" for report, found in zip(reports, asked, strict=True))
    return (
        f"These runs are over different questions ({counts}; {len(common)} in common): their means do not compare, "
        "only the paired differences do."
    )


def differences(reports: Sequence[Report]) -> list[Difference]:
    """The primary metric of each run minus that of the first, over all questions, where both have any."""
    first, *others = reports
    if not first.primary:
        return []
    kept = [r for r in others if r.values(first.primary).keys() & first.values(first.primary).keys()]
    return [line for line in compare([first, *kept], [first.primary]) if not line.value] if kept else []


def slice_figures(reports: Sequence[Report]) -> Iterator[tuple[str, str, list[tuple[str, int]]]]:
    """For every slice: dimension, value and, for each run, the primary figure with its interval and its count."""
    from sleuth.eval.compare import groups

    for dimension, value in groups(reports):
        cells = []
        for report in reports:
            values = list(values_in(report, report.primary, dimension, value).values())
            cells.append((figure(report.primary, interval(values)), len(values)))
        yield dimension, value, cells


def calibrations(reports: Sequence[Report]) -> list[tuple[str, Calibration]]:
    """How far each run's confidence tells its right answers from its wrong ones, where it has both."""
    found = ((report.name, calibration(report.scored)) for report in reports if "em" in report.metrics)
    return [(name, figures) for name, figures in found if figures]


def passes(reports: Sequence[Report]) -> list[tuple[str, list[tuple[PassAt, PassAt]]]]:
    """For runs that differ in their seed alone: pass@k and chain-checked pass@k, for k = 1 to the number of seeds."""
    found = []
    for same in repeated(reports):
        rows = [report.scored for report in same]
        counts = range(1, len(same) + 1)
        found.append((same[0].name, [(pass_at_k(rows, k), pass_at_k(rows, k, chain_checked())) for k in counts]))
    return found


def markdown(reports: Sequence[Report], title: str = "") -> str:
    """For every benchmark its runs side by side, then differences, outcomes, slices, what was not scored and why."""
    groups = by_benchmark(reports)
    lines = [f"# {title or ', '.join(groups)}", ""]
    if len(groups) > 1:
        heads, rows = overview(reports)
        lines += [grid([["run", *heads], *([name, *cells] for name, cells in rows)]), ""]
    for benchmark, ours in groups.items():
        lines += [f"## {benchmark}", ""] if len(groups) > 1 else []
        lines += _benchmark(ours)
    return "\n".join(lines).rstrip() + "\n"


def _benchmark(reports: Sequence[Report]) -> Iterator[str]:
    head = ["metric", *(report.name for report in reports)]
    rows = [[label(metric), *(_cell(report, metric) for report in reports)] for metric in reports[0].metrics]
    yield from (grid([head, *rows]), "", "Mean [95 % bootstrap interval] (questions scored); scores times 100.", "")
    yield from (warning, "") if (warning := uneven(reports)) else ()
    for line in differences(reports):
        yield (
            f"- {label(line.metric)} of {line.ours} minus {line.base}: {figure(line.metric, line.interval)}, "
            f"p {line.p:.3f} by sign flips, {line.corrected:.3f} corrected; {line.interval.n if line.interval else 0} "
            f"questions in common, {line.only_ours} + {line.only_base} apart"
        )
    yield from ("", "Outcomes, from all questions to those answered right and cited:", "", _outcomes(reports), "")
    yield from _certainty(reports)
    yield from (f"{label(reports[0].primary)} by slice:", "", _slices(reports), "") if reports[0].primary else ()
    for report in reports:
        yield from _unscored(report)
    if reports[0].bad:
        yield from ("### Rows that could not be loaded", "", *(f"- {message}" for message in reports[0].bad), "")


def _outcomes(reports: Sequence[Report]) -> str:
    counts = [report.outcomes() for report in reports]
    names = [n for n in ("all", *CAUSES, "unknown", "right") if any(n in found for found in counts)]
    rows = [[name, *(str(found.get(name, 0)) for found in counts)] for name in names]
    return grid([["outcome", *(report.name for report in reports)], *rows])


def _slices(reports: Sequence[Report]) -> str:
    rows = [
        [f"{dimension}: {value}", *(f"{shown} ({n}{', few' if n < SMALL else ''})" for shown, n in cells)]
        for dimension, value, cells in slice_figures(reports)
    ]
    few = f"\n\n“few” marks a slice of under {SMALL} questions, which says little." if ", few" in str(rows) else ""
    return grid([["slice", *(report.name for report in reports)], *rows]) + few


CALIBRATION = ("run", "answers", "right", "AURC", "above the best order", "ECE", "without confidence")
CALIBRATION_NOTE = (
    "Confidence is the mean probability of the answer's drawn tokens; right is EM. AURC is the area under the "
    "risk-coverage curve (0 is perfect; what is wrong of all answers is chance), ECE the expected calibration error."
)


def calibration_cells(name: str, found: Calibration) -> list[str]:
    """The row of a run below `CALIBRATION`."""
    shares = (found.accuracy, found.aurc, found.excess_aurc, found.ece)
    return [name, str(found.n), *(f"{100 * share:.1f}" for share in shares), str(found.missing)]


def pass_cells(name: str, found: Sequence[tuple[PassAt, PassAt]]) -> list[list[str]]:
    """The rows of one group of runs below ``PASSES``, a row a k."""
    return [
        [name, str(plain.k), *(figure("em", each.interval) for each in (plain, chained)), str(plain.short)]
        for plain, chained in found
    ]


PASSES = ("runs that differ in their seed", "k", "pass@k", "with its evidence and support", "questions with fewer")


def _certainty(reports: Sequence[Report]) -> Iterator[str]:
    if sure := calibrations(reports):
        yield from ("Calibration:", "", grid([CALIBRATION, *(calibration_cells(*pair) for pair in sure)]), "")
        yield from (CALIBRATION_NOTE, "")
    if again := passes(reports):
        rows = [row for pair in again for row in pass_cells(*pair)]
        yield from ("Right in at least one of k runs:", "", grid([PASSES, *rows]), "")


def _unscored(report: Report) -> Iterator[str]:
    yield from (f"### {report.name}", "")
    yield from (f"{len(report.scored)} questions; runs ended: {counted(report.endings())}.", "")
    errors = Counter(row.error for row in report.scored if row.error)
    yield from (f"- error, {count} times: {error}" for error, count in errors.most_common(5))
    yield from (f"- {note}" for note in report.notes)
    for summary in report.summaries():
        if summary.unscored:
            yield f"- {label(summary.metric)} not scored for {summary.unscored}: {counted(summary.causes)}"
    yield ""


def _cell(report: Report, metric: str) -> str:
    found = report.summary(metric).interval
    return f"{figure(metric, found)} ({found.n})" if found else "– (0)"


def counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{key} {count}" for key, count in counts.items())


def table(reports: Sequence[Report]) -> str:
    """CSV, a line for every question of every run; a figure that is not scored is blank, its cause stands in the JSON.

    Texts that a spreadsheet would run as a formula get an apostrophe in front: they come from pages and policies.
    """
    metrics = list(dict.fromkeys(metric for report in reports for metric in report.metrics))
    dimensions = list(dict.fromkeys(d for report in reports for row in report.scored for d in row.slices))
    plain = ("task_id", "question", "gold", "answer", "outcome", "why", "stop", "error", "policy_version", "episode_id")
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["benchmark", "run", *plain, *dimensions, *metrics])
    for report in reports:
        for row in report.scored:
            texts = [_harmless(str(getattr(row, name))) for name in plain]
            cut = [_harmless(row.slices.get(dimension, "")) for dimension in dimensions]
            figures = [row.values.get(metric) for metric in metrics]
            shown = ["" if value is None else f"{value:.6g}" for value in figures]
            writer.writerow([_harmless(report.benchmark), _harmless(report.name), *texts, *cut, *shown])
    return file.getvalue()


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
