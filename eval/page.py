"""The page is a report as one HTML file without scripts or anything from elsewhere; the episodes stand beside it.

It draws what `report` and `compare` compute and computes nothing of its own. Every text is escaped by the templates:
questions, answers and passages are data. Plots are SVG in percentages, so that they fit a phone, and take their colours
from the style sheet, so that they suit a dark page.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sleuth.agents import episodes
from sleuth.agents.records import Citation, Episode
from sleuth.corpora.records import Passage
from sleuth.eval.calibration import calibration, pairs, risk_coverage
from sleuth.eval.causes import CAUSES, RIGHT
from sleuth.eval.evaluate import task_id
from sleuth.eval.metrics import citations
from sleuth.eval.records import Scored
from sleuth.eval.report import Report, figure, is_cost, label, replace
from sleuth.eval.slices import SMALL
from sleuth.eval.stats import Interval

TEMPLATES = Path(__file__).parent / "templates"
MAX_ROWS = 500
"""Questions of a run that the page lists; all are in report.csv."""
FILE_EPISODES = 100
"""Episodes a file of rendered ones holds."""
HEADLINE = ("em", "f1", "cover_em", "evidence_recall", "answer_in_context", "citation_precision", "citation_support")
"""Beside the primary metric, where the benchmark has them."""
STAGES = {name: re.sub(r"\W+", "-", name) for name in (*CAUSES, "unknown", RIGHT)}
"""Outcomes and the names of their colours."""


def write_page(
    folder: Path, reports: Sequence[Report], title: str = "", progress: Callable[[int, int], None] | None = None
) -> Path:
    """``report.html`` and ``episodes/*.html``; the path of the page."""
    from sleuth.eval import publish

    links = []
    for number, report in enumerate(reports, 1):
        links.append(write_episodes(folder, report, f"{number:02d}-{_slug(report.benchmark)}-{_slug(report.name)}"))
        if progress:
            progress(number, len(reports))
    place = {id(report): index for index, report in enumerate(reports)}
    benchmarks: list[dict[str, Any]] = [
        {
            "name": name,
            "primary": label(ours[0].primary) if ours[0].primary else "",
            "columns": [label(metric) for metric in _columns(ours[0])],
            "runs": [_run(report, links[place[id(report)]]) for report in ours],
            "forest": forest(ours),
            "scatter": scatter(ours),
            "differences": [_difference(line) for line in publish.differences(ours)],
            "slices": list(publish.slice_figures(ours)),
            "cost_names": [label(metric) for metric in ours[0].metrics if is_cost(metric)],
            "uneven": publish.uneven(ours),
            "calibrations": [publish.calibration_cells(*pair) for pair in publish.calibrations(ours)],
            "curves": [curve(report) for report in ours if calibration(report.scored)],
            "passes": [row for pair in publish.passes(ours) for row in publish.pass_cells(*pair)],
            "bad": ours[0].bad,
            "outcomes": {name for report in ours for name in report.outcomes()},
        }
        for name, ours in publish.by_benchmark(reports).items()
    ]
    text = _render(
        "report.html.j2",
        title=title or ", ".join(item["name"] for item in benchmarks),
        benchmarks=benchmarks,
        overview=publish.overview(reports) if len(benchmarks) > 1 else None,
        stages=[(name, STAGES[name], CAUSES.get(name, "")) for name in STAGES if name != "unknown"],
        cards=_cards(reports),
        small=SMALL,
        max_rows=MAX_ROWS,
        calibration_head=publish.CALIBRATION,
        calibration_note=publish.CALIBRATION_NOTE,
        passes_head=publish.PASSES,
    )
    return replace(folder / "report.html", text)


def forest(reports: Sequence[Report]) -> dict[str, Any]:
    """The primary metric by run with its interval, on one axis: positions in percent of the axis' width."""
    found = [(report.name, report.summary(report.primary).interval) for report in reports if report.primary]
    most = max((i.high for _, i in found if i), default=0.0)
    cost = bool(reports) and is_cost(reports[0].primary)
    top = _top(most if cost else 100 * most)
    unit = 1 if cost else 100
    rows = [
        {
            "name": name,
            "mean": _percent(i.mean * unit, top),
            "low": _percent(i.low * unit, top),
            "high": _percent(i.high * unit, top),
            "shown": figure(reports[0].primary, i),
            "n": i.n,
        }
        for name, i in found
        if i
    ]
    return {"rows": rows, "ticks": _ticks(top)}


def scatter(reports: Sequence[Report]) -> dict[str, Any] | None:
    """Retrieval against answers, a numbered point for each run; None where either was not scored."""
    for recall in ("evidence_recall", "answer_in_retrieved", "recall"):
        points: list[dict[str, Any]] = []
        for number, report in enumerate(reports, 1):
            found = report.values(recall) if recall in report.metrics and report.primary else {}
            scores = report.values(report.primary)
            both = sorted(found.keys() & scores.keys())
            if both:
                x, y = (100 * sum(values[i] for i in both) / len(both) for values in (found, scores))
                points.append({"number": number, "name": report.name, "x": x, "y": y, "n": len(both)})
        if points and not is_cost(reports[0].primary):
            top = _top(max(point["y"] for point in points))
            drawn = [{**p, "left": _percent(p["x"], 100), "up": round(100 - 100 * p["y"] / top, 2)} for p in points]
            return {
                "x": label(recall),
                "y": label(reports[0].primary),
                "points": drawn,
                "labels": _labels(drawn),
                "top": top,
            }
    return None


def curve(report: Report) -> dict[str, Any]:
    """The risk-coverage curve of a run as corners of a line, in percent of a square's width and height."""
    found, _ = pairs(report.scored)
    points = [(round(100 * p.coverage, 2), round(100 - 100 * p.risk, 2)) for p in risk_coverage(found)]
    return {"name": report.name, "line": " ".join(f"{x},{y}" for x, y in points), "risk": round(100 - points[-1][1])}


def _labels(points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The points' numbers, those of points that lie on one another written together."""
    found: list[dict[str, Any]] = []
    for point in points:
        near = next((n for n in found if math.dist((n["left"], n["up"]), (point["left"], point["up"])) < 4), None)
        if near:
            near["numbers"].append(point["number"])
        else:
            found.append({"left": point["left"], "up": point["up"], "numbers": [point["number"]]})
    return found


def waterfall_rows(outcomes: Mapping[str, int]) -> list[dict[str, Any]]:
    """A bar for each step of a waterfall, where it starts and how wide it is in percent of all questions."""
    total, left, rows = outcomes["all"], outcomes["all"], []
    for name, count in outcomes.items():
        left -= count if name not in ("all", RIGHT) else 0
        start = 0 if name in ("all", RIGHT) else left
        rows.append(
            {
                "name": name,
                "count": count,
                "colour": STAGES.get(name, "all"),
                "start": _percent(start, total),
                "width": _percent(count, total),
            }
        )
    return rows


def write_episodes(folder: Path, report: Report, stem: str) -> dict[str, str]:
    """Render a report's episode file, a few hundred a page; the address of each task's last episode, from the page.

    A report without an episode file, or whose file has gone, has none.
    """
    path = Path(report.episodes) if report.episodes else None
    if path is None or not path.is_file():
        return {}
    rows = {row.task_id: row for row in report.scored}
    links: dict[str, str] = {}
    batch: list[dict[str, Any]] = []
    number = 0

    def flush() -> None:
        nonlocal number
        number += 1
        name = f"{stem}-{number}.html"
        title = f"{report.benchmark}, {report.name}"
        replace(folder / "episodes" / name, _render("episodes.html.j2", title=title, episodes=batch, part=number))
        links.update({shown["task"]: f"episodes/{name}#{shown['anchor']}" for shown in batch})
        batch.clear()

    for episode in episodes.read(path, bad=lambda message: None):
        row = rows.get(task_id(episode))
        if row is None:
            continue
        anchor = f"e{hashlib.sha256(row.task_id.encode()).hexdigest()[:10]}-{len(batch)}"
        batch.append({"task": row.task_id, "anchor": anchor, **shown(episode, row)})
        if len(batch) == FILE_EPISODES:
            flush()
    if batch:
        flush()
    return links


def shown(episode: Episode, row: Scored) -> dict[str, Any]:
    """An episode as the template takes it: steps with their queries, hits and replies; the citations marked in them."""
    passages, kept = episode.passages(), citations(episode)
    steps = []
    for number, step in enumerate(episode.steps, 1):
        calls = [
            {
                "tool": call.tool,
                "query": str(call.arguments.get("query", dict(call.arguments))),
                "error": call.error,
                "hits": [
                    _hit(rank, hit, passages, kept, row.supporting) for rank, hit in enumerate(_hits(call.result), 1)
                ],
            }
            for call in step.calls
        ]
        reply = step.completion
        steps.append(
            {
                "number": number,
                "role": step.role,
                "error": step.error,
                "calls": calls,
                "reply": reply.text if reply else "",
                "tokens": f"{reply.prompt_tokens:,} + {reply.completion_tokens:,} tokens" if reply else "",
                "goals": step.parsed.get("steps", ()) if step.role == "planner" else (),
                "note": step.parsed.get("note"),
            }
        )
    cited = [
        {
            "quote": citation.quote,
            "passage": passages[citation.passage_id].title if citation.passage_id in passages else "",
            "id": citation.passage_id,
            "gold": citation.passage_id in passages and passages[citation.passage_id].doc_id in row.supporting,
        }
        for citation in kept
    ]
    spent = episode.spent
    plural = "" if spent.searches == 1 else "es"
    return {
        "row": row,
        "colour": STAGES.get(row.outcome, "unknown"),
        "steps": steps,
        "answer": episode.answer,
        "citations": cited,
        "stop": episode.stop,
        "error": episode.error,
        "id": episode.id,
        "spent": f"{spent.searches} search{plural}, {spent.prompt_tokens:,} + {spent.completion_tokens:,} tokens, "
        f"{episode.timing.get('seconds', 0):.1f} s",
    }


def marked(passage: Passage, kept: Sequence[Citation]) -> list[tuple[str, bool]]:
    """A passage's text in pieces, those that are quoted marked."""
    spans = sorted((c.start, c.end) for c in kept if c.passage_id == passage.id)
    pieces, at = [], 0
    for start, end in spans:
        start = max(start, at)
        if end > start:
            pieces += [(passage.text[at:start], False), (passage.text[start:end], True)]
            at = end
    return [piece for piece in [*pieces, (passage.text[at:], False)] if piece[0]]


def _hits(result: Any) -> list[Mapping[str, Any]]:
    """What a search call recorded; the results of other tools are not lists of hits."""
    hits = result if isinstance(result, list) else []
    return [hit for hit in hits if isinstance(hit, Mapping) and "passage_id" in hit]


def _hit(
    rank: int, hit: Mapping[str, Any], passages: Mapping[str, Passage], kept: Sequence[Citation], gold: Sequence[str]
) -> dict[str, Any]:
    passage = passages.get(hit["passage_id"])
    return {
        "rank": rank,
        "id": hit["passage_id"],
        "score": f"{hit.get('score', 0):.3f}",
        "title": passage.title if passage else "",
        "pieces": marked(passage, kept) if passage else [],
        "gold": bool(passage) and passage.doc_id in gold,  # type: ignore[union-attr]
    }


def _run(report: Report, links: Mapping[str, str]) -> dict[str, Any]:
    outcomes = report.outcomes()
    order = {name: place for place, name in enumerate(STAGES)}
    listed = sorted(report.scored, key=lambda row: order.get(row.outcome, len(order)))[:MAX_ROWS]
    summaries = report.summaries()
    return {
        "name": report.name,
        "questions": len(report.scored),
        "headline": [_figure(report, metric) for metric in _columns(report)],
        "costs": [_figure(report, metric) for metric in report.metrics if is_cost(metric)],
        "waterfall": waterfall_rows(outcomes),
        "endings": report.endings(),
        "unscored": [(label(s.metric), s.unscored, dict(s.causes)) for s in summaries if s.unscored],
        "notes": report.notes,
        "rows": [(row, STAGES.get(row.outcome, "unknown"), links.get(row.task_id, "")) for row in listed],
        "left_out": len(report.scored) - len(listed),
        "primary": report.primary,
        "versions": sorted({row.policy_version for row in report.scored if row.policy_version}),
        "config": json.dumps(dict(report.config), indent=1, ensure_ascii=False),
        "episodes": os.path.basename(report.episodes),
    }


def _cards(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """Each different card once, with how many runs have it."""
    found: dict[str, dict[str, Any]] = {}
    for report in reports:
        key = json.dumps(dict(report.card), sort_keys=True)
        found.setdefault(key, {**report.card, "runs": []})["runs"].append(f"{report.benchmark} / {report.name}")
    return list(found.values())


def _columns(report: Report) -> list[str]:
    """The metrics of the headline table, the primary first."""
    return list(dict.fromkeys(m for m in (report.primary, *HEADLINE) if m in report.metrics))


def _figure(report: Report, metric: str) -> dict[str, Any]:
    found: Interval | None = report.summary(metric).interval if metric in report.metrics else None
    mean, _, rest = figure(metric, found).partition(" ")
    return {"mean": mean, "interval": rest, "n": found.n if found else 0}


def _difference(line: Any) -> dict[str, Any]:
    return {**dataclasses.asdict(line), "shown": figure(line.metric, line.interval), "significant": line.significant}


def _percent(value: float, whole: float) -> float:
    return round(100 * value / whole, 2) if whole else 0.0


def _top(most: float) -> float:
    """The end of an axis: the next round number at or above ``most``."""
    if most <= 0:
        return 1.0
    step = 10 ** math.floor(math.log10(most))
    return float(next(step * factor for factor in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * factor >= most))


def _ticks(top: float) -> list[dict[str, Any]]:
    return [{"at": 25 * i, "shown": f"{top * i / 4:g}"} for i in range(5)]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "run"


def _render(template: str, **values: Any) -> str:
    return _templates().get_template(template).render(**values)


@functools.cache
def _templates() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
