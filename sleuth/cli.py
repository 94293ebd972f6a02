"""The command line is the first door: a thin layer that reads arguments, calls one verb, and prints what came back.

Results go to stdout, progress to stderr, ``--json`` gives NDJSON, and an expected failure ends in one line that starts
with ``error:`` and an exit code of the table in `exits`, wrong usage in typer's box. Anything heavy is imported
inside a command.
"""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from sleuth import exits
from sleuth.commands import (
    asking,
    benchmarks,
    cleaning,
    crawling,
    demo,
    deriving,
    episodes,
    evaluating,
    growing,
    indexing,
    judging,
    learning,
    machine,
    serving,
    stores,
    stressing,
    synthesising,
    tuning,
)
from sleuth.corpora.errors import SleuthError

HELP = """Answer hard questions from your own documents, with every citation checked.

[bold]sleuth setup[/]                              fetch the embedded models, once
[bold]sleuth build docs/ --out store[/]            index a folder
[bold]sleuth ask store "Who designed ...?"[/]      plan, search, read, answer, cite
"""
STDOUT = 1
"""The descriptor."""
GO_ON = {
    "build": ": the same command goes on where it stopped",
    "eval": ": what was answered is kept, and the same command with --resume goes on",
    "train": ": the same command with --resume goes on from the last checkpoint",
}
app = typer.Typer(
    name="sleuth",
    help=HELP,
    epilog="Exit codes: sleuth help exit-codes. Results go to stdout, progress to stderr; --json gives NDJSON.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(rich_help_panel="Answers")(demo.demo)
app.command(rich_help_panel="Answers")(asking.ask)
app.command(rich_help_panel="Answers")(episodes.show)
app.command(rich_help_panel="Answers")(episodes.verify)
app.command(rich_help_panel="Datastores")(crawling.crawl)
app.command(rich_help_panel="Datastores")(stores.build)
app.command(name="train-quality", rich_help_panel="Datastores")(cleaning.train_quality)
app.command(rich_help_panel="Datastores")(stores.search)
app.command(rich_help_panel="Datastores")(stores.sql)
app.command(rich_help_panel="Datastores")(indexing.index)
app.command(rich_help_panel="Datastores")(indexing.inspect)
app.command(rich_help_panel="Datastores")(deriving.derive)
app.command(rich_help_panel="Datastores")(deriving.triples)
app.command(name="tune-embedder", rich_help_panel="Datastores")(tuning.tune_embedder)
app.command(name="tune-router", rich_help_panel="Datastores")(tuning.tune_router)
app.command(rich_help_panel="Datastores")(growing.add)
app.command(rich_help_panel="Datastores")(growing.delete)
app.command(rich_help_panel="Datastores")(growing.compact)
app.command(rich_help_panel="Datastores")(growing.snapshots)
app.command(rich_help_panel="Datastores")(serving.serve)
app.command(rich_help_panel="Answers")(serving.mcp)
app.command(name="eval", rich_help_panel="Evaluation")(evaluating.evaluate)
app.command(rich_help_panel="Evaluation")(evaluating.compare)
app.command(rich_help_panel="Evaluation")(evaluating.export)
app.command(rich_help_panel="Evaluation")(benchmarks.benchmarks)
app.command(rich_help_panel="Evaluation")(benchmarks.rank)
app.command(rich_help_panel="Evaluation")(judging.judge)
app.command(name="make-benchmark", rich_help_panel="Evaluation")(synthesising.make_benchmark)
app.command(rich_help_panel="Evaluation")(stressing.stress)
app.command(name="make-tasks", rich_help_panel="Learning")(synthesising.make_tasks)
app.command(rich_help_panel="Learning")(learning.train)
app.command(name="serve-policy", rich_help_panel="Learning")(learning.serve_policy)
app.command(rich_help_panel="This machine")(machine.setup)
app.command(rich_help_panel="This machine")(machine.doctor)
app.command(rich_help_panel="This machine")(machine.version)


@app.command(name="help", rich_help_panel="This machine")
def topics(topic: Annotated[str, typer.Argument(help="exit-codes")] = "exit-codes") -> None:
    """Explain a topic. Example: sleuth help exit-codes"""
    from sleuth.corpora.errors import ConfigError
    from sleuth.terminal import table

    if topic != "exit-codes":
        raise ConfigError(f"no help topic {topic!r}; known: exit-codes")
    table(("code", "name", "meaning"), exits.TABLE, title="Exit codes")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait starve other programs
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if isinstance(sys.stdout, io.TextIOWrapper):  # what its encoding has no sign for is escaped, as on stderr
        sys.stdout.reconfigure(errors="backslashreplace")
    given = list(sys.argv[1:] if arguments is None else arguments)
    code: Any = 0
    with open(os.dup(STDOUT) if sys.stdout else os.devnull, "wb") as watched:  # rich closes what its reader has left
        try:
            code = _run(given)
            print(end="", flush=True)
        except BrokenPipeError:
            if not _reader_gone(watched.fileno()):
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)  # for what the interpreter still flushes
    sys.exit(code)


def _run(arguments: list[str]) -> Any:
    """The exit code of one command."""
    try:
        app(args=arguments, prog_name="sleuth")
    except SleuthError as error:
        _fail(f"error: {error}")
        return exits.code_of(error)
    except SystemExit as left:
        if isinstance(left.__context__, BrokenPipeError):  # typer and rich leave with 1 at any pipe that breaks
            raise left.__context__ from None
        command = arguments[0] if arguments else ""
        if left.code == exits.CODES["interrupted"] and command != "ask":  # which names its episode's file
            _fail(f"interrupted{GO_ON.get(command, '')}")
        return left.code


def _reader_gone(descriptor: int) -> bool:
    """Whether nobody reads our stdout any more, as after `head`; a pipe that breaks elsewhere is a defect."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _fail(message: str) -> None:
    from sleuth.terminal import plain

    print(plain(message), file=sys.stderr)


if __name__ == "__main__":
    main()
