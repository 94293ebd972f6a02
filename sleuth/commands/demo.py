"""The demo: raw pages in, a datastore, two two-hop questions, answers whose citations were checked."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sleuth.commands.asking import ADAPTER, AdapterOption, PolicyOption, adapter_of, leave
from sleuth.commands.stores import build_store, show_report
from sleuth.corpora.errors import InputError
from sleuth.exits import CODES
from sleuth.terminal import out, say

if TYPE_CHECKING:
    from sleuth.agents.records import Episode
    from sleuth.session import Session

HOME = Path(__file__).resolve().parents[2] / "recipes" / "demo"
"""In a checkout; a wheel does not hold the demo's pages."""


def demo(
    folder: Annotated[Path, typer.Option("--out", help="The store and the episodes go here.")] = Path(".demo"),
    home: Annotated[Path, typer.Option("--pages", help="The demo's folder.", show_default="recipes/demo")] = HOME,
    policy: PolicyOption = "embedded",
    adapter: AdapterOption = ADAPTER,
    every: Annotated[bool, typer.Option("--all", help="All questions of the demo, not two.")] = False,
) -> None:
    """Build a store from real encyclopedic pages and answer two two-hop questions, live. Needs a checkout.

    Example: sleuth demo --out .demo
    """
    from sleuth.session import Session

    if not (home / "pages").is_dir():
        raise InputError(f"{home / 'pages'}: no such folder; expected the demo's pages, which a checkout has")
    rows = [json.loads(line) for line in (home / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    chosen = rows if every else [row for row in rows if row.get("shown")]
    started = time.monotonic()
    store, episodes = folder / "store", folder / "episodes.jsonl"
    show_report(build_store([home / "pages"], store))
    session = Session.open(store, policy=policy, adapter=adapter_of(adapter))
    answered = asyncio.run(_ask(session, chosen, episodes, started, every))
    say("")
    say(f"{len(answered)} answers in {time.monotonic() - started:.0f} s. Go on with:")
    say(f"  sleuth show {episodes}")
    say(f"  sleuth verify {episodes} {store}")
    say(f'  sleuth ask {store} "..."')
    for episode in answered:
        leave(episode)


async def _ask(
    session: Session, rows: list[dict[str, Any]], file: Path, started: float, compare: bool
) -> list[Episode]:
    """The questions one after another, each shown live, its citations recomputed from the store."""
    from sleuth import view
    from sleuth.agents import cite

    done = []
    for row in rows:
        out().print(f"\n{row['question']}", style="bold cyan")
        episode = await session.ask(row["question"], on_step=view.Live().step, out=file)
        checks = cite.verify(episode, session.store)
        out().print(view.answer(episode, session.urls(episode), checks))
        if compare:
            out().print(f"  expected: {row['answers'][0]}", style="dim")
        say(f"{view.spent(episode)}; {time.monotonic() - started:.0f} s since the start")
        if not all(check.holds for check in checks):
            raise typer.Exit(CODES["verification"])
        done.append(episode)
    await session.aclose()
    return done
