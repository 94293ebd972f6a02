"""A format turns the episodes of one file into another tool's file or folder, an episode at a time.

The shapes were read off the tools' own code: TREC's run lines, FlashRAG's ``Dataset.save``, BrowseComp-Plus'
``search_agent`` and ``evaluate_run.py``, DeepResearch Bench's raw data. Nothing is put into a field that an episode
does not hold. Where a task has several episodes the last one counts; those of failed and cancelled runs are written
too, as what they are.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sleuth.agents.records import Answer, Episode, ToolCall
from sleuth.agents.trace import Trace
from sleuth.corpora.errors import ConfigError, InputError, nearest
from sleuth.eval.metrics import answer_text, citations
from sleuth.eval.records import Task
from sleuth.eval.report import replace
from sleuth.eval.stored import lines, load_at

FUSION_K = 60
"""Of reciprocal rank fusion (Cormack et al. 2009), by which the searches of one run become one ranking."""

Urls = Callable[[str], str]
"""The address of a document id; empty where there is none."""


@dataclass(frozen=True, slots=True)
class Source:
    """What an export is made from."""

    path: Path
    """The episode file."""
    tasks: Mapping[str, Task]
    """By id; needed by formats that hold gold answers."""
    urls: Urls = lambda doc_id: ""

    def episodes(self) -> Iterator[tuple[str, Episode]]:
        """The last episode of each task, with the task's id (the episode's own id where it has no task)."""
        last: dict[str, int] = {}
        for data, offset in lines(self.path):
            if isinstance(data, Mapping) and "steps" in data:
                last[str(((data.get("config") or {}).get("task") or {}).get("id") or data.get("id"))] = offset
        if not last:
            raise InputError(f"{self.path}: expected at least one episode; found none")
        for name, offset in last.items():
            yield name, load_at(self.path, offset)


def trec(source: Source, out: Path) -> Path:
    """A TREC run, ``qid Q0 docid rank score tag``: documents by reciprocal rank fusion over a run's searches."""
    rows = []
    for name, episode in source.episodes():
        tag = re.sub(r"\s+", "-", str((episode.config.get("strategy") or {}).get("name") or "sleuth"))
        for rank, (doc_id, score) in enumerate(ranking(episode), 1):
            for what, value in (("question", name), ("document", doc_id)):
                if re.search(r"\s", value) or not value:
                    raise InputError(f"{source.path}: the {what} id {value!r} has white space, which a TREC run cannot")
            rows.append(f"{name} Q0 {doc_id} {rank} {score:.6f} {tag}\n")
    return replace(out, "".join(rows))


def ranking(episode: Episode) -> list[tuple[str, float]]:
    """The retrieved documents with their fused scores, best first, each once, ties by id."""
    passages, scores = episode.passages(), dict[str, float]()
    for found in Trace(episode.question, episode.steps).found():
        documents = list(dict.fromkeys(passages[i].doc_id for i in found if i in passages))
        for rank, doc_id in enumerate(documents, 1):
            scores[doc_id] = scores.get(doc_id, 0.0) + 1.0 / (FUSION_K + rank)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))


def flashrag(source: Source, out: Path) -> Path:
    """FlashRAG's ``intermediate_data.json``: a list of items with ``output`` = what was retrieved, and ``pred``."""
    items = []
    for name, episode in source.episodes():
        task = source.tasks.get(name)
        if task is None:
            raise InputError(
                f"{source.path}: task {name!r} is not in the benchmark; FlashRAG's items need gold answers"
            )
        contents = [
            {"id": p.id, "contents": f"{p.title}\n{p.text}" if p.title else p.text} for p in episode.passages().values()
        ]
        items.append(
            {
                "id": name,
                "question": episode.question,
                "golden_answers": list(task.answers),
                "output": {"retrieval_result": contents, "pred": answer_text(episode)},
            }
        )
    return replace(out, json.dumps(items, ensure_ascii=False, indent=4) + "\n")


def browsecomp_plus(source: Source, out: Path) -> Path:
    """A folder of ``run_QUERY.json`` files as BrowseComp-Plus evaluates them, with citations as ``[docid]``."""
    for name, episode in source.episodes():
        calls = [call for step in episode.steps for call in step.calls]
        passages = episode.passages()
        results: list[dict[str, Any]] = [
            {
                "type": "tool_call",
                "tool_name": call.tool,
                "arguments": json.dumps(dict(call.arguments), ensure_ascii=False),
                "output": _tool_output(call, passages),
            }
            for call in calls
        ]
        said = cited(episode.answer, {i: p.doc_id for i, p in passages.items()})
        if said:
            results.append({"type": "output_text", "tool_name": None, "arguments": None, "output": said})
        spent = episode.spent
        data = {
            "metadata": {"model": str(episode.config.get("policy", "")), "output_dir": str(out)},
            "query_id": name,
            "tool_call_counts": dict(Counter(call.tool for call in calls)),
            "usage": {
                "input_tokens": spent.prompt_tokens,
                "input_tokens_cached": spent.cached_tokens,
                "output_tokens": spent.completion_tokens,
                "total_tokens": spent.prompt_tokens + spent.completion_tokens,
            },
            "status": "completed" if said and episode.stop not in ("error", "cancelled") else "incomplete",
            "retrieved_docids": list(dict.fromkeys(p.doc_id for p in passages.values())),
            "result": results,
        }
        file = f"run_{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.json"
        replace(out / file, json.dumps(data, ensure_ascii=False, indent=2) + "\n")
    return out


def _tool_output(call: ToolCall, passages: Mapping[str, Any]) -> str | None:
    """The hits as the official agent records them; another tool's result as it is; None for a call that failed."""
    if call.error:
        return None
    if call.tool != "search":
        return json.dumps(call.result, ensure_ascii=False, default=str)
    hits = [
        {"docid": passages[h["passage_id"]].doc_id, "score": h["score"], "snippet": passages[h["passage_id"]].text}
        for h in call.result or ()
        if h["passage_id"] in passages
    ]
    return json.dumps(hits, ensure_ascii=False)


def cited(answer: Answer | None, names: Mapping[str, str]) -> str:
    """The answer's sentences or items, each with its citations behind it as ``[name]``, by passage id."""
    if answer is None:
        return ""
    if not answer.sentences:
        return answer.text
    parts = []
    for sentence in answer.sentences:
        marks = dict.fromkeys(f"[{names[c.passage_id]}]" for c in sentence.citations if c.passage_id in names)
        parts.append(" ".join([sentence.text, *marks]))
    listed = ", ".join(sentence.text for sentence in answer.sentences) == answer.text
    return (", " if listed else " ").join(parts)


def deep_research_bench(source: Source, out: Path) -> Path:
    """DeepResearch Bench's raw data, a line ``{"id", "prompt", "article"}``: the answer with numbered references."""
    rows = []
    for name, episode in source.episodes():
        passages = episode.passages()
        documents = [passages[c.passage_id].doc_id for c in citations(episode) if c.passage_id in passages]
        numbers = {doc_id: str(n) for n, doc_id in enumerate(dict.fromkeys(documents), 1)}
        text = cited(episode.answer, {i: numbers[p.doc_id] for i, p in passages.items() if p.doc_id in numbers})
        titles = {p.doc_id: p.title for p in passages.values()}
        references = [
            f"[{n}] {' '.join(filter(None, (titles.get(i) or i, source.urls(i))))}" for i, n in numbers.items()
        ]
        article = "\n\n".join(filter(None, (text, "\n".join(["References", *references]) if references else "")))
        row = {"id": int(name) if name.isdecimal() else name, "prompt": episode.question, "article": article}
        rows.append(json.dumps(row, ensure_ascii=False) + "\n")
    return replace(out, "".join(rows))


Format = Callable[[Source, Path], Path]
FORMATS: dict[str, tuple[Format, str]] = {
    "trec": (trec, "run.trec"),
    "flashrag": (flashrag, "intermediate_data.json"),
    "browsecomp-plus": (browsecomp_plus, "browsecomp"),
    "deepresearch-bench": (deep_research_bench, "articles.jsonl"),
}
"""By name: the writer, and the file or folder it writes where none is named."""


def export(
    format: str,
    episodes: str | Path,
    out: str | Path | None = None,
    *,
    tasks: Sequence[Task] = (),
    urls: Urls | None = None,
) -> Path:
    """Write an episode file in another tool's format; the path of what was written.

    ``tasks`` are needed by formats that hold gold answers, ``urls`` gives documents' addresses. An unknown format
    raises `ConfigError`, a file without episodes `InputError`.
    """
    if format not in FORMATS:
        raise ConfigError(f"unknown format {format!r}{nearest(format, FORMATS)}; known: {', '.join(FORMATS)}")
    writer, name = FORMATS[format]
    path = Path(episodes)
    if not path.is_file():
        raise InputError(f"{path}: no such episode file")
    source = Source(path, {task.id: task for task in tasks}, urls or (lambda doc_id: ""))
    return writer(source, Path(out) if out else path.parent / name)
