"""What the command line says before any store or model is there: help, exit codes, filters, plain text, progress."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sleuth import cli, exits
from sleuth.agents.records import PolicyError
from sleuth.commands.stores import where_of
from sleuth.corpora.errors import ConfigError, InputError, ModelError, SleuthError, StoreError
from sleuth.terminal import emit, plain, progress, table

ROOT = Path(__file__).parent.parent
COMMANDS = "demo ask show verify build search sql eval train serve-policy setup doctor version help".split()


def leave(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    return int(left.value.code or 0)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave("--help") == 0
    said = capsys.readouterr().out
    assert [name for name in COMMANDS if name not in said] == []


@pytest.mark.parametrize("name", [c for c in COMMANDS if c != "help"])
def test_every_command_teaches_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(name, "--help") == 0
    assert f"sleuth {name}" in " ".join(capsys.readouterr().out.split())


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, contextlib\nfrom sleuth import cli\n"
        "with contextlib.suppress(SystemExit):\n    cli.main(['--help'])\n"
        "heavy = [n for n in ('torch', 'numpy', 'transformers', 'langgraph', 'faiss', 'duckdb') if n in sys.modules]\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave("version") == 0
    assert capsys.readouterr().out.startswith("sleuth 0.")


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave("aks") == 2
    assert "aks" in capsys.readouterr().err


def test_the_exit_codes_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave("help", "exit-codes") == 0
    said = capsys.readouterr().out
    assert all(str(row.code) in said and row.name in said for row in exits.TABLE)


def test_the_readme_shows_the_same_exit_codes() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [row for row in exits.TABLE if f"| {row.code} | {row.name} | {row.meaning} |" not in readme] == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("x"), 3),
        (StoreError("x"), 4),
        (PolicyError("timeout", "x"), 5),
        (ModelError("x"), 6),
        (ConfigError("x"), 8),
        (SleuthError("x"), 1),
    ],
)
def test_each_kind_of_error_has_its_code(
    error: SleuthError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fails)
    assert leave("anything") == code
    assert capsys.readouterr().err == "error: x\n"


@pytest.mark.parametrize(
    ("command", "where", "said"),
    [
        ("build x --out y", "sleuth.commands.stores.build_store", "the same command goes on"),
        ("eval hotpotqa_s --store x", "sleuth.eval.run.run", "the same command with --resume goes on"),
        ("train x.toml --out y", "sleuth.training.recipe.run", "the same command with --resume goes on"),
    ],
)
def test_an_interrupt_has_its_code_and_says_how_to_go_on(
    command: str, where: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(where, interrupted)
    assert leave(*command.split()) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("interrupted: ") and said in line


@pytest.mark.parametrize("last", ["emit({'title': 'x' * 99})", "out().print('x' * 99)", "print('x')"])
def test_a_reader_that_goes_away_is_no_failure(last: str) -> None:
    code = (
        "import os\nfrom sleuth import cli\nfrom sleuth.terminal import emit, out\n"
        f"def gone() -> None:\n    os.read(0, 1)\n    {last}\n"
        "cli.app.command(name='gone')(gone)\ncli.main(['gone'])"
    )
    wait, go = os.pipe()
    done = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=wait, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert done.stdout is not None and done.stderr is not None
    done.stdout.close()
    os.write(go, b".")
    assert (done.wait(), done.stderr.read()) == (0, "")


def test_a_pipe_that_breaks_elsewhere_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise BrokenPipeError("a worker's")

    monkeypatch.setattr("sleuth.commands.stores.build_store", breaks)
    with pytest.raises(BrokenPipeError, match="a worker's"):
        cli.main(["build", "x", "--out", "y"])


def test_what_an_encoding_lacks_is_escaped() -> None:
    code = (
        "from sleuth import cli\nfrom sleuth.terminal import emit, out\n"
        "def tell() -> None:\n    emit({'title': 'é→😀'})\n    out().print('é→')\n    print('ü→')\n"
        "cli.app.command(name='tell')(tell)\ncli.main(['tell'])"
    )
    env = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, check=False)
    first, *rest = done.stdout.decode("latin-1").splitlines()
    assert (done.returncode, json.loads(first), rest) == (0, {"title": "é→😀"}, ["é\\u2192", "ü\\u2192"]), done.stderr


def test_conditions_become_a_filter() -> None:
    assert where_of(None) is None
    assert where_of(["source=wiki", "year>=1990", "year<2000", "lang=en|de", "ok=true", "name=a=b"]) == {
        "source": "wiki",
        "year": {">=": 1990, "<": 2000},
        "lang": ["en", "de"],
        "ok": True,
        "name": "a=b",
    }
    assert where_of(['code="7"', "n=null"]) == {"code": "7", "n": None}


@pytest.mark.parametrize("conditions", [["year"], ["=3"], ["a=1", "a=2"], ["a=1", "a>2"]])
def test_a_condition_that_cannot_be_read_is_named(conditions: list[str]) -> None:
    with pytest.raises(InputError, match="--where"):
        where_of(conditions)


def test_pages_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b[2Jb\x07c\u202ed\x9be\ttab\nline [bold]x[/bold]"
    assert plain(hostile) == "a[2Jbcde\ttab\nline [bold]x[/bold]"
    table(("text",), [(hostile,)])
    said = capsys.readouterr().out
    assert "\x1b" not in said and "[bold]x[/bold]" in said


def test_json_lines_keep_their_letters(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"title": "Atbarah → Nile", "n": 1})
    assert capsys.readouterr().out == '{"title": "Atbarah → Nile", "n": 1}\n'
    emit({"title": "name \udcff"})
    assert capsys.readouterr().out == '{"title": "name \\udcff"}\n'


def test_progress_in_a_pipe_is_a_line_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as tell:
        for done in range(11):
            tell("embed", done, 10)
            tell("embed", 10, 10)
    streams = capsys.readouterr()
    assert streams.out == "" and streams.err == "embed: 10 of 10\n"
