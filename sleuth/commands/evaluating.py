"""Evaluating: figures for strategies and policies, stored episodes scored again, and runs compared."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sleuth.agents.records import Budget
from sleuth.agents.strategy import STRATEGIES
from sleuth.commands.asking import (
    ADAPTER,
    AdapterOption,
    PolicyOption,
    RerankerOption,
    adapter_of,
    code_in,
    planned,
)
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.terminal import emit, out, plain, progress, say, table

if TYPE_CHECKING:
    from sleuth.eval.cells import Planned
    from sleuth.eval.report import Report

DataOption = Annotated[Path | None, typer.Option(help="Folder with qa/NAME.jsonl; the shipped rows by default.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]
ReportingFlag = Annotated[bool, typer.Option("--reporting", help="Only rows that no training takes.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Draw this many questions by the seed.")]


def evaluate(
    context: typer.Context,
    benchmark: Annotated[str, typer.Argument(help="A benchmark's name, a JSONL file of questions, or a matrix.toml.")],
    episodes: Annotated[list[Path] | None, typer.Argument(help="With --rescore: episode files.")] = None,
    store: Annotated[
        Path | None, typer.Option(help="The datastore that is searched; in a matrix, {corpus} stands for each set's.")
    ] = None,
    names: Annotated[
        str, typer.Option("--strategy", help=f"Some of {', '.join(STRATEGIES)}, with commas between; or all.")
    ] = "all",
    policy: PolicyOption = "embedded",
    adapter: AdapterOption = ADAPTER,
    reranker: RerankerOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    seed: Annotated[int, typer.Option(help="Draws the questions and seeds the episodes.")] = 0,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of a question, each with the next seed: pass@k.")] = 1,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy, and all repeats are then one.")] = 0.0,
    reporting: ReportingFlag = False,
    searches: Annotated[int, typer.Option(min=0, help="Most searches a question.")] = 12,
    folder: Annotated[Path | None, typer.Option("--out", help="Episodes and reports go here.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Episodes at the same time.")] = 16,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the episodes that are there.")] = False,
    reuse: Annotated[
        list[Path] | None, typer.Option(help="With a matrix: take over equal episodes below this folder.")
    ] = None,
    stored: Annotated[
        bool, typer.Option("--stored", help="With a matrix: report on the episodes there are, run nothing.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="With a matrix: show what is left to run, and stop.")] = False,
    rescore: Annotated[bool, typer.Option("--rescore", help="Score the episode files given, run nothing.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Score strategies on a benchmark: answers, evidence, citations, causes, cost, with bootstrap intervals.

    Writes report.html, .md, .json, .csv and every episode. Example: sleuth eval mine/questions.jsonl --store store;
    then, after a change of metrics: sleuth eval mine/questions.jsonl --rescore runs/eval/decompose.jsonl; many at
    once: sleuth eval recipes/matrix.toml --data data --out runs/matrix
    """
    if rescore:
        refuse(context, "--rescore", _RESCORE)
        folder = folder or Path("runs/rescored")
        reports = _rescored(benchmark, episodes or [], data, limit, seed, reporting, store, folder)
    elif episodes:
        raise ConfigError(f"episode files go with --rescore; found {', '.join(map(str, episodes))} without it")
    elif benchmark.endswith(".toml"):
        refuse(context, benchmark, _MATRIX)
        folder = folder or Path("runs") / Path(benchmark).stem
        stores = None if store is None else [str(store)]
        changes = {"data": data and str(data), "limit": limit, "stores": stores}
        reports = _matrix(benchmark, folder, plan, as_json, reuse=reuse or [], stored_only=stored, **changes)
    elif store is None:
        raise ConfigError("expected --store FOLDER (make one with `sleuth build`), or --rescore EPISODES")
    else:
        refuse(context, "one benchmark", _ONE)
        from sleuth.eval.run import run

        folder = folder or Path("runs/eval")
        chosen = list(STRATEGIES) if names == "all" else [name.strip() for name in names.split(",")]
        with progress() as tell:
            reports = asyncio.run(
                run(
                    benchmark,
                    store,
                    strategies=planned(chosen, reranker),
                    policy=policy,
                    adapter=adapter_of(adapter),
                    data=data,
                    limit=limit,
                    seed=seed,
                    repeats=repeats,
                    temperature=temperature,
                    out=folder,
                    concurrency=concurrency,
                    reporting=reporting,
                    resume=resume,
                    budget=Budget(searches=searches),
                    command=typed(),
                    progress=tell,
                    tell=say,
                )
            )
    if reports:
        _told(reports, folder, as_json)
        if not rescore:
            _leave(reports)


_RESCORE = {"benchmark", "episodes", "store", "data", "limit", "seed", "reporting", "folder", "rescore", "as_json"}
_MATRIX = {"benchmark", "data", "store", "limit", "folder", "reuse", "stored", "plan", "as_json", "resume"}
_ONE = {"benchmark", "store", "names", "policy", "adapter", "reranker", "data", "limit", "seed", "reporting",
        "searches", "folder", "concurrency", "resume", "repeats", "temperature", "as_json"}  # fmt: skip


def refuse(context: typer.Context, what: str, known: set[str]) -> None:
    """An option that would be ignored is an error."""
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "")
        if given is not None and given.name == "COMMANDLINE" and parameter.name not in known:
            raise ConfigError(f"{parameter.opts[-1]} does not go with {what}")


def _rescored(
    benchmark: str, files: list[Path], data: Path | None, limit: int | None, seed: int, reporting: bool,
    store: Path | None, folder: Path,
) -> list[Report]:  # fmt: skip
    from sleuth.eval import publish
    from sleuth.eval.run import rescore_files

    if not files:
        raise ConfigError("--rescore needs episode files, such as runs/eval/decompose.jsonl; found none")
    with progress() as tell:
        reports = rescore_files(
            benchmark, files, data=data, limit=limit, seed=seed, reporting=reporting, store=store, progress=tell
        )
        title = f"{reports[0].benchmark}, scored again"
        publish.write(folder, reports, title, typed(), lambda done, total: tell("page", done, total))
    return reports


def _matrix(path: str, folder: Path, only_plan: bool, as_json: bool, **options: Any) -> list[Report]:
    from sleuth.eval.cells import run

    def show(planned: Sequence[Planned]) -> bool:
        if only_plan and as_json:
            for line in planned:
                emit(dict(zip(_PLAN, _plan_row(line), strict=True)))
        else:
            _plan_table(planned, only_plan)
        return not only_plan

    with progress() as tell:
        return asyncio.run(run(path, folder, show=show, command=typed(), progress=tell, **options))


_PLAN = ("benchmark", "run", "questions", "done", "taken over", "left", "minutes", "tokens", "cost")


def _plan_row(line: Planned) -> tuple[Any, ...]:
    cost = None if line.money is None else round(line.money, 4)
    minutes = None if line.seconds is None else round(line.seconds / 60, 1)
    tokens = None if line.tokens is None else round(line.tokens)
    count = len(line.cell.tasks)
    return (line.cell.benchmark.name, line.cell.label, count, line.done, line.reused, line.left, minutes, tokens, cost)


def _plan_table(planned: Sequence[Planned], on_stdout: bool) -> None:
    """The plan, and its sum; what no cell like it has been run for is not in the sum and is said."""
    rows = [_plan_row(line) for line in planned]
    unknown = sum(line.left for line in planned if line.seconds is None)
    minutes = sum(line.seconds or 0 for line in planned) / 60
    currency = next((line.currency for line in planned if line.currency), "")
    costs = f", {sum(line.money or 0 for line in planned):.2f} {currency}" if currency else ""
    tokens = sum(line.tokens or 0 for line in planned)
    total = f"{sum(line.left for line in planned):,} of {sum(row[2] for row in rows):,} questions are left"
    guess = f": about {minutes:,.0f} minutes, {tokens:,.0f} tokens{costs} by the cells that were run"
    rest = f"; for {unknown:,} of them no cell is known yet that would say" if unknown else ""
    if on_stdout:
        table(_PLAN, rows)
    else:
        for row in rows:
            named = (f"{name} {value:,}" for name, value in zip(_PLAN[2:], row[2:], strict=True) if value is not None)
            say(f"{row[0]}, {row[1]}: {', '.join(named)}")
    say(total + (guess if unknown < sum(line.left for line in planned) else "") + rest)


def _told(reports: list[Report], folder: Path, as_json: bool) -> None:
    """The figures and where they lie; raises `InputError` where not one question has an episode."""
    if as_json:
        for found in reports:
            emit(found.to_json())
    else:
        out().print(plain((folder / "report.md").read_text(encoding="utf-8")), soft_wrap=True)
    for note in dict.fromkeys(note for found in reports for note in found.notes):
        say(note)
    say(f"{folder / 'report.html'}; figures and episodes beside it")
    if not any(row.episode_id for found in reports for row in found.scored):
        why = next((row.error for found in reports for row in found.scored if row.error), "no question was left")
        raise InputError(f"expected at least one question with an episode, found none: {why}")


def _leave(reports: list[Report]) -> None:
    """Exit as an error would when all episodes ended in one: those figures are of no policy."""
    ended = [row for found in reports for row in found.scored if row.episode_id]
    if all(row.stop == "error" for row in ended):
        say(f"error: all {len(ended)} episodes ended in an error, the first in {ended[0].error}")
        raise typer.Exit(code_in(ended[0].error))


def typed() -> str:
    """The command as it was typed, for the run card."""
    return shlex.join(["sleuth", *sys.argv[1:]])


def compare(
    runs: Annotated[
        list[str], typer.Argument(help="Results: folders, report.json files, PATH#RUN for one run, or episode files.")
    ],
    metrics: Annotated[list[str] | None, typer.Option("--metric", help="Only this metric; may be repeated.")] = None,
    slices: Annotated[bool, typer.Option(help="Also by hops, type, length, popularity and kind of answer.")] = True,
    benchmark: Annotated[str, typer.Option(help="With episode files: what they answer.")] = "",
    data: DataOption = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap and of the test.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Compare runs over the questions they share with the first one: difference, interval, p, corrected p, by slice.

    Example: sleuth compare runs/eval#naive-rag runs/eval#decompose --metric f1 --metric em
    """
    from sleuth.eval import compare as comparing

    sources = {run: _reports(run, benchmark, data) for run in runs}
    lines = comparing.compare_all(
        comparing.paired_up(sources), metrics=metrics or (), by_slice=metrics or (), seed=seed
    )
    shown = [line for line in lines if slices or line.dimension == comparing.ALL]
    if as_json:
        for row in comparing.to_json(shown):
            emit(row)
        return
    for (name, ours, base), found in comparing.pairs(shown).items():
        title = f"{name}: {ours} minus {base}"
        table(comparing.HEAD, [comparing.cells(line) for line in found], title=title)
    out().print(comparing.NOTE)


def _reports(source: str, benchmark: str, data: Path | None) -> list[Report]:
    from sleuth.eval.compare import read_reports
    from sleuth.eval.run import rescore_files

    if not source.endswith(".jsonl"):
        return read_reports(source)
    if not benchmark:
        raise InputError(f"{source}: an episode file holds no gold answers; name its questions with --benchmark")
    return rescore_files(benchmark, [source], data=data)


def export(
    format: Annotated[str, typer.Argument(help="trec, flashrag, browsecomp-plus or deepresearch-bench.")],
    episodes: Annotated[Path, typer.Argument(help="An episode file.")],
    to: Annotated[Path | None, typer.Option("--out", help="File or folder; beside the episodes by default.")] = None,
    benchmark: Annotated[str, typer.Option(help="What the episodes answer; flashrag needs its gold answers.")] = "",
    data: DataOption = None,
    store: Annotated[Path | None, typer.Option(help="The datastore, for the addresses of what is cited.")] = None,
) -> None:
    """Write episodes in the shape that another tool or leaderboard reads.

    Example: sleuth export trec runs/eval/decompose.jsonl --out decompose.trec
    """
    from sleuth.eval.benchmarks import benchmark as find
    from sleuth.eval.exports import formats
    from sleuth.retrieval.store import Datastore

    chosen, path = find(benchmark) if benchmark else (None, None)
    tasks = chosen.load(path or data, say) if chosen else []
    opened = Datastore.open(store) if store else None

    def url(doc_id: str) -> str:
        try:
            return opened.document(doc_id).url if opened else ""
        except KeyError:
            return ""

    print(formats.export(format, episodes, to, tasks=tasks, urls=url))
