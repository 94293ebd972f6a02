"""Synthesising: test questions from the user's own documents, or from a small world that nobody can know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sleuth.commands.asking import ADAPTER, AdapterOption, PolicyOption, adapter_of
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.terminal import emit, out, plain, progress, say

if TYPE_CHECKING:
    from sleuth.corpora.records import Document
    from sleuth.eval.records import Task

DEFAULT_KINDS = "bridge,comparison,temporal,tree,cloze,list"


def make_benchmark(
    store: Annotated[Path | None, typer.Argument(help="A datastore, made by `sleuth build`.")] = None,
    folder: Annotated[Path, typer.Option("--out", help="Questions and report go here.")] = Path("runs/benchmark"),
    n: Annotated[int, typer.Option("-n", min=1, help="Questions wanted.")] = 200,
    kinds: Annotated[str, typer.Option(help="Kinds of questions, with commas between.")] = DEFAULT_KINDS,
    seed: Annotated[int, typer.Option(help="The same seed gives the same questions.")] = 0,
    relations: Annotated[
        list[Path] | None, typer.Option(help="A TOML file of further relations; may be repeated.")
    ] = None,
    fictional: Annotated[
        int | None, typer.Option(help="Instead of a store: an invented corpus of this many documents.")
    ] = None,
    hops: Annotated[str, typer.Option(help="With --fictional: look-ups a question needs, with commas.")] = "1,2",
    leak_check: Annotated[
        bool, typer.Option("--leak-check", help="Drop what the policy answers without documents.")
    ] = False,
    policy: PolicyOption = "embedded",
    adapter: AdapterOption = ADAPTER,
    renamed: Annotated[
        bool, typer.Option("--renamed", help="Also the same questions under invented names, with their corpus.")
    ] = False,
    keychain: Annotated[
        int, typer.Option(min=0, help="Also the same questions at the end of chains of this many planted notes.")
    ] = 0,
    rephrase: Annotated[
        bool,
        typer.Option("--rephrase", help="Let the policy reword questions, where nothing is lost."),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the leak check's episodes that are there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The report as one JSON object on stdout.")] = False,
) -> None:
    """Make test questions from a datastore: multi-hop, with evidence, each verified to have one answer or list in it.

    No language model is needed. Writes questions.jsonl for `sleuth eval`, and report.md and report.json, which count
    what each check dropped. The same store, seed and options give the same questions.

    Example: sleuth make-benchmark store --out mine -n 200, then: sleuth eval mine/questions.jsonl --store store
    """
    if (store is None) == (fictional is None):
        raise ConfigError("expected a datastore or --fictional N, one of the two")
    if (folder / "questions.jsonl").exists() and not resume:
        raise ConfigError(f"{folder}: questions of an earlier run are here; choose another place, or give --resume")
    if fictional is not None:
        return _fictional(fictional, folder, n, seed, hops, as_json)
    from sleuth.eval.synthesis import make
    from sleuth.retrieval.store import Datastore

    opened = Datastore.open(store or Path())
    names = [kind.strip() for kind in kinds.split(",") if kind.strip()]
    with progress() as tell, _leaks(leak_check, policy, adapter, folder, resume, tell) as leaks:
        tasks, report = make.make_benchmark(
            opened, n, names, seed, relations=relations or (), leaks=leaks, policy=policy, progress=tell
        )
    extra: dict[str, Any] = {}
    if rephrase:
        tasks, extra["rephrased"] = _reworded(tasks, policy, adapter, seed)
    make.write(folder, tasks, report)
    if renamed:
        from sleuth.eval.synthesis import rename

        copies, made, dropped = rename.renamed(tasks, opened.retriever("bm25"), opened.document, seed)
        extra["renamed"] = {"questions": len(made), "documents": len(copies), "dropped": dict(dropped)}
        _write_pair(folder / "renamed", copies, made)
    if keychain:
        from sleuth.eval.synthesis.keychain import planted

        copies, made = planted(tasks, opened.retriever("bm25"), opened.document, keychain, seed)
        extra["keychain"] = {"questions": len(made), "documents": len(copies), "links": keychain}
        _write_pair(folder / "keychain", copies, made)
    if as_json:
        emit({**report.to_json(), **extra})
    else:
        out().print(plain(report.to_markdown()), soft_wrap=True)
    say(f"{len(tasks)} questions in {folder / 'questions.jsonl'}; next: "
        f"sleuth eval {folder / 'questions.jsonl'} --store {store}")  # fmt: skip


def make_tasks(
    store: Annotated[Path, typer.Argument(help="A datastore, made by `sleuth build`.")],
    folder: Annotated[Path, typer.Option("--out", help="Tasks and report go here.")] = Path("runs/tasks"),
    n: Annotated[int, typer.Option("-n", min=1, help="Verified questions to start from.")] = 1000,
    kinds: Annotated[str, typer.Option(help="Kinds of questions, with commas between.")] = DEFAULT_KINDS,
    difficulty: Annotated[str, typer.Option(help="Which to keep of easy, medium, hard.")] = "easy,medium,hard",
    objectives: Annotated[int, typer.Option(min=1, help="Compose this many tasks into each question.")] = 1,
    against: Annotated[
        list[Path] | None, typer.Option(help="Held-out questions (JSONL) that training must not meet; repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same tasks.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="The counts as one JSON object on stdout.")] = False,
) -> None:
    """Make training tasks from a datastore: as make-benchmark, with a difficulty, and nothing that is held out.

    Example: sleuth make-tasks store --out tasks --difficulty medium,hard --against mine/questions.jsonl
    """
    from sleuth.eval.load import read_tasks
    from sleuth.eval.synthesis import make, training
    from sleuth.retrieval.store import Datastore

    levels = [level.strip() for level in difficulty.split(",") if level.strip()]
    if not levels or not set(levels) <= set(training.DIFFICULTIES):
        raise ConfigError(f"--difficulty: expected some of {', '.join(training.DIFFICULTIES)}, found {difficulty!r}")
    held_out = [task for file in against or () for task in read_tasks(file)]
    opened = Datastore.open(store)
    names = [kind.strip() for kind in kinds.split(",") if kind.strip()]
    with progress() as tell:
        made, report = make.make_benchmark(opened, n, names, seed, progress=tell)
    clean, dropped = training.decontaminated(made, held_out)
    graded = training.graded(clean, opened.retriever("bm25"))
    kept = [task for task in graded if task.metadata["difficulty"] in levels]
    counts = {level: sum(task.metadata["difficulty"] == level for task in graded) for level in training.DIFFICULTIES}
    tasks = training.composed(kept, objectives, seed) if objectives > 1 else kept
    if not tasks:
        raise InputError(f"{store}: no task is left of {len(made)}; dropped {dict(dropped)}, by difficulty {counts}")
    make.write(folder, tasks, report)
    result = {"made": len(made), "dropped": dict(dropped), "difficulty": counts, "tasks": len(tasks)}
    if as_json:
        emit(result)
    else:
        say(f"{len(made)} made, dropped: {dict(dropped) or 'none'}; by difficulty: {counts}")
    say(f"{len(tasks)} tasks in {folder / 'questions.jsonl'}")


@contextmanager
def _leaks(
    wanted: bool, policy: str, adapter: str, folder: Path, resume: bool, tell: Callable[[str, int, int | None], None]
) -> Iterator[Callable[[Sequence[Task]], set[str]] | None]:
    if not wanted:
        yield None
        return
    from sleuth.agents.policy import open_policy
    from sleuth.eval.synthesis.leak import leak_check

    file = folder / "leak.jsonl"
    if not resume:
        file.unlink(missing_ok=True)
    engine = open_policy(policy, adapter=adapter_of(adapter))
    with leak_check(engine, file, lambda done, total: tell("leak check", done, total)) as leaks:
        yield leaks


def _reworded(tasks: Sequence[Task], policy: str, adapter: str, seed: int) -> tuple[list[Task], int]:
    from sleuth.agents.policy import open_policy
    from sleuth.eval.synthesis.rephrase import rephrased

    engine = open_policy(policy, adapter=adapter_of(adapter))

    async def run() -> tuple[list[Task], int]:
        try:
            return await rephrased(tasks, engine, seed)
        finally:
            if hasattr(engine, "aclose"):
                await engine.aclose()

    made, count = asyncio.run(run())
    say(f"{count} of {len(made)} questions were reworded; the others keep the template's wording")
    return made, count


def _fictional(entities: int, folder: Path, n: int, seed: int, hops: str, as_json: bool) -> None:
    from sleuth.eval.synthesis.fictional import fictional_world

    try:
        counts = [int(part) for part in hops.split(",")]
    except ValueError:
        raise InputError(f"--hops: expected whole numbers with commas between, found {hops!r}") from None
    documents, tasks = fictional_world(seed, entities, counts)
    kept = [tasks[i * len(tasks) // n] for i in range(n)] if n < len(tasks) else tasks  # all counts of hops alike
    _write_pair(folder, documents, kept)
    result: dict[str, Any] = {"documents": len(documents), "questions": len(kept), "seed": seed, "hops": counts}
    if as_json:
        emit(result)


def _write_pair(folder: Path, documents: Sequence[Document], tasks: Sequence[Task]) -> None:
    """A corpus and its questions, and how to go on."""
    from sleuth.eval.synthesis.make import document_row, row_of, write_rows

    write_rows(folder / "corpus.jsonl", map(document_row, documents))
    write_rows(folder / "questions.jsonl", map(row_of, tasks))
    say(f"{len(documents)} documents, {len(tasks)} questions; next: sleuth build {folder / 'corpus.jsonl'} --out "
        f"{folder / 'store'}; sleuth eval {folder / 'questions.jsonl'} --store {folder / 'store'}")  # fmt: skip
