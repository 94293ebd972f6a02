"""Learning: adapters trained from a recipe, and a policy served to others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sleuth.commands.asking import ADAPTER, AdapterOption, PolicyOption, adapter_of
from sleuth.corpora.errors import ConfigError
from sleuth.terminal import emit, say


def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file, such as recipes/first.toml.")],
    folder: Annotated[Path, typer.Option("--out", help="The adapter, its log and checkpoints go here.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with qa/ and corpora/, for a recipe that names question sets."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="In place of the recipe's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A line of figures per step as NDJSON on stdout.")] = False,
) -> None:
    """Train an adapter as a recipe says, from examples or from rewards; it is then what --adapter takes.

    At rank 0 all weights are trained, and the folder is what --policy takes. A recipe with [reranker] makes what
    --reranker takes.

    Rows that figures are reported on never enter. Example: sleuth train recipes/fictional.toml --out runs/fictional
    """
    from sleuth.training.recipe import run

    known = str(data) if data is not None else None
    record = emit if as_json else lambda line: None
    adapter = run(str(recipe), str(folder), known, resume=resume, progress=say, seed=seed, record=record)
    if as_json:
        emit({"adapter": str(adapter)})
    else:
        print(adapter)


def serve_policy(
    policy: PolicyOption = "embedded",
    adapter: AdapterOption = ADAPTER,
    host: Annotated[str, typer.Option(help="Loopback only, unless SLEUTH_SERVE_KEY holds a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8700,
    adapters: Annotated[
        bool, typer.Option("--adapters", help="Let a trainer load adapters from folders of this machine.")
    ] = False,
) -> None:
    """Serve a policy as an OpenAI-compatible endpoint (chat completions), for other tools and machines.

    Requests name the model as /v1/models lists it, or sleuth; with --adapters any name goes.

    Example: sleuth serve-policy --port 8700, then elsewhere: sleuth ask store "..." --policy http://127.0.0.1:8700/v1#sleuth
    """
    from sleuth.agents.policy import open_policy
    from sleuth.serve_policy import bind, serve

    if policy.startswith(("http://", "https://")):
        raise ConfigError(f"serve-policy serves a model of this machine; found the address {policy}")
    sockets = bind(host, port)
    serve(open_policy(policy, adapter=adapter_of(adapter)), sockets, adapters)
