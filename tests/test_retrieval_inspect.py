"""What inspect says adds up, and the commands show it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sleuth.cli import app
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.retrieval import plan, recall
from sleuth.retrieval.build import BuildSpec, build
from sleuth.retrieval.inspect import describe, frontier
from sleuth.retrieval.recall import Point
from tests.retrieval_stores import corpus, use_hash_embedder


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_hash_embedder(monkeypatch)
    monkeypatch.setattr(recall, "NUM_QUERIES", 8)
    build(corpus(140), tmp_path / "s", BuildSpec("hash", max_words=60))
    return tmp_path / "s"


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_parts_are_the_files_and_the_index_is_told(store: Path) -> None:
    found = describe(store)
    files = sum(path.stat().st_size for path in (store / "segments").rglob("*") if path.is_file())
    assert sum(found.parts.values()) == files and found.index == "none" and found.curve == ()
    assert found.memory == found.passages * (4 + 2 * 64)
    report = json.loads(run("index", str(store), "--kind", "pq", "--recall", "0.9", "--json"))
    found = describe(store)
    assert (found.index, found.indexed, found.recall) == (f"pq{report['width']}", found.passages, report["recall"])
    assert found.parts["index"] == sum(p.stat().st_size for p in (store / "index").rglob("*") if p.is_file())
    assert json.loads(run("inspect", str(store), "--json"))["curve"][0]["recall"] == found.curve[0].recall
    build([*corpus(140), *corpus(150)[140:]], store, BuildSpec("hash", max_words=60))
    assert describe(store).indexed < describe(store).passages == describe(store).rows


def test_tables_and_plots_are_shown(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "all vectors are compared" in run("inspect", str(store))
    assert "compared exactly" in run("index", str(store))
    with pytest.raises(InputError, match=r"vectors are few enough to be compared exactly; there is no curve"):
        run("inspect", str(store), "--plot", str(tmp_path / "c.svg"))
    monkeypatch.setattr(plan, "FLAT_BYTES", 1000)
    with pytest.raises(InputError, match="no index with a curve; `sleuth index"):
        run("inspect", str(store), "--plot", str(tmp_path / "c.svg"))
    assert "recall@10" in run("index", str(store), "--kind", "rabitq")
    shown = run("inspect", str(store), "--plot", str(tmp_path / "c.svg"))
    assert "bytes/passage" in shown and "default" in shown and "rabitq4" in shown
    assert "<svg" in (tmp_path / "c.svg").read_text()
    run("inspect", str(store), "--plot", str(tmp_path / "c.png"))
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"ends in \.png or \.svg, found '\.gif'"):
        run("inspect", str(store), "--plot", "c.gif")
    with pytest.raises(ConfigError, match=r"unknown kind of index 'ivf'; known: flat, sq8, rabitq, pq"):
        run("index", str(store), "--kind", "ivf")


def test_the_frontier_leaves_out_what_is_slower_and_no_better() -> None:
    points = [Point(1, 1, 0.5, 1.0), Point(2, 1, 0.5, 2.0), Point(2, 2, 0.8, 2.0), Point(4, 1, 0.7, 3.0)]
    assert frontier(points) == [points[0], points[2]]
