"""Asking: one question, one episode, shown live and written before anything else is said about it."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sleuth.agents.records import Budget, Episode, Sampling, Step, to_json
from sleuth.agents.strategy import DEFAULT, STRATEGIES, Strategy, strategy
from sleuth.corpora.errors import ConfigError
from sleuth.exits import code_named
from sleuth.terminal import emit, out, say

if TYPE_CHECKING:
    from sleuth.session import Session

NAMES = ", ".join(STRATEGIES)
OUT = Path("runs/ask.jsonl")
ADAPTER = "default"
PolicyOption = Annotated[
    str, typer.Option(help="embedded, a model folder or hub id, or URL#model for an OpenAI-compatible server.")
]
AdapterOption = Annotated[
    str,
    typer.Option(help="LoRA adapter of a local model: a name of ours, a folder, none, or default (ours, if embedded)."),
]
RerankerOption = Annotated[
    str | None,
    typer.Option(
        help="What reads hits again: shipped, a cross-encoder's folder or id, an adapter's folder, or none. "
        "By default as the strategy says."
    ),
]


def planned(names: Sequence[str], reranker: str | None) -> list[Strategy]:
    """The strategies named, with what ``--reranker`` says for those that search; `ConfigError` if none does."""
    plans = [strategy(name) for name in names]
    if reranker is None:
        return plans
    if not any(plan.retrieve for plan in plans):
        raise ConfigError(f"--reranker {reranker}: expected a strategy that searches, found {', '.join(names)}")
    spec = "" if reranker == "none" else reranker
    return [dataclasses.replace(plan, rerank=spec) if plan.retrieve else plan for plan in plans]


def adapter_of(name: str) -> str | None:
    """What ``--adapter`` means to `open_policy`."""
    return None if name == "none" else name


def ask(
    store: Annotated[Path, typer.Argument(help="A datastore, made by `sleuth build`, or a sources file.")],
    question: Annotated[str, typer.Argument(help="The question; - reads it from stdin.")],
    policy: PolicyOption = "embedded",
    adapter: AdapterOption = ADAPTER,
    plan: Annotated[str, typer.Option("--strategy", help=f"One of {NAMES}.")] = DEFAULT,
    reranker: RerankerOption = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same episode on one machine.")] = 0,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.0,
    searches: Annotated[int, typer.Option(min=0, help="Most searches.")] = 12,
    tokens: Annotated[int, typer.Option(min=1, help="Most tokens, prompts and replies together.")] = 60_000,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Most seconds; no limit by default.")] = None,
    file: Annotated[Path, typer.Option("--out", help="The episode is appended here.")] = OUT,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the same run where it was stopped.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No live trace.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The episode as one JSON object on stdout.")] = False,
) -> None:
    """Answer a question from a datastore, citing checked quotes. The whole run is kept as an episode.

    A spent budget still gives the best answer so far; of a server that does not count tokens, four characters are one.
    A key for a remote policy comes from SLEUTH_POLICY_KEY; where that is not set, api.openai.com, and no other server,
    gets OPENAI_API_KEY.

    Example: sleuth ask store "Who illustrated the novel that E. B. White published in 1952?"
    """
    from sleuth import view
    from sleuth.agents import cite
    from sleuth.session import Session

    if question == "-":
        question = sys.stdin.read()
    session = Session.open(
        store,
        policy=policy,
        adapter=adapter_of(adapter),
        strategy=planned([plan], reranker)[0],
        budget=Budget(searches=searches, tokens=tokens, seconds=seconds),
        sampling=Sampling(temperature=temperature),
        seed=seed,
    )
    live = None if quiet else view.Live().step
    try:
        episode = asyncio.run(answered(session, question, live, file, resume))
    except KeyboardInterrupt:
        say(f"interrupted: the episode so far is in {file}; the same command with --resume goes on")
        raise
    if as_json:
        emit(to_json(episode))
    else:
        out().print(view.answer(episode, session.urls(episode), cite.verify(episode, session.store)))
    say(f"{view.spent(episode)} · episode {episode.id} in {file}")
    leave(episode)


async def answered(
    session: Session, question: str, live: Callable[[Step], None] | None, file: Path, resume: bool = False
) -> Episode:
    """One question, after which the policy's connections are closed."""
    try:
        return await session.ask(question, on_step=live, out=file, resume=resume)
    finally:
        await session.aclose()


def leave(episode: Episode) -> None:
    """Exit as an error would when the run ended in one; the episode that was written says the rest."""
    if episode.stop == "error":
        say(f"error: {episode.error}")
        raise typer.Exit(code_in(episode.error))


def code_in(error: str) -> int:
    """The exit code for an episode's error, which names its class after the place it arose in."""
    return code_named(error.split(": ")[1].partition("(")[0])
