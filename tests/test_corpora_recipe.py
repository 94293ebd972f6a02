"""Recipes: what they refuse, what becomes of every input, mixing, and interruptions that change nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sleuth.corpora import corpus, mix, report, shards
from sleuth.corpora.errors import ConfigError, InputError, StoreError
from sleuth.corpora.files import locked
from sleuth.corpora.pool import run_all
from sleuth.corpora.recipe import Recipe, Source, load

STORE_KEYS = ("embedder", "max_words", "language", "title_weight", "segment_documents")
FILLER = "the harbour master wrote a long account of ships that came and went in those years"


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards run in this process: workers are tested beside the pool."""
    monkeypatch.setattr(
        corpus, "run_all", lambda function, jobs, died, workers=0, engine="local": [(j, function(j)) for j in jobs]
    )


def recipe(folder: Path, text: str = "") -> Recipe:
    for name, count in (("ships", 30), ("lights", 12)):
        (folder / name).mkdir(exist_ok=True)
        tails = [" ".join(f"{name}{n}x{k}" for k in range(40)) for n in range(count)]
        rows = [{"id": f"{name}{n}", "text": f"{name} number {n}: {FILLER} {tail}"} for n, tail in enumerate(tails)]
        rows += [{**rows[3], "id": f"{name}-copy"}, {"id": f"{name}-short", "text": "tiny"}, {"id": "", "text": 3}]
        (folder / name / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.toml").write_text(text or TEXT)
    return load(folder / "recipe.toml", STORE_KEYS)


TEXT = """
name = "harbour"
stages = ["length", "near"]
[sources.ships]
paths = ["ships"]
licence = "CC0"
[sources.lights]
paths = ["lights"]
[stage.length]
min_words = 5
[store]
max_words = 100
"""


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("stages =", "stagess ="), r"unknown key 'stagess' \(did you mean 'stages'\?\)"),
        (("licence", "license"), r"unknown key of \[sources.ships\] 'license' \(did you mean 'licence'\?\)"),
        (('"near"', '"naer"'), r"unknown stage 'naer' \(did you mean 'near'\?\)"),
        (("min_words", "minwords"), r"unknown option of stage 'length' 'minwords' \(did you mean 'min_words'\?\)"),
        (("[stage.length]", "[stage.lines]"), r"its stage is not in `stages`"),
        (('"length", "near"', '"near", "length"'), "look at the whole corpus and come last"),
        (("max_words", "maxwords"), r"unknown key of \[store\] 'maxwords' \(did you mean 'max_words'\?\)"),
        (('paths = ["ships"]', "paths = 3"), r"sources.ships.paths: expected list, found 3"),
        (('licence = "CC0"', "weight = -1"), r"sources.ships.weight: expected a number above 0, found -1"),
        (('licence = "CC0"', "max_documents = 0"), "max_documents: expected a whole number of at least 1, found 0"),
        (
            ("[store]", "[limits]\nmemory = 'much'\n[store]"),
            r"limits.memory: expected bytes, as in .*'2GB', found 'much'",
        ),
    ],
)
def test_a_mistake_is_refused_and_named(tmp_path: Path, changed: tuple[str, str], message: str) -> None:
    assert changed[0] in TEXT
    with pytest.raises(ConfigError, match=message):
        recipe(tmp_path, TEXT.replace(*changed))
    with pytest.raises(ConfigError, match=r"recipe\.toml"):
        recipe(tmp_path, TEXT.replace(*changed))


def test_a_model_beside_the_recipe_is_found_and_one_that_is_trained_anew_runs_the_shards_anew(tmp_path: Path) -> None:
    for name in ("model", "en"):
        (tmp_path / name).mkdir()
    (tmp_path / "model" / "weights.npy").write_bytes(b"first")
    text = TEXT.replace('"length", "near"', '"language", "quality"').replace("[stage.length]\nmin_words = 5", "")
    made = recipe(tmp_path, text + '[stage.quality]\nmodel = "model"\n[stage.language]\nkeep = ["en"]\n')
    assert dict(made.stages) == {"language": {"keep": ["en"]}, "quality": {"model": str(tmp_path / "model")}}

    def folders() -> list[str]:
        return [job.folder for job in corpus.plan_shards(made, tmp_path / "work")]

    before = folders()
    assert folders() == before
    (tmp_path / "model" / "weights.npy").write_bytes(b"second")
    assert not set(folders()) & set(before)


def test_what_is_no_toml_or_names_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a TOML file"):
        recipe(tmp_path, "name = ")
    with pytest.raises(InputError, match=r"no\.toml"):
        load(tmp_path / "no.toml", STORE_KEYS)
    with pytest.raises(ConfigError, match="at least one table"):
        recipe(tmp_path, 'name = "x"')
    found = recipe(tmp_path, TEXT.replace('["lights"]', '["nowhere"]'))
    with pytest.raises(InputError, match="nowhere"):
        corpus.make(found, tmp_path / "work")


def test_every_input_is_a_document_or_a_drop_of_its_source(tmp_path: Path) -> None:
    made = corpus.make(recipe(tmp_path), tmp_path / "work")
    documents = list(made)
    account = made.account
    assert not account.unbalanced() and made.documents == len(documents) == 42
    assert {name: (a.inputs, a.documents, a.by_stage()) for name, a in account.sources.items()} == {
        name: (count + 3, count, {"read": 1, "length": 1, "near": 1}) for name, count in (("ships", 30), ("lights", 12))
    }
    assert documents[0].source == "ships" and documents[0].metadata == {"licence": "CC0"} and not documents[-1].metadata
    assert account.sources["ships"].words == sum(len(d.text.split()) for d in documents[:30])
    near = next(r for r in account.sources["lights"].reasons if r.stage == "near")
    assert near.samples == [("lights-copy", "near-duplicate of 'lights3'")] and near.reason == "near-duplicate of …"
    again = corpus.make(recipe(tmp_path), tmp_path / "work")
    assert (again.digest, again.account.to_json()) == (made.digest, account.to_json())


@pytest.mark.parametrize("point", [1, 2, 3])
def test_interrupted_it_goes_on_to_the_same_corpus(tmp_path: Path, point: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = TEXT + "[shards]\nfiles = 1\n"
    expected = corpus.make(recipe(tmp_path, text), tmp_path / "whole").digest
    for module, name in ((shards, "write_file"), (corpus, "write_documents"), (corpus, "write_file")):
        original = getattr(module, name)
        left = point

        def stopping(*args: object, original: object = original, **kwargs: object) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
            original(*args, **kwargs)  # type: ignore[operator]

        monkeypatch.setattr(module, name, stopping)
        work = tmp_path / f"{module.__name__}-{name}"
        for _ in range(3):
            try:
                made = corpus.make(recipe(tmp_path, text), work)
                break
            except KeyboardInterrupt:
                continue
        assert made.digest == expected and not made.account.unbalanced()


def test_weights_share_words_and_caps_hold(tmp_path: Path) -> None:
    weighted = TEXT.replace('paths = ["ships"]', 'paths = ["ships"]\nweight = 1').replace(
        'paths = ["lights"]', 'paths = ["lights"]\nweight = 2'
    )
    made = corpus.make(recipe(tmp_path, weighted), tmp_path / "work")
    ships, lights = (made.account.sources[name] for name in ("ships", "lights"))
    assert lights.documents == 12 and abs(ships.words * 2 - lights.words) < 150
    assert not made.account.unbalanced() and ships.by_stage()["mix"] == 30 - ships.documents
    first = {d.id for d in made}
    other = corpus.make(recipe(tmp_path, "seed = 5\n" + weighted), tmp_path / "work")
    assert {d.id for d in other} != first
    capped = corpus.make(recipe(tmp_path, TEXT.replace('paths = ["ships"]', 'paths = ["ships"]\nmax_documents = 4')),
                         tmp_path / "work")  # fmt: skip
    assert capped.account.sources["ships"].documents == 4
    capped = corpus.make(recipe(tmp_path, weighted.replace("weight = 2", "weight = 2\nmax_documents = 4")),
                         tmp_path / "work")  # fmt: skip
    ships, lights = (capped.account.sources[name] for name in ("ships", "lights"))
    assert lights.documents == 4 and abs(ships.words * 2 - lights.words) < 150


def test_targets_and_choices() -> None:
    sources = [
        Source("a", (), 1.0),
        Source("b", (), 3.0),
        Source("c", ()),
        Source("d", (), 1.0),
        Source("e", (), None, None, 7),
    ]
    found = mix.targets({"a": 100, "b": 90, "c": 11, "e": 50}, sources)
    assert found == {"a": 30.0, "b": 90.0, "c": 11, "d": 0.0, "e": 7}
    keys, words = np.array([5, 1, 9, 3], np.uint64), np.array([10, 20, 30, 40])
    assert mix.chosen(keys, words, 60, None).tolist() == [False, True, False, True]
    assert mix.chosen(keys, words, 1, None).tolist() == [False, True, False, False]
    assert mix.chosen(keys, words, 999, 3).tolist() == [True, True, False, True]


def test_the_report_says_the_same_three_times_and_runs_nothing(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>|`x`"
    found = recipe(tmp_path)
    path = tmp_path / "ships" / "rows.jsonl"
    path.write_text(path.read_text() + json.dumps({"id": hostile, "text": "no"}) + "\n")
    made = corpus.make(found, tmp_path / "work")
    files = report.write(tmp_path / "out", hostile, made.account, {"documents": 42})
    text = {file.suffix: file.read_text() for file in files}
    assert json.loads(text[".json"])["sources"]["ships"]["inputs"] == 34
    assert "| ships | 1 | 34 | 30 |" in text[".md"] and "| all | 2 | 49 | 42 |" in text[".md"]
    assert (
        "<script" not in text[".html"]
        and "&lt;script&gt;" in text[".html"]
        and "http" not in text[".html"].replace("http-equiv", "")
    )
    assert text[".html"].count("<svg") == 3


def test_two_workers_make_the_same_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = corpus.make(recipe(tmp_path), tmp_path / "one").digest
    monkeypatch.setattr(corpus, "run_all", run_all)
    assert corpus.make(recipe(tmp_path), tmp_path / "two", workers=2).digest == expected


def test_a_folder_that_is_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    found = recipe(tmp_path)
    (tmp_path / "mine" / "corpus-of-letters").mkdir(parents=True)
    with pytest.raises(StoreError, match="found something else"):
        corpus.make(found, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["corpus-of-letters"]
    corpus.make(found, tmp_path / "work")
    with locked(tmp_path / "work" / "LOCK"), pytest.raises(StoreError, match="another build"):
        corpus.make(found, tmp_path / "work")


def test_the_shipped_recipe_is_sound() -> None:
    found = load(Path(__file__).parent.parent / "recipes" / "corpus.toml", STORE_KEYS)
    assert [name for name, _ in (*found.stages, *found.corpus_stages)] == ["length", "lines", "near"]
    assert all(Path(path).exists() for source in found.sources for path in source.paths)


def test_shards_that_an_array_of_jobs_ran_are_found_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = recipe(tmp_path, TEXT + "[shards]\nfiles = 1\n")
    for job in corpus.plan_shards(found, tmp_path / "work")[::-1]:
        corpus.run_here(job)
    monkeypatch.setattr(corpus, "run_all", None)  # nothing is left to run
    assert corpus.make(found, tmp_path / "work").documents == 42


def test_a_disk_that_takes_no_table_of_lines_ends_a_build_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import duckdb

    def full(*given: object, **options: object) -> None:
        raise duckdb.IOException('IO Error: Could not write file "lines.duckdb": No space left on device')

    chosen = recipe(tmp_path, TEXT.replace('["length", "near"]', '["length", "lines"]'))
    monkeypatch.setattr(duckdb, "connect", full)
    with pytest.raises(StoreError, match="No space left on device"):
        corpus.make(chosen, tmp_path / "work")
    monkeypatch.undo()
    monkeypatch.setattr(
        corpus, "run_all", lambda function, jobs, died, workers=0, engine="local": [(j, function(j)) for j in jobs]
    )
    assert corpus.make(chosen, tmp_path / "work").documents > 0
