"""BEIR's layout: a folder with ``queries.jsonl``, relevance judgements as TSV and, for building, ``corpus.jsonl``.

Thakur et al. 2021, arXiv 2104.08663; any such folder works as a benchmark. Queries are ``{"_id" or "id", "text"}``;
``qrels.tsv``, ``qrels.dev.tsv`` or ``qrels/test.tsv`` has a header line and query-id, corpus-id, score. A query without
a judgement above 0 asks for nothing that can be found and is left out, as BEIR does. There is nothing to answer:
nDCG@10 is the primary, by trec_eval. Two sets are named here: SciFact (Wadden et al. 2020, arXiv 2004.14974) and the
Cranfield collection (Cleverdon 1967).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from sleuth.corpora.errors import InputError
from sleuth.eval import source
from sleuth.eval.load import SHIPPED
from sleuth.eval.metrics import COSTS, RANKING, evidence_recall
from sleuth.eval.records import Benchmark, Load, Task

_OWN = ("arguana", "quora")
"""Sets whose queries are documents too: a query's own is taken out of its ranking, as BEIR does. Elsewhere equal ids
mean nothing (Cranfield's queries and documents are both numbered from 1)."""
_QUERIES = ("queries.jsonl", "queries.dev.jsonl", "queries.jsonl.gz")
_QRELS = ("qrels.tsv", "qrels.dev.tsv", "qrels/test.tsv", "qrels/dev.tsv")


def is_folder(path: str | Path) -> bool:
    """Whether a folder has queries and judgements in BEIR's layout."""
    return _first(path, _QUERIES) is not None and _first(path, _QRELS) is not None


def beir(name: str, licence: str = "as given") -> Benchmark:
    """The benchmark of a folder in that layout, or of ``ir/NAME`` in a folder of the shared layout."""
    metrics = {**RANKING, "evidence_recall": evidence_recall, **COSTS}
    return Benchmark(name, load_of(name), metrics, "ndcg@10", licence, corpus=name)


def load_of(name: str) -> Load:
    def load(path: str | Path | None = None, bad: Callable[[str], None] | None = None) -> list[Task]:
        if path is None:
            folder = SHIPPED / name
        else:
            folder = Path(path) / "ir" / name if (Path(path) / "ir" / name).is_dir() else Path(path)
        queries, judged = _first(folder, _QUERIES), _first(folder, _QRELS)
        if queries is None or judged is None:
            raise InputError(f"{folder}: expected one of {', '.join(_QUERIES)} and one of {', '.join(_QRELS)}")
        own = folder.resolve().name.lower() in _OWN
        return _tasks(queries, relevance(judged), bad or source.refuse, own)

    return load


def _tasks(path: Path, relevant: dict[str, dict[str, int]], bad: source.Bad, own: bool) -> list[Task]:
    tasks: dict[str, Task] = {}
    for place, row in source.rows(path, bad):
        id_, text = (row.get("_id") or row.get("id"), row.get("text")) if isinstance(row, dict) else (None, None)
        if not (isinstance(id_, str) and isinstance(text, str) and text.strip()) or id_ in tasks:
            bad(f"{place}: not a usable query: expected a new '_id' and a 'text' that is not empty; found {row!r:.80}")
        elif grades := relevant.get(id_):
            more = {"relevance": grades, "answerable": None, **({"excluded": [id_]} if own else {})}
            tasks[id_] = Task(id_, text, (), tuple(grades), "all", type="retrieval", metadata=more)
    return list(tasks.values())


def relevance(path: str | Path) -> dict[str, dict[str, int]]:
    """Grades above 0 by document, by query; a line that is no judgement raises `InputError` with its number."""
    found: dict[str, dict[str, int]] = {}
    for number, (query, document, grade) in _judgements(Path(path)):
        try:
            value = int(grade)
        except ValueError:
            raise InputError(f"{path}:{number}: expected a whole number as score; found {grade!r}") from None
        if value > 0:
            found.setdefault(query, {})[document] = value
    return found


def _judgements(path: Path) -> Iterator[tuple[int, list[str]]]:
    with open(path, encoding="utf-8", newline="") as file:
        for number, cells in enumerate(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE), 1):
            if len(cells) != 3:
                raise InputError(f"{path}:{number}: expected query-id, corpus-id and score; found {len(cells)} cells")
            if number > 1:
                yield number, cells


def _first(folder: str | Path, names: tuple[str, ...]) -> Path | None:
    return next((file for name in names if (file := Path(folder) / name).is_file()), None)


SCIFACT = beir("scifact", "claims CC BY 4.0; abstracts ODC-By 1.0")
CRANFIELD = beir("cranfield", "no licence stated; published for research use")
