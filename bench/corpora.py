"""What extraction finds and costs: main text of public gold pages, beside trafilatura and resiliparse alone.

Two gold sets. Article pages have a body each: precision and recall of its shingles of four words, averaged over pages,
as scrapinghub's article-extraction-benchmark defines them. trafilatura's own evaluation has phrases that must be kept
and phrases that must not: precision and recall of those. Every page goes through every method in turn, so that all of
them meet the same machine; speed is pages per second of CPU time in one process. The halves: pages whose id hashes
below 3 of 10 are for reporting only, nothing was chosen on them. Usage: ``python bench/corpora.py --data DIR`` where
DIR holds ``article_extraction_benchmark`` and ``trafilatura_eval``; prints a table and writes
bench/results/corpora.json.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import logging
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sleuth.corpora.decode import decode
from sleuth.corpora.errors import InputError
from sleuth.corpora.extract import extract

ROOT = Path(__file__).parents[1]
Counts = tuple[int, int, int]
"""What was found of the gold, what was found beside it, and what was missed."""


@dataclass(frozen=True, slots=True)
class GoldPage:
    id: str
    html: str
    url: str
    body: str | None = None
    """Gold text; None where there are phrases instead."""
    keep: tuple[str, ...] = ()
    leave: tuple[str, ...] = ()

    @property
    def reporting(self) -> bool:
        return int(hashlib.sha256(self.id.encode()).hexdigest(), 16) % 10 < 3


def shingles(text: str, size: int = 4) -> Counter[tuple[str, ...]]:
    words = re.findall(r"\w+", text)
    return Counter(found for n in range(max(1, len(words) - size + 1)) if (found := tuple(words[n : n + size])))


def overlap(gold: str, text: str) -> Counts:
    expected, found = shingles(gold), shingles(text)
    common = (expected & found).total()
    return common, found.total() - common, expected.total() - common


def phrases(page: GoldPage, text: str) -> Counts:
    kept = sum(phrase in text for phrase in page.keep)
    return kept, sum(phrase in text for phrase in page.leave), len(page.keep) - kept


def scores(counts: Iterable[Counts]) -> tuple[float, float, float]:
    """Mean precision and mean recall over pages, and F1 of the two means."""
    rows = list(counts)
    precisions = [hit / (hit + extra) for hit, extra, _ in rows if hit + extra]
    recalls = [hit / (hit + missed) for hit, _, missed in rows if hit + missed]
    return _f1(sum(precisions) / max(1, len(precisions)), sum(recalls) / max(1, len(recalls)))


def pooled(counts: Iterable[Counts]) -> tuple[float, float, float]:
    """Precision, recall and F1 over all phrases of all pages."""
    hit, extra, missed = (sum(column) for column in zip(*counts, strict=True))
    return _f1(hit / max(1, hit + extra), hit / max(1, hit + missed))


def _f1(precision: float, recall: float) -> tuple[float, float, float]:
    return precision, recall, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def load(folder: Path) -> list[GoldPage]:
    def page(path: Path) -> str:
        return decode(gzip.decompress(path.read_bytes()), html=True)[0]

    folder = folder / "extraction" if (folder / "extraction").is_dir() else folder
    articles = folder / "article_extraction_benchmark"
    gold = json.loads((articles / "ground-truth.json").read_text(encoding="utf-8"))
    found = [
        GoldPage(id_, page(articles / "html" / f"{id_}.html.gz"), row["url"], body=row["articleBody"])
        for id_, row in gold.items()
    ]
    evaluation = folder / "trafilatura_eval"
    rows = json.loads((evaluation / "evaldata.json").read_text(encoding="utf-8"))
    for url, row in rows.items():
        html = page(evaluation / "html" / f"{row['file']}.gz")
        found.append(GoldPage(url, html, url, keep=tuple(row["with"]), leave=tuple(row["without"])))
    return found


def _sleuth(page: GoldPage) -> str:
    try:
        return extract(page.html, page.url).text
    except InputError:
        return ""


def _trafilatura(fast: bool, with_metadata: bool) -> Callable[[GoldPage], str]:
    import trafilatura

    def run(page: GoldPage) -> str:
        found = trafilatura.bare_extraction(
            page.html, url=page.url, fast=fast, include_comments=False, with_metadata=with_metadata
        )
        return (found.text or "") if found is not None else ""

    return run


def _resiliparse(page: GoldPage) -> str:
    from resiliparse.extract.html2text import extract_plain_text

    return extract_plain_text(page.html, main_content=True, alt_texts=False, comments=False, post_meta=False)


def methods() -> dict[str, Callable[[GoldPage], str]]:
    return {
        "sleuth auto, with metadata": _sleuth,
        "trafilatura, with metadata": _trafilatura(False, True),
        "trafilatura": _trafilatura(False, False),
        "trafilatura fast": _trafilatura(True, False),
        "resiliparse main content": _resiliparse,
    }


def measure(pages: Sequence[GoldPage], rounds: int) -> dict[str, dict[str, float]]:
    """Figures of each method; its time is the least CPU time of the rounds."""
    ways = methods()
    texts: dict[str, list[str]] = {name: [] for name in ways}
    spent: dict[str, list[float]] = {name: [0.0] * rounds for name in ways}
    for run in ways.values():  # what is read once, such as stop lists, is no cost of a page
        run(pages[0])
    for turn in range(rounds):
        for page in pages:
            for name, run in ways.items():
                started = time.process_time()
                text = run(page)
                spent[name][turn] += time.process_time() - started
                if turn == 0:
                    texts[name].append(text)
    return {name: figures(pages, texts[name], min(spent[name])) for name in ways}


def figures(pages: Sequence[GoldPage], texts: Sequence[str], seconds: float) -> dict[str, float]:
    found: dict[str, float] = {"pages_per_cpu_s": len(pages) / seconds}
    halves: dict[str, Callable[[GoldPage], bool]] = {
        "": lambda page: True, "_dev": lambda page: not page.reporting, "_reporting": lambda page: page.reporting,
    }  # fmt: skip
    for half, belongs in halves.items():
        rows = [(page, text) for page, text in zip(pages, texts, strict=True) if belongs(page)]
        bodies = scores(overlap(page.body, text) for page, text in rows if page.body is not None)
        said = pooled(phrases(page, text) for page, text in rows if page.body is None)
        for name, values in (("articles", bodies), ("phrases", said)):
            for part, value in zip(("precision", "recall", "f1"), values, strict=True):
                found[f"{name}_{part}{half}"] = value
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    pages = load(given.data)
    found = measure(pages, given.rounds)
    ours = found["sleuth auto, with metadata"]["pages_per_cpu_s"]
    print(f"{len(pages)} pages, {sum(len(p.html) for p in pages) // len(pages):,} characters each")
    print("| method | pages/s of CPU | ours / it | articles F1 (dev, reporting) | phrases F1 (dev, reporting) |")
    print("|---|---|---|---|---|")
    for name, row in found.items():
        parts = [
            f"{row[f'{s}_f1']:.3f} ({row[f'{s}_f1_dev']:.3f}, {row[f'{s}_f1_reporting']:.3f})"
            for s in ("articles", "phrases")
        ]
        print(f"| {name} | {row['pages_per_cpu_s']:.0f} | {ours / row['pages_per_cpu_s']:.2f} | {' | '.join(parts)} |")
    out = ROOT / "bench" / "results" / "corpora.json"
    rounded = {name: {key: round(value, 4) for key, value in row.items()} for name, row in found.items()}
    out.write_text(json.dumps({"pages": len(pages), "extraction": rounded}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
