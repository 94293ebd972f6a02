"""From recipe to store: accounted, gone on with, the same by workers and on Ray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sleuth.corpora import corpus
from sleuth.corpora.errors import ConfigError
from sleuth.retrieval import build as building
from sleuth.retrieval import grow
from sleuth.retrieval.build import BuildSpec, build
from sleuth.retrieval.recipe import build_recipe
from sleuth.retrieval.store import Datastore
from tests.retrieval_stores import HashEmbedder, use_hash_embedder

RECIPE = """
name = "tiny"
stages = ["length", "near"]
[sources.left]
paths = ["left"]
[sources.right]
paths = ["right"]
[stage.length]
min_words = 3
[store]
segment_documents = 8
max_words = 60
[shards]
files = 4
"""


def written(folder: Path) -> Path:
    for name in ("left", "right"):
        (folder / name).mkdir(exist_ok=True)
        for n in range(14):
            words = " ".join(f"{name}{n}of{k}" for k in range(30))
            (folder / name / f"{n:02d}.txt").write_text("no" if n == 5 else f"Castle {n} of {name}: {words}.")
    (folder / "left" / "rows.jsonl").write_text(
        "".join(json.dumps({"id": id_, "text": f"A row about {text} and {text}."}) + "\n"
                for id_, text in (("a", "one"), ("a", "two"), ("bad#1", "three")))
    )  # fmt: skip
    (folder / "recipe.toml").write_text(RECIPE)
    return folder / "recipe.toml"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    use_hash_embedder(monkeypatch)
    monkeypatch.setattr("sleuth.retrieval.job.embedder", lambda spec, device: HashEmbedder())
    for module in (corpus, building):
        monkeypatch.setattr(module, "run_all",
                            lambda function, jobs, died, workers, engine: ((j, function(j)) for j in jobs))  # fmt: skip


def test_what_the_store_refuses_is_in_the_account_of_its_source(tmp_path: Path, here: None) -> None:
    made = build_recipe(written(tmp_path), tmp_path / "store")
    left, right = (made.account.sources[name] for name in ("left", "right"))
    assert (left.inputs, left.documents, left.by_stage()) == (17, 14, {"length": 1, "dedup": 1, "chunk": 1})
    assert (right.inputs, right.documents, right.by_stage()) == (14, 13, {"length": 1})
    assert (sum(left.histogram), sum(right.histogram)) == (14, 13)
    assert made.build.documents == 27 and len(Datastore.open(tmp_path / "store").manifest.segments) == 4
    for file in made.files:
        assert Path(file).stat().st_size > 100
    assert len(Path(made.files[-1]).read_text().splitlines()) == left.drops + right.drops


def test_workers_make_the_same_store_and_a_changed_input_changes_that_alone(tmp_path: Path, here: None) -> None:
    one = build_recipe(written(tmp_path), tmp_path / "one")
    two = build_recipe(tmp_path / "recipe.toml", tmp_path / "two", workers=2)
    assert (one.corpus, one.build.fingerprint) == (two.corpus, two.build.fingerprint)
    (tmp_path / "right" / "03.txt").write_text("A wholly new account of a glacier.")
    (tmp_path / "right" / "99.txt").write_text("One more page about a desert.")
    again = build_recipe(tmp_path / "recipe.toml", tmp_path / "two", workers=2)
    assert (again.build.added, again.build.updated, again.build.documents) == (2, 1, 28)
    fresh = build_recipe(tmp_path / "recipe.toml", tmp_path / "fresh")
    assert grow.content_digest(tmp_path / "fresh") == grow.content_digest(tmp_path / "two")
    assert fresh.corpus == again.corpus


def test_parts_end_at_so_much_text_too_and_the_store_is_the_same(
    tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build_recipe(written(tmp_path), tmp_path / "whole")
    monkeypatch.setattr(corpus, "PART_CHARS", 1_000)
    parted = build_recipe(tmp_path / "recipe.toml", tmp_path / "parted")
    parts = sorted(path.parent.parent.name for path in tmp_path.rglob("part-*.parquet"))
    assert parts.count("whole.work") == 1 and 6 < parts.count("parted.work") < 12
    assert parted.build.fingerprint == whole.build.fingerprint
    assert grow.content_digest(tmp_path / "parted") == grow.content_digest(tmp_path / "whole")
    assert parted.account.to_json() == whole.account.to_json()


def test_a_recipe_that_is_refused_makes_nothing(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(RECIPE.replace("max_words", "maxwords"))
    with pytest.raises(ConfigError, match="did you mean 'max_words'"):
        build_recipe(path, tmp_path / "store")
    assert {entry.name for entry in tmp_path.iterdir()} == {"left", "right", "recipe.toml"}


def test_two_workers_embed_to_the_same_bytes(tmp_path: Path) -> None:
    from tests.retrieval_stores import corpus as documents

    spec = BuildSpec(embedder="static", segment_documents=6)
    expected = build(documents(14), tmp_path / "one", spec).fingerprint
    assert build(documents(14), tmp_path / "two", spec, workers=2).fingerprint == expected
