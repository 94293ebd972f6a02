"""The docs say what is: links lead somewhere, the files and tests that are named exist, shown commands are commands."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from sleuth import cli

ROOT = Path(__file__).parent.parent
PAGES = [
    "README.md",
    "AGENTS.md",
    "llms.txt",
    "CHANGELOG.md",
    *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [t.partition("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in t]
    assert [t for t in targets if t and not ((ROOT / page).parent / t).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:corpora|retrieval|agents|eval|training|sleuth|recipes|docs|tests|bench)/[\w./-]*)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_each_row_of_the_papers_names_a_test_that_exists() -> None:
    rows = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8").splitlines()
    named = [re.findall(r"`(test_\w+\.py)` `(test_\w+)`", row) for row in rows if row.startswith("| ")][1:]
    assert all(named[1:]), "a row without a test"
    missing = [
        f"{file}: {test}"
        for row in named
        for file, test in row
        if f"def {test}(" not in (ROOT / "tests" / file).read_text(encoding="utf-8")
    ]
    assert missing == []


def shown_commands(page: str) -> list[list[str]]:
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if re.match(r"(\$ )?sleuth ", line)]
    return [shlex.split(line.removeprefix("$ "), comments=True)[1:] for line in lines]


def test_the_readmes_commands_are_commands() -> None:
    known = get_command(cli.app).commands  # type: ignore[attr-defined]
    shown = shown_commands("README.md")
    assert shown
    for name, *arguments in shown:
        options = {o for p in known[name].params for o in p.opts}
        assert [a for a in arguments if re.match(r"-{1,2}[a-z]", a) and a not in options] == [], (name, arguments)


def test_the_demo_names_pages_that_are_there_and_two_questions_to_show() -> None:
    home = ROOT / "recipes" / "demo"
    rows = [json.loads(line) for line in (home / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) >= 10 and sum(bool(row.get("shown")) for row in rows) == 2
    for row in rows:
        texts = [(home / page).read_text(encoding="utf-8") for page in row["supporting"]]
        assert len(texts) == 2
        assert any(answer.lower() in text.lower() for answer in row["answers"] for text in texts), row["id"]


def test_every_demo_page_names_its_article_and_licence() -> None:
    for page in (ROOT / "recipes" / "demo" / "pages").iterdir():
        text = page.read_text(encoding="utf-8")
        assert 'rel="canonical" href="https://en.wikipedia.org/wiki/' in text, page.name
        assert re.search(r"CC BY-SA [34]\.0\.</footer>", text), page.name
