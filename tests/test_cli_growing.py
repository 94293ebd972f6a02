"""Stores that grow, and recipes, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sleuth import cli
from sleuth.corpora import corpus
from tests.retrieval_stores import HashEmbedder, use_hash_embedder


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_hash_embedder(monkeypatch)
    monkeypatch.setattr("sleuth.retrieval.job.embedder", lambda spec, device: HashEmbedder())
    monkeypatch.setattr(corpus, "run_all", lambda function, jobs, died, *rest: [(job, function(job)) for job in jobs])
    monkeypatch.chdir(tmp_path)
    Path("pages").mkdir()
    for n in range(5):
        Path(f"pages/{n}.txt").write_text(f"Page {n} tells of whales and of ships that met them, number {n}.")


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    cli.app(args=[*arguments, "--json"], standalone_mode=False)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_store_is_added_to_deleted_from_compacted_and_restored(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "build", "pages", "--out", "store")[0]["documents"] == 5
    Path("pages/1.txt").write_text("A page that tells another story.")
    Path("pages/9.txt").write_text("One more page.")
    (added,) = told(capsys, "add", "store", "pages")
    assert (added["added"], added["updated"], added["documents"]) == (2, 1, 6)
    assert [s["name"] for s in told(capsys, "snapshots", "store", "--pin", "june")] == ["", "june"]
    Path("gone.txt").write_text("pages/0.txt\nnobody\n")
    (deleted,) = told(capsys, "delete", "store", "--id", "pages/2.txt", "--ids", "gone.txt")
    assert (deleted["deleted"], deleted["missing"], deleted["documents"]) == (2, ["nobody"], 4)
    (compacted,) = told(capsys, "compact", "store")
    assert (compacted["segments_before"], compacted["segments"], compacted["removed"]) == (2, 1, 3)
    current, _ = told(capsys, "snapshots", "store", "--restore", "june")
    assert current["documents"] == 6


def test_separators_within_an_id_end_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": f"{n}\u2028\x85row", "text": f"Row {n} tells of whales."} for n in range(2)]
    rows.append({"id": "x\u2028y", "text": " "})
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cli.app(args=["build", "rows.jsonl", "--out", "store"], standalone_mode=False)
    assert "the text is empty" in capsys.readouterr().err
    Path("gone.txt").write_text(f"{rows[1]['id']}\n", encoding="utf-8")
    (deleted,) = told(capsys, "delete", "store", "--ids", "gone.txt")
    assert (deleted["deleted"], deleted["missing"]) == (1, [])


def test_a_recipe_prints_its_account(capsys: pytest.CaptureFixture[str]) -> None:
    Path("r.toml").write_text('name = "whales"\nstages = ["near"]\n[sources.all]\npaths = ["pages"]\n')
    Path("pages/copy.txt").write_text(Path("pages/3.txt").read_text())
    (made,) = told(capsys, "build", "r.toml", "--out", "store")
    source = made["sources"]["all"]
    assert source["inputs"] == 6 == source["documents"] + sum(reason["count"] for reason in source["reasons"])
    assert all(Path(file).exists() for file in made["files"])


def test_nothing_to_delete_is_an_error() -> None:
    told_to = ["delete", "store"]
    with pytest.raises(SystemExit) as ended:
        cli.main(told_to)
    assert ended.value.code not in (0, 1)
