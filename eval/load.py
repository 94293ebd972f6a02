"""Loading turns rows of question sets into tasks: rows in the one layout shared here, or published rows by a `Convert`.

A row of the shared layout has ``id``, ``question``, ``answers`` and, where the set has them, ``supporting``,
``support_mode``, ``answer_items``, ``type``, ``hops``, ``scope`` (search only passages of that scope), ``answerable``
and ``key_findings``; other fields go to the metadata. FlashRAG's rows (``golden_answers``) are read everywhere. A row
that cannot be used is named with its place and what was expected; the rest is still good.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from sleuth.corpora.errors import InputError
from sleuth.corpora.records import Document
from sleuth.eval import source
from sleuth.eval.records import Carried, Load, Task
from sleuth.eval.split import reporting_only

SHIPPED = Path(__file__).parent / "rows"
"""Five rows of each benchmark, with the passages that they need."""

Convert: TypeAlias = Callable[[Any], Iterable[Mapping[str, Any]]]
"""Turns one published row into rows of the shared layout, whose key ``documents`` holds the texts that it carries
(`document`). What it cannot use it says by a ``ValueError``, or by the ``KeyError`` or ``TypeError`` of reading it."""

Refine: TypeAlias = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""What a set adds to its rows that are in the shared layout already."""

LOOKED_AT = 200
"""Questions whose evidence is looked up in a store before a run."""
_KNOWN = ("id", "question", "answers", "supporting", "support_mode", "answer_items", "type", "hops", "scope")
_FOLDERS = ("qa/{}.dev.jsonl", "qa/{}.jsonl", "qa_no_corpus/{}.dev.jsonl", "qa_no_corpus/{}.jsonl")


def loader(name: str, convert: Convert | None = None, refine: Refine | None = None) -> Load:
    """The `Load` of the set ``name``: its shipped rows, a folder in the shared layout, or any `source`."""

    def load(path: str | Path | None = None, bad: source.Bad | None = None) -> list[Task]:
        return read_tasks(questions_path(name, path), bad, convert, refine)

    return load


def carried(name: str, convert: Convert) -> Carried:
    """The documents that the rows of a published set carry, each once, as `Benchmark.documents` gives them."""

    def documents(path: str | Path | None = None) -> Iterator[Document]:
        seen: set[str] = set()
        for place, raw in source.rows(questions_path(name, path), lambda message: None):
            for row in _converted(place, raw, convert, lambda message: None):
                for item in row.get("documents") or ():
                    if item["id"] not in seen:
                        seen.add(item["id"])
                        yield Document(item["id"], item["text"], item["title"], source=name)

    return documents


def document(title: str, text: str) -> dict[str, str]:
    """A text that a row carries, its id a digest of both: the same text in two rows is one document."""
    digest = hashlib.sha256(f"{title}\n{text}".encode()).hexdigest()
    return {"id": f"doc-{digest[:16]}", "title": title, "text": text}


def made_id(prefix: str, *parts: str) -> str:
    """An id for a row that was published without one: a digest of its words."""
    return f"{prefix}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:12]}"


def questions_path(name: str, path: str | Path | None) -> str | Path:
    """Where the rows of ``name`` lie; a folder without them raises `InputError` that lists the places tried."""
    if path is None:
        return next(file for kind in source.TEXTS if (file := SHIPPED / f"{name}{kind}").is_file())
    if source.is_source(path) or not Path(path).is_dir():
        return path
    kinds = (*source.TEXTS, ".jsonl.gz", ".parquet")
    tried = [Path(path) / place.format(name) for place in _FOLDERS] + [Path(path) / f"{name}{kind}" for kind in kinds]
    found = next((file for file in tried if file.is_file()), None)
    if found is None:
        raise InputError(f"{path}: no questions of {name} here; tried {', '.join(str(file) for file in tried)}")
    return found


def corpus_path(corpus: str, path: str | Path | None) -> Path:
    """Where the passages of a corpus lie: the shipped few, or ``corpora/NAME.corpus.jsonl.gz`` of a folder."""
    if path is None:
        return SHIPPED / f"{corpus}.corpus.jsonl"
    found = Path(path) / "corpora" / f"{corpus}.corpus.jsonl.gz"
    if not found.is_file():
        raise InputError(f"{found}: no such corpus")
    return found


def read_tasks(
    path: str | Path, bad: source.Bad | None = None, convert: Convert | None = None, refine: Refine | None = None
) -> list[Task]:
    """The tasks of a source in order.

    A row that cannot be used, or repeats an id, raises `InputError` naming its place, or, with ``bad``, is handed there
    as a message and passed over.
    """
    tell = bad or source.refuse
    tasks: dict[str, Task] = {}
    places: dict[str, str] = {}
    for place, raw in source.rows(path, tell):
        for row in _converted(place, raw, convert, tell):
            try:
                task = task_of(refine(row) if refine and row is raw else row)
                if task.id in tasks:
                    raise ValueError(f"id {task.id!r} stands at {places[task.id]} already")
            except (ValueError, RecursionError) as error:
                tell(f"{place}: not a usable question row: {error}")
            else:
                tasks[task.id], places[task.id] = task, place
    return list(tasks.values())


def resolved(tasks: Sequence[Task], known: Callable[[str], bool], bad: source.Bad) -> list[Task]:
    """The tasks whose gold documents are all ``known`` (as ids of the corpus); the others are named to ``bad``.

    A question whose evidence is not in the corpus would be scored against something that nobody can find.
    """
    kept = []
    for task in tasks:
        missing = [i for i in task.supporting if not known(i)]
        if missing:
            named = ", ".join(map(repr, missing[:3])) + (", ..." if len(missing) > 3 else "")
            count = f"{len(missing)} of {len(task.supporting)}"
            bad(f"task {task.id}: 'supporting' must name documents of the corpus; not there are {count}: {named}")
        else:
            kept.append(task)
    return kept


def holds(store: Any, doc_id: str) -> bool:
    """Whether a store, or whatever else gives documents by id, has one."""
    try:
        store.document(doc_id)
    except KeyError:
        return False
    return True


def none_usable(name: str, loaded: int, bad: Sequence[str]) -> InputError:
    """Why nothing is left to ask of ``loaded`` questions: nothing measured is no result."""
    if loaded:
        return InputError(f"{name}: expected at least one reporting row, found none among {loaded:,}")
    found = f"{len(bad):,} rows that cannot be used, the first one {bad[0]}" if bad else "no row at all"
    return InputError(f"{name}: expected at least one usable question, found {found}")


def outlook(name: str, loaded: int, tasks: Sequence[Task], limit: int | None, store: Any) -> str:
    """How many questions are asked of how many, and how many of them could be answered from this store.

    Of many, `LOOKED_AT` are looked up, drawn as the others are: a served store is asked for each document.
    """
    short = f" (--limit asks for {limit:,})" if limit is not None and limit > len(tasks) else ""
    marked = [task for task in tasks if task.supporting]
    tried = marked[:LOOKED_AT]
    kept = resolved(tried, functools.partial(holds, store), lambda message: None) if tried else []
    of = f"the {len(marked):,}" if tried == marked else f"{len(tried):,} of the {len(marked):,}"
    held = f"; {len(kept):,} of {of} that mark their evidence have it in this store" if marked else ""
    return f"{name}: {len(tasks):,} of {loaded:,} questions{short}{held}"


def _converted(place: str, raw: Any, convert: Convert | None, bad: source.Bad) -> list[Mapping[str, Any]]:
    if isinstance(raw, dict) and "golden_answers" in raw:
        convert = flashrag
    if convert is None or _shared(raw):
        return [raw]
    try:
        return list(convert(raw))
    except KeyError as error:
        bad(f"{place}: not a usable question row: expected a field {error}; found {_fields(raw)}")
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        bad(f"{place}: not a usable question row: {error}; its fields are {_fields(raw)}")
    return []


def _shared(row: Any) -> bool:
    """A row in the shared layout has fields that no published row has together."""
    own = {"supporting", "support_mode", "answerable"}
    return isinstance(row, dict) and {"id", "question", "answers"} <= row.keys() and bool(own & row.keys())


def flashrag(row: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """A row of FlashRAG (arXiv 2405.13576): ``{"id", "question", "golden_answers", "metadata"}``."""
    more = row.get("metadata") or {}
    if not isinstance(more, dict):
        raise ValueError(f"'metadata' must be an object; found {_shown(more)}")
    kept = {key: value for key, value in more.items() if value is not None}
    yield {**kept, "id": row["id"], "question": row["question"], "answers": row["golden_answers"]}


def task_of(row: Any) -> Task:
    """The task of one row; ``ValueError`` says which field, what was expected and what was found."""
    if not isinstance(row, Mapping):
        raise ValueError(f"expected a JSON object; found {type(row).__name__}")
    answers = _strings(row, "answers")
    findings = _strings(row, "key_findings")
    if not answers and not findings and row.get("answerable", True) is True:
        raise ValueError("'answers' is empty; expected at least one, or 'answerable': false")
    if row.get("answerable", True) not in (True, False, None):
        raise ValueError(f"'answerable' must be true, false or null; found {_shown(row['answerable'])}")
    supporting = tuple(dict.fromkeys(_strings(row, "supporting")))
    mode = row.get("support_mode", "all" if supporting else "none")
    if mode not in ("all", "any", "none"):
        raise ValueError(f"'support_mode' must be all, any or none; found {mode!r}")
    hops = row.get("hops")
    if hops is not None and type(hops) is not int:
        raise ValueError(f"'hops' must be a whole number or null; found {hops!r}")
    return Task(
        id=_string(row, "id"),
        question=_string(row, "question"),
        answers=answers,
        supporting=supporting,
        support_mode=mode,
        answer_items=_strings(row, "answer_items"),
        type=str(row.get("type") or ""),
        hops=hops,
        where={"scope": _string(row, "scope")} if row.get("scope") else None,
        metadata={key: value for key, value in row.items() if key not in (*_KNOWN, "documents")},
    )


def select(tasks: Sequence[Task], limit: int | None = None, seed: int = 0, reporting: bool = False) -> list[Task]:
    """A subset that depends on ids and seed alone: ``reporting`` keeps the reporting rows, ``limit`` that many of them.

    Tasks come in an order drawn by hash, so a smaller limit is the head of a larger one, and a run that is cut short
    has seen a random sample.
    """
    kept = [task for task in tasks if not reporting or is_reporting(task)]
    drawn = sorted(kept, key=lambda task: hashlib.sha256(f"{seed}:{task.id}".encode()).digest())
    return drawn if limit is None else drawn[:limit]


def is_reporting(task: Task) -> bool:
    """`split.reporting_only` for a task."""
    return reporting_only({"id": task.id, "base_id": task.metadata.get("base_id")})


def _string(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"'{key}' must be a string that is not empty; found {_shown(value)}")
    return value


def _strings(row: Mapping[str, Any], key: str) -> tuple[str, ...]:
    values: Iterable[Any] | None = row.get(key)
    if values is None:
        return ()
    if not isinstance(values, list | tuple) or not all(isinstance(v, str) and v.strip() for v in values):
        raise ValueError(f"'{key}' must be a list of strings that are not empty; found {_shown(values)}")
    return tuple(values)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _fields(row: Any) -> str:
    return ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
