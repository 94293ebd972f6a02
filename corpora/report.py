"""A corpus report shows the account of each source as Markdown, JSON, and one HTML page that loads nothing.

All three say the same. Names and reasons come from strangers' files: in HTML they are escaped, in Markdown they stand
in code spans.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sleuth.corpora.account import Account, SourceAccount
from sleuth.corpora.files import write_file

COLOURS = ("#b5482a", "#c98a1b", "#4a6fa5", "#7d5ba6", "#a23b72", "#3a8fb7", "#8c6d46", "#5f6b6d")
KEPT = "#2f6f4f"
COLUMNS = ("source", "files", "inputs", "documents", "words", "bytes in", "bytes of text", "dropped")
LEFT, WIDTH, ROW = 190, 600, 26
"""Of the plots, in their own units: where bars begin, the longest bar, and the height of a row."""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ name }}: corpus report</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222;
background: #fff; }
table { border-collapse: collapse; margin: 1rem 0; width: 100%; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd; vertical-align: top; }
th { white-space: nowrap; }
th:first-child, td:first-child, .text { text-align: left; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: #222; }
.legend span { display: inline-block; margin-right: 1rem; }
.legend i { display: inline-block; width: .8rem; height: .8rem; margin-right: .3rem; }
.wide { overflow-x: auto; } small { color: #555; }
</style></head><body>
<h1>{{ name }}</h1>
<p>{% for key, value in facts.items() %}{{ key }} <b>{{ value }}</b>{{ ", " if not loop.last }}{% endfor %}</p>
<h2>Sources</h2>
<div class="wide"><table><tr>{% for column in columns %}<th>{{ column }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell|shown }}</td>{% endfor %}</tr>{% endfor %}</table></div>
{% for plot in plots %}<h2>{{ plot.title }}</h2>
{% if plot.legend %}<p class="legend">{% for label, colour in plot.legend %}
<span><i style="background:{{ colour }}"></i>{{ label }}</span>{% endfor %}</p>{% endif %}
<svg viewBox="0 0 820 {{ plot.height }}" role="img" aria-label="{{ plot.title }}">
{% for label, y in plot.labels %}<text x="0" y="{{ y }}">{{ label }}</text>{% endfor %}
{% for x, y, width, colour, hint in plot.bars %}<rect x="{{ x }}" y="{{ y }}" width="{{ width }}" height="18"
 fill="{{ colour }}"><title>{{ hint }}</title></rect>{% endfor %}</svg>{% endfor %}
<h2>Why inputs were dropped</h2>
{% for source, reasons in dropped %}<h3>{{ source }}</h3>
{% if not reasons %}<p>Nothing was dropped.</p>{% else %}
<div class="wide"><table><tr><th>stage</th><th class="text">reason</th><th>inputs</th></tr>
{% for reason in reasons %}<tr><td>{{ reason.stage }}</td><td class="text">{{ reason.reason }}<br>
{% for id, text in reason.samples %}<small>{{ id }}: {{ text }}</small><br>{% endfor %}</td>
<td>{{ reason.count|shown }}</td></tr>{% endfor %}</table></div>{% endif %}{% endfor %}
</body></html>
"""


@dataclass(frozen=True, slots=True)
class Plot:
    """Bars of an inline SVG."""

    title: str
    height: int
    labels: list[tuple[str, float]]
    bars: list[tuple[float, float, float, str, str]]
    """x, y, width, colour, and what a pointer is told."""
    legend: list[tuple[str, str]]


def write(folder: Path, name: str, account: Account, facts: Mapping[str, Any]) -> list[Path]:
    """``report.md``, ``report.json`` and ``report.html`` in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"name": name, "facts": dict(facts), **account.to_json()}
    texts = {
        "report.md": markdown(name, account, facts),
        "report.json": json.dumps(values, indent=1, ensure_ascii=False) + "\n",
        "report.html": html(name, account, facts),
    }
    for file, text in texts.items():
        write_file(folder / file, text.encode("utf-8", "backslashreplace"))
    return [folder / file for file in texts]


def rows(account: Account) -> list[tuple[object, ...]]:
    """A row for each source, and their sum."""
    found: list[tuple[object, ...]] = [(name, *_numbers(one)) for name, one in account.sources.items()]
    if len(found) > 1:
        found.append(
            ("all", *(sum(column) for column in zip(*(_numbers(a) for a in account.sources.values()), strict=True)))
        )
    return found


def _numbers(one: SourceAccount) -> tuple[int, ...]:
    return one.files, one.inputs, one.documents, one.words, one.bytes_in, one.bytes_out, one.drops


def markdown(name: str, account: Account, facts: Mapping[str, Any]) -> str:
    lines = [f"# {name}", "", ", ".join(f"{key} {value}" for key, value in facts.items()), ""]
    lines += _md_table(COLUMNS, rows(account))
    for source, one in account.sources.items():
        lines += ["", f"## Dropped of {source}", ""]
        found = [
            (r.stage, _code(r.reason), r.count, "; ".join(_code(f"{i}: {t}") for i, t in r.samples))
            for r in _sorted(one)
        ]
        lines += _md_table(("stage", "reason", "inputs", "samples"), found) if found else ["Nothing was dropped."]
    return "\n".join(lines) + "\n"


def _sorted(one: SourceAccount) -> list[Any]:
    return sorted(one.reasons, key=lambda reason: -reason.count)


def _code(text: str) -> str:
    plain = " ".join(text.split()).replace("`", "'").replace("|", "¦")
    return f"`{plain}`"


def _md_table(columns: Sequence[str], found: Sequence[Sequence[Any]]) -> list[str]:
    lines = [f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |"]
    return lines + [f"| {' | '.join(_shown(cell) for cell in row)} |" for row in found]


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def html(name: str, account: Account, facts: Mapping[str, Any]) -> str:
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["shown"] = _shown
    dropped = [(source, [asdict(reason) for reason in _sorted(one)]) for source, one in account.sources.items()]
    return environment.from_string(_PAGE).render(
        name=name, facts=facts, columns=COLUMNS, rows=rows(account), plots=[_outcomes(account), _words(account),
        _lengths(account)], dropped=dropped,
    )  # fmt: skip


def _outcomes(account: Account) -> Plot:
    """For each source the shares of its inputs that were kept, and dropped by each stage."""
    found = dict.fromkeys(stage for one in account.sources.values() for stage in one.by_stage())
    colours = {stage: COLOURS[n % len(COLOURS)] for n, stage in enumerate(found)}
    labels, bars = [], []
    for n, (name, one) in enumerate(account.sources.items()):
        labels.append((name[:26], ROW * n + 18.0))
        x = float(LEFT)
        for stage, count in {"kept": one.documents, **one.by_stage()}.items():
            width = round(WIDTH * count / max(1, one.inputs), 2)
            bars.append((round(x, 2), ROW * n + 4.0, width, colours.get(stage, KEPT), f"{stage}: {count:,}"))
            x += width
    legend = [("kept", KEPT), *colours.items()]
    return Plot("What became of the inputs", ROW * len(labels) + 8, labels, bars, legend)


def _words(account: Account) -> Plot:
    most = max([one.words for one in account.sources.values()], default=1) or 1
    names = [(f"{name[:16]} {one.words:,}", one.words) for name, one in account.sources.items()]
    return _bars("Words of each source", names, most)


def _lengths(account: Account) -> Plot:
    """Documents by length, in powers of two."""
    size = max([len(one.histogram) for one in account.sources.values()], default=0)
    totals = [sum(one.histogram[n] for one in account.sources.values() if n < len(one.histogram)) for n in range(size)]
    names = [(f"{2**n:,} to {2 ** (n + 1) - 1:,} words", count) for n, count in enumerate(totals)]
    return _bars("Documents by length", names, max(totals, default=1) or 1)


def _bars(title: str, names: Sequence[tuple[str, int]], most: int) -> Plot:
    labels = [(name, ROW * n + 18.0) for n, (name, _) in enumerate(names)]
    bars = [(float(LEFT), ROW * n + 4.0, round(WIDTH * count / most, 2), KEPT, f"{name}: {count:,}")
            for n, (name, count) in enumerate(names)]  # fmt: skip
    return Plot(title, ROW * len(names) + 8, labels, bars, [])
