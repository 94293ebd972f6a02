"""Learning: figures for a strategy and a policy, adapters trained from a recipe, and a policy served to others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from sleuth.agents.records import Budget
from sleuth.agents.strategy import STRATEGIES
from sleuth.commands.asking import ADAPTER, AdapterOption, PolicyOption, adapter_of
from sleuth.corpora.errors import ConfigError
from sleuth.terminal import emit, out, plain, progress, say


def evaluate(
    benchmark: Annotated[str, typer.Argument(help="A benchmark's name, or a JSONL file of questions.")],
    store: Annotated[Path, typer.Option(help="The datastore that is searched.")],
    names: Annotated[
        str, typer.Option("--strategy", help=f"Some of {', '.join(STRATEGIES)}, with commas between; or all.")
    ] = "all",
    policy: PolicyOption = "embedded",
    adapter: AdapterOption = ADAPTER,
    data: Annotated[Path | None, typer.Option(help="Folder with qa/NAME.jsonl; the shipped rows by default.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Draw this many questions by the seed.")] = None,
    seed: Annotated[int, typer.Option(help="Draws the questions and seeds the episodes.")] = 0,
    reporting: Annotated[bool, typer.Option("--reporting", help="Only rows that no training has seen.")] = False,
    searches: Annotated[int, typer.Option(min=0, help="Most searches a question.")] = 12,
    folder: Annotated[Path, typer.Option("--out", help="Episodes and reports go here.")] = Path("runs/eval"),
    concurrency: Annotated[int, typer.Option(min=1, help="Episodes at the same time.")] = 16,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the episodes that are there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The reports as NDJSON on stdout.")] = False,
) -> None:
    """Score strategies on a benchmark: answers, evidence, citations, cost, with bootstrap intervals.

    Writes report.md, report.json and every episode. Example: sleuth eval hotpotqa_s --store store --limit 20
    """
    from sleuth.eval.run import run

    strategies = list(STRATEGIES) if names == "all" else [name.strip() for name in names.split(",")]
    with progress() as tell:
        reports = asyncio.run(
            run(
                benchmark,
                store,
                strategies=strategies,
                policy=policy,
                adapter=adapter_of(adapter),
                data=data,
                limit=limit,
                seed=seed,
                out=folder,
                concurrency=concurrency,
                reporting=reporting,
                resume=resume,
                budget=Budget(searches=searches),
                progress=tell,
            )
        )
    if as_json:
        for report in reports:
            emit(report.to_json())
    else:
        out().print(plain((folder / "report.md").read_text(encoding="utf-8")), soft_wrap=True)
    say(f"reports and episodes in {folder}")


def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file, such as recipes/first.toml.")],
    data: Annotated[Path, typer.Option(help="Folder with qa/ and corpora/ of the benchmark files.")],
    folder: Annotated[Path, typer.Option("--out", help="The adapter, its log and checkpoints go here.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
) -> None:
    """Train an adapter as a recipe says; it is then what --adapter takes.

    Rows that figures are reported on never enter. Example: sleuth train recipes/first.toml --data data --out runs/first
    """
    from sleuth.training.recipe import run

    print(run(str(recipe), str(folder), str(data), resume=resume, progress=say))


def serve_policy(
    policy: PolicyOption = "embedded",
    adapter: AdapterOption = ADAPTER,
    host: Annotated[str, typer.Option(help="Loopback only, unless SLEUTH_SERVE_KEY holds a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8700,
) -> None:
    """Serve a policy as an OpenAI-compatible endpoint (chat completions), for other tools and machines.

    Example: sleuth serve-policy --port 8700, then elsewhere: sleuth ask store "..." --policy http://127.0.0.1:8700/v1#sleuth
    """
    from sleuth.agents.policy import open_policy
    from sleuth.serve_policy import serve

    if policy.startswith(("http://", "https://")):
        raise ConfigError(f"serve-policy serves a model of this machine; found the address {policy}")
    serve(open_policy(policy, adapter=adapter_of(adapter)), host, port)
