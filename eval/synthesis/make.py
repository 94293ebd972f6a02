"""Making a benchmark: read the store, find facts, make candidates kind by kind, and keep what passes every check.

Everything follows from the store, the seed and the options. The report counts, for each kind, what was made, what each
check dropped and what was kept. Questions come in the shared row format, so `sleuth eval` reads them at once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal, Protocol

from sleuth.corpora.errors import ConfigError, InputError
from sleuth.corpora.records import Document
from sleuth.eval.records import Task
from sleuth.eval.synthesis.extract import Table, extract, mentions
from sleuth.eval.synthesis.kinds import KINDS, Candidate
from sleuth.eval.synthesis.records import task_of
from sleuth.eval.synthesis.verify import Verifier
from sleuth.eval.synthesis.wording import Grammar, grammar
from sleuth.retrieval.records import Retriever

USES = (2, 3, 4)
"""Questions whose last fact may be about one entity, or that may name it: first at most two, then, when candidates run
short, three and four."""
PAGE = 2000
"""Documents read from the store at a time."""
Progress = Callable[[str, int, "int | None"], None]


class Source(Protocol):
    """What a question is checked against."""

    def document(self, doc_id: str) -> Document: ...

    def retriever(self, mode: Literal["bm25"]) -> Retriever: ...


class Store(Source, Protocol):
    """What is needed of a datastore."""

    def sql(self, query: str, limit: int = 1000) -> tuple[list[str], list[tuple[Any, ...]]]: ...


@dataclass(frozen=True, slots=True)
class SynthesisReport:
    """Where the questions of a benchmark came from, and what became of the others."""

    documents: int
    entities: int
    facts: int
    links: int
    """Facts whose value is another document's entity."""
    wanted: int
    seed: int
    kept: Mapping[str, int]
    """By kind."""
    made: Mapping[str, int]
    """Candidates that were looked at, by kind."""
    dropped: Mapping[str, Mapping[str, int]]
    """By kind and by the name of the check."""
    leak: Mapping[str, Any] = field(default_factory=dict)
    """Of the leak check: the policy, how many it was asked and how many it answered right; empty without a check."""

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def to_markdown(self) -> str:
        """Counts by kind, then what each check dropped."""
        total = sum(self.kept.values())
        lines = [
            f"# {total} of {self.wanted} questions",
            "",
            f"Seed {self.seed}; {self.documents:,} documents, {self.entities:,} entities, {self.facts:,} facts, "
            f"{self.links:,} of them between two documents.",
            "",
            "| kind | made | kept | " + " | ".join(self._checks()) + " |",
            "| --- |" + " --- |" * (2 + len(self._checks())),
        ]
        for kind in self.made:
            drops = [str(self.dropped[kind].get(check, 0)) for check in self._checks()]
            lines.append(f"| {kind} | {self.made[kind]} | {self.kept[kind]} | " + " | ".join(drops) + " |")
        if self.leak:
            right, asked = self.leak["right"], self.leak["asked"]
            lines += ["", f"Leak check: {self.leak['policy']} without any documents answered {right} of {asked} right; "
                      "those were dropped."]  # fmt: skip
        return "\n".join(lines) + "\n"

    def _checks(self) -> list[str]:
        return sorted({check for drops in self.dropped.values() for check in drops})


class Synthesis:
    """The candidates of one store, verified as they are asked for; `take` goes on where it stopped."""

    def __init__(self, table: Table, rules: Grammar, store: Source, kinds: Sequence[str], seed: int) -> None:
        self.table, self.verifier = table, Verifier(table, rules, store.retriever("bm25"), store.document)
        self.made, self.kept = Counter(dict.fromkeys(kinds, 0)), Counter(dict.fromkeys(kinds, 0))
        self.dropped: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
        self._left: dict[str, Iterator[Candidate]] = {
            kind: KINDS[kind](table, rules, Random(f"{seed} {kind}")) for kind in kinds
        }
        self._spare: dict[str, list[Candidate]] = {kind: [] for kind in kinds}
        self._uses: Counter[str] = Counter()
        self._limits = iter(USES)
        self._limit = next(self._limits)
        self._asked: set[str] = set()

    def take(self, count: int, progress: Callable[[int], None] = lambda done: None) -> list[Task]:
        """At most ``count`` further tasks, the kinds in turn; fewer where the candidates are used up."""
        tasks: list[Task] = []
        while len(tasks) < count and (self._left or self._relax()):
            for kind in list(self._left):
                task = self._next(kind) if len(tasks) < count else None
                if task is not None:
                    tasks.append(task)
                    progress(len(tasks))
        return tasks

    def _relax(self) -> bool:
        """Take up what was too like others, under the next limit; False when nothing is left."""
        self._limit = next(self._limits, 0)
        spare, self._spare = self._spare, {kind: [] for kind in self.made}
        if not self._limit:
            for kind, left in spare.items():
                self.dropped[kind]["too like others"] += len(left)
            return False
        self._left = {kind: iter(left) for kind, left in spare.items() if left}
        return bool(self._left) or self._relax()

    def _next(self, kind: str) -> Task | None:
        for candidate in self._left[kind]:
            self.made[kind] += self._limit == USES[0]
            limit = self._limit + (not candidate.facts[-1].when)  # years are plentiful: other answers may come oftener
            if any(self._uses[key] >= limit for key in _keys(candidate)):
                self._spare[kind].append(candidate)
                continue
            failed = "asked already" if candidate.question in self._asked else self.verifier.failed(candidate)
            if failed:
                self.dropped[kind][failed] += 1
                continue
            self._asked.add(candidate.question)
            self._uses.update(_keys(candidate))
            self.kept[kind] += 1
            return task_of(
                _id(candidate),
                kind,
                candidate.facts,
                candidate.question,
                candidate.steps,
                candidate.answers,
                candidate.items,
            )
        del self._left[kind]
        return None

    def leaked(self, task: Task) -> None:
        """Count a task that `take` gave as dropped after all."""
        self.kept[task.type] -= 1
        self.dropped[task.type]["answered without documents"] += 1


def _keys(candidate: Candidate) -> set[str]:
    last = candidate.facts[-1]
    return {f"answer {last.entity}", *(f"names {key}" for key in candidate.named)}


def _id(candidate: Candidate) -> str:
    """The same question over the same evidence has the same id in every run."""
    spans = [(fact.doc_id, fact.start) for fact in candidate.facts]
    digest = hashlib.sha256(json.dumps([candidate.question, spans]).encode()).hexdigest()
    return f"{candidate.kind}-{digest[:12]}"


def synthesis(
    store: Store,
    kinds: Sequence[str] = tuple(KINDS),
    seed: int = 0,
    relations: Sequence[str | Path] = (),
    progress: Progress = lambda stage, done, total: None,
) -> tuple[Synthesis, int]:
    """The candidates of a store, and how many documents it has; ``relations``: files beside the shipped relations.

    Reads every document once (twice for ``cloze``); memory grows with the facts found.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise ConfigError(f"kinds: unknown {', '.join(unknown) or 'nothing'}; known: {', '.join(KINDS)}")
    rules = grammar(*relations)
    total = store.sql("SELECT count(*) FROM documents")[1][0][0]
    table = facts_of(lambda stage: _told(documents(store), stage, total, progress), rules, "cloze" in kinds)
    return Synthesis(table, rules, store, kinds, seed), total


def facts_of(read: Callable[[str], Iterable[Document]], rules: Grammar, mentioned: bool = True) -> Table:
    """The facts of the documents that ``read("facts")`` gives and, from ``read("mentions")``, where names occur."""
    table = extract(read("facts"), rules)
    return dataclasses.replace(table, mentions=list(mentions(read("mentions"), table))) if mentioned else table


def documents(store: Store) -> Iterator[Document]:
    """All documents of a store in the order of their ids, id, title and text alone."""
    last = ""
    while True:
        after = last.replace("'", "''")
        query = f"SELECT id, title, text FROM documents WHERE id > '{after}' ORDER BY id LIMIT {PAGE}"
        rows = store.sql(query, limit=PAGE)[1]
        yield from (Document(id_, text, title=title) for id_, title, text in rows)
        if len(rows) < PAGE:
            return
        last = rows[-1][0]


def _told(found: Iterable[Document], stage: str, total: int, progress: Progress) -> Iterator[Document]:
    for number, document in enumerate(found, 1):
        yield document
        if number % 100 == 0 or number == total:
            progress(stage, number, total)


def make_benchmark(
    store: Store,
    n: int = 200,
    kinds: Sequence[str] = tuple(KINDS),
    seed: int = 0,
    *,
    relations: Sequence[str | Path] = (),
    leaks: Callable[[Sequence[Task]], set[str]] | None = None,
    policy: str = "",
    progress: Progress = lambda stage, done, total: None,
) -> tuple[list[Task], SynthesisReport]:
    """At most ``n`` verified tasks, spread over ``kinds``, and the report.

    ``leaks`` is asked which of some tasks (by id) a policy answers without documents; those are dropped and made up
    for. Raises `ConfigError` for unknown kinds, `InputError` for a store in which no question could be made.
    """
    if n < 1:
        raise InputError(f"n: expected at least 1 question, found {n}")
    made, total = synthesis(store, kinds, seed, relations, progress)
    tasks: list[Task] = []
    asked = right = 0

    def told(done: int) -> None:
        progress("questions", len(tasks) + done, n)

    while len(tasks) < n and (more := made.take(n - len(tasks), told)):
        known = leaks(more) if leaks else set()
        asked, right = asked + len(more), right + len(known)
        for task in more:
            if task.id in known:
                made.leaked(task)
            else:
                tasks.append(task)
    table = made.table
    links = sum(1 for fact in table.facts if fact.target)
    leak = {"policy": policy, "asked": asked, "right": right} if leaks else {}
    report = SynthesisReport(
        total,
        len(table.entities),
        len(table.facts),
        links,
        n,
        seed,
        dict(made.kept),
        dict(made.made),
        {kind: dict(drops) for kind, drops in made.dropped.items()},
        leak,
    )
    if not tasks:
        raise InputError(
            f"no question could be made: {total:,} documents, {len(table.facts):,} facts, {links:,} links between "
            f"documents, {sum(made.made.values())} candidates, none of which passed the checks"
        )
    return tasks, report


def row_of(task: Task) -> dict[str, Any]:
    """The task as a row of the shared format; `load.task_of` reads it back."""
    row: dict[str, Any] = {
        "id": task.id,
        "question": task.question,
        "answers": list(task.answers),
        "supporting": list(task.supporting),
        "support_mode": task.support_mode,
        "type": task.type,
        "hops": task.hops,
    }
    if task.answer_items:
        row["answer_items"] = list(task.answer_items)
    return {**row, **task.metadata}


def document_row(document: Document) -> dict[str, Any]:
    """The document as a row that `sleuth build` reads."""
    return {
        "id": document.id,
        "title": document.title,
        "text": document.text,
        "source": document.source,
        **({"lang": document.lang} if document.lang else {}),
    }


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON lines, whole or not at all."""
    part = Path(path).with_suffix(".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    with open(part, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    part.replace(path)


def write(folder: str | Path, tasks: Sequence[Task], report: SynthesisReport) -> None:
    """``questions.jsonl``, ``report.json`` and ``report.md`` of a benchmark."""
    write_rows(Path(folder) / "questions.jsonl", map(row_of, tasks))
    (Path(folder) / "report.json").write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
    (Path(folder) / "report.md").write_text(report.to_markdown(), encoding="utf-8")
