"""A run's page shows its log as curves and some of its episodes, one HTML file that loads nothing from elsewhere.

It reads ``metrics.jsonl`` and ``episodes/`` and computes nothing but moving means; it can be written at any time of a
run. Questions, answers and quotes are data: the template escapes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from sleuth.agents import episodes as episode_files
from sleuth.agents.records import Episode
from sleuth.corpora.files import write_file
from sleuth.training.checkpoint import read_log

PAGE, LOG = "run.html", "metrics.jsonl"
SMOOTH = 5
"""Steps of a moving mean."""
SHOWN = 4
"""Episodes of the first and of the last kept step."""
WIDTH, HEIGHT = 300, 110
"""Of a plot's area, in its own units."""
FIRST = ("success", "reward")
LAST = (
    "searches",
    "completion_tokens",
    "entropy",
    "kl",
    "mismatch",
    "norm",
    "informative",
    "failed",
    "staleness",
    "stale_dropped",
)
"""Curves after the reward terms; what a run does not log has none."""
_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ name }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 2rem auto; padding: 0 1rem; color: #222;
background: #fff; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-weight: 600; } svg { width: 100%; height: auto; }
svg text { font: 10px system-ui, sans-serif; fill: #555; } .axis { stroke: #ccc; fill: none; }
.raw { stroke: #b9c7dc; fill: none; } .mean { stroke: #2f5d9b; stroke-width: 2; fill: none; } .dev { fill: #b5482a; }
dl { border-top: 1px solid #ddd; padding-top: .5rem; } dt { font-weight: 600; } dd { margin: 0 0 .2rem 1rem; }
small { color: #555; }
</style></head><body>
<h1>{{ name }}</h1>
<p>{{ steps }} steps, {{ episodes }} episodes. Light: each step; dark: the mean of {{ smooth }} steps;
{% if dev %}dots: greedy, on the held-out tasks.{% endif %}</p>
<div class="plots">{% for plot in plots %}
<figure><figcaption>{{ plot.name }} <small>{{ plot.last }}</small></figcaption>
<svg viewBox="-46 -8 {{ width + 56 }} {{ height + 26 }}" role="img"
 aria-label="{{ plot.name }}, last {{ plot.last }}">
<path class="axis" d="M0 0V{{ height }}H{{ width }}"/>
<text x="-4" y="6" text-anchor="end">{{ plot.top }}</text>
<text x="-4" y="{{ height }}" text-anchor="end">{{ plot.bottom }}</text>
<text x="{{ width }}" y="{{ height + 13 }}" text-anchor="end">step {{ steps }}</text>
<polyline class="raw" points="{{ plot.raw }}"/><polyline class="mean" points="{{ plot.mean }}"/>
{% for x, y in plot.dev %}<circle class="dev" cx="{{ x }}" cy="{{ y }}" r="3"/>{% endfor %}</svg></figure>
{% endfor %}</div>
{% for title, rows in samples %}<h2>{{ title }}</h2>{% for row in rows %}
<dl><dt>{{ row.question }}</dt><dd>{{ row.answer }} <small>{{ row.stop }}, searches: {{ row.searches }}</small></dd>
{% for quote in row.quotes %}<dd><q>{{ quote }}</q></dd>{% endfor %}</dl>{% endfor %}{% endfor %}
</body></html>
"""


def write_page(out: Path) -> Path:
    """``out/run.html`` from what the run has left in ``out`` so far."""
    from jinja2 import Environment, StrictUndefined

    lines = read_log(out / LOG)
    kept = sorted((out / "episodes").glob("step-*.jsonl"))
    samples = [(f"Episodes of step {int(p.stem[5:])}", _shown(p)) for p in dict.fromkeys([*kept[:1], *kept[-1:]])]
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(_TEMPLATE)
    text = page.render(
        name=out.name,
        steps=lines[-1]["step"] if lines else 0,
        episodes=sum(line["episodes"] for line in lines),
        smooth=SMOOTH,
        dev=any("dev_success" in line for line in lines),
        plots=[plot(lines, name) for name in curves(lines)],
        samples=samples,
        width=WIDTH,
        height=HEIGHT,
    )
    write_file(out / PAGE, text.encode())
    return out / PAGE


def curves(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the figures that some step has a number for: rewards, their terms, then the rest."""
    names = dict.fromkeys(name for line in lines for name in line)
    terms = [name for name in names if name.startswith("term/")]
    wanted = [*FIRST, *terms, *LAST]
    return [name for name in wanted if any(_number(line.get(name)) for line in lines)]


def plot(lines: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """One curve: points of the steps, of their moving mean, and of the held-out tasks."""
    raw = [(line["step"], float(line[name])) for line in lines if _number(line.get(name))]
    mean = [(step, fmean(v for _, v in raw[max(0, n + 1 - SMOOTH) : n + 1])) for n, (step, _) in enumerate(raw)]
    dev = [(line["step"], float(line[f"dev_{name}"])) for line in lines if _number(line.get(f"dev_{name}"))]
    values = [value for _, value in [*raw, *dev]]
    low, high = min(0.0, *values), max(values)
    high = high if high > low else low + 1.0
    steps = max(2, lines[-1]["step"])

    def at(point: tuple[int, float]) -> tuple[float, float]:
        x, y = (point[0] - 1) / (steps - 1), (point[1] - low) / (high - low)
        return round(x * WIDTH, 1), round((1 - y) * HEIGHT, 1)

    def line_of(points: Sequence[tuple[int, float]]) -> str:
        return " ".join(f"{x},{y}" for x, y in map(at, points))

    return {
        "name": name,
        "raw": line_of(raw),
        "mean": line_of(mean),
        "dev": [at(point) for point in dev],
        "top": f"{high:.3g}",
        "bottom": f"{low:.3g}",
        "last": f"{mean[-1][1]:.3g}",
    }


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _shown(path: Path) -> list[dict[str, Any]]:
    """The first episode of each question of a file."""
    found: dict[str, Episode] = {}
    for episode in episode_files.read(path, bad=lambda message: None):
        found.setdefault(episode.question, episode)
    return [
        {
            "question": episode.question,
            "answer": episode.answer.text if episode.answer else "",
            "quotes": [c.quote for s in episode.answer.sentences for c in s.citations] if episode.answer else [],
            "stop": episode.stop,
            "searches": episode.spent.searches,
        }
        for episode in list(found.values())[:SHOWN]
    ]
