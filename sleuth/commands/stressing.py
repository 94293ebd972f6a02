"""Stressing: what a run loses when questions are typed badly or documents are false, new or hostile."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from sleuth.agents.records import Budget
from sleuth.agents.strategy import DEFAULT
from sleuth.commands.asking import (
    ADAPTER,
    NAMES,
    AdapterOption,
    PolicyOption,
    RerankerOption,
    adapter_of,
    planned,
)
from sleuth.corpora.errors import InputError
from sleuth.terminal import emit, out, plain, progress, say

ALL = "typos,word-drop,lower-case,keywords,paraphrase,distractors,contradictions,update,orders"


def stress(
    store: Annotated[Path, typer.Argument(help="A datastore, made by `sleuth build`.")],
    benchmark: Annotated[str, typer.Argument(help="A benchmark's name, or a JSONL file of questions.")],
    names: Annotated[str, typer.Option("--stresses", help="Kinds of stress, with commas between.")] = ALL,
    also: Annotated[
        list[Path] | None,
        typer.Option(help="Questions worded otherwise, paired by base_id (another language); may be repeated."),
    ] = None,
    given: Annotated[
        Path | None, typer.Option("--orders", help="Orders to plant: a line each, JSONL with 'goal', or JSON lists.")
    ] = None,
    plan: Annotated[str, typer.Option("--strategy", help=f"One of {NAMES}.")] = DEFAULT,
    policy: PolicyOption = "embedded",
    adapter: AdapterOption = ADAPTER,
    reranker: RerankerOption = None,
    data: Annotated[Path | None, typer.Option(help="Folder with qa/NAME.jsonl; the shipped rows by default.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Draw this many questions by the seed.")] = None,
    seed: Annotated[int, typer.Option(help="Draws the questions and the changes, and seeds the episodes.")] = 0,
    searches: Annotated[int, typer.Option(min=0, help="Most searches a question.")] = 12,
    folder: Annotated[Path, typer.Option("--out", help="Episodes, changed stores and reports go here.")] = Path(
        "runs/stress"
    ),
    concurrency: Annotated[int, typer.Option(min=1, help="Episodes at the same time.")] = 16,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the episodes that are there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per stress on stdout.")] = False,
) -> None:
    """Run questions as they are and under each change, and report the paired differences with their intervals.

    The store itself is never changed: documents go to copies of it. Planted orders are counted by their effects.

    Example: sleuth stress store mine/questions.jsonl --stresses typos,contradictions,orders --limit 50
    """
    from sleuth.agents.policy import open_policy
    from sleuth.eval.benchmarks import benchmark as find
    from sleuth.eval.load import read_tasks, select
    from sleuth.eval.robustness import stress as stressing
    from sleuth.eval.robustness.documents import ORDERS
    from sleuth.eval.robustness.queries import worded_otherwise
    from sleuth.retrieval.store import Datastore

    chosen, path = find(benchmark)
    tasks = select(chosen.load(path or data), limit, seed)
    opened, (strategy,) = Datastore.open(store), planned([plan], reranker)
    texts = read_orders(given) if given else ORDERS
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    variants = [stressing.variant(name, tasks, opened.document, seed, texts) for name in wanted]
    variants += [worded_otherwise(file.name.partition(".")[0], tasks, read_tasks(file)) for file in also or ()]
    engine = open_policy(policy, adapter=adapter_of(adapter))

    async def run() -> list[stressing.Stressed]:
        try:
            with progress() as tell:
                return await stressing.stress(
                    opened, tasks, variants, engine, strategy, folder,
                    seed=seed, budget=Budget(searches=searches), concurrency=concurrency, resume=resume, progress=tell,
                )  # fmt: skip
        finally:
            if hasattr(engine, "aclose"):
                await engine.aclose()

    found = asyncio.run(run())
    if as_json:
        for stressed in found:
            emit(stressed.to_json())
    else:
        out().print(plain(stressing.markdown(found)), soft_wrap=True)
    say(f"report and episodes in {folder}")


def read_orders(file: Path) -> list[str]:
    """Orders of a file: plain lines, JSONL rows with ``goal``, or a JSON object of lists (the layout of BIPIA)."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: expected orders in UTF-8: {error}") from None
    try:
        if file.suffix == ".json":
            found = [order for orders in json.loads(text).values() for order in orders]
        elif file.suffix == ".jsonl":
            found = [json.loads(line)["goal"] for line in text.split("\n") if line.strip()]
        else:
            found = [line.strip() for line in text.split("\n") if line.strip()]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{file}: expected orders as lines, JSONL with 'goal', or JSON lists: {error!r}") from None
    if not found or not all(isinstance(order, str) for order in found):
        raise InputError(f"{file}: expected orders, found {'none' if not found else 'something that is no text'}")
    return found
