"""The benchmark commands: the list, a look into a set, the texts that rows carry, and a store's search scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sleuth import cli
from sleuth.agents import episodes, policy
from sleuth.agents.records import Answer
from sleuth.corpora.records import Document
from sleuth.eval.benchmarks import BENCHMARKS
from sleuth.eval.evaluate import tagged
from sleuth.retrieval.build import build
from tests.eval_episodes import episode
from tests.retrieval_stores import use_hash_embedder
from tests.scripted import ScriptedPolicy


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        cli.main([str(a) for a in arguments])
    return int(left.value.code or 0), *capsys.readouterr()


def test_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "benchmarks", "--json")
    assert code == 0
    assert [json.loads(line)["name"] for line in out.splitlines()] == list(BENCHMARKS)
    assert run(capsys, "benchmarks")[1].count("CC BY") > 5


def test_a_set_is_looked_into_and_its_texts_are_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    code, out, err = run(capsys, "benchmarks", "musique", "--documents", path, "--json")
    found = json.loads(out)
    assert (code, found["questions"], found["unanswerable"], found["documents"]) == (0, 5, 2, 10)
    assert found["types"] == {"2hop": 3, "3hop1": 2} and "10 texts in" in err
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert len(rows) == 10 and set(rows[0]) == {"id", "title", "text", "source"}
    code, _, err = run(capsys, "benchmarks", "nq_open", "--documents", path)
    assert code != 0 and "its rows carry no texts" in err


def test_rows_that_cannot_be_used_are_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "nq_open.jsonl"
    path.write_text('{"question": "who?", "answer": ["x"]}\n{"question": "when?"}\n')
    code, _, err = run(capsys, "benchmarks", path)
    assert code == 0 and "expected a field 'answer'" in " ".join(err.split())
    assert json.loads(run(capsys, "benchmarks", "nq_open", "--data", path, "--json")[1])["questions"] == 1
    code, _, err = run(capsys, "benchmarks", "nq_opne")
    assert code != 0 and "did you mean 'nq_open'" in " ".join(err.split())


def test_a_stores_search_is_ranked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hash_embedder(monkeypatch)
    rows = map(json.loads, (Path(cli.__file__).parent / "eval/rows/cranfield/corpus.jsonl").read_text().splitlines())
    build([Document(r["_id"], r["text"], r["title"]) for r in rows][:4], tmp_path / "store")
    code, out, err = run(capsys, "rank", tmp_path / "store", "cranfield", "--mode", "bm25", "--json")
    found = json.loads(out)
    assert code == 0 and found["questions"] == 4, err
    assert [message.split(":")[0] for message in found["bad"]] == ["task q5"], "its document is not in the store"
    assert found["measures"]["mrr@10"]["interval"]["mean"] == 1.0
    assert 0 < found["measures"]["ndcg@10"]["interval"]["mean"] <= 1.0
    code, out, err = run(capsys, "rank", tmp_path / "store", "cranfield", "--k", 2)
    assert code == 0 and "ndcg@10" in out and "not there are 1 of 1: '5'" in " ".join(err.split())
    found = json.loads(run(capsys, "benchmarks", "cranfield", "--store", tmp_path / "store", "--json")[1])
    assert found["evidence not in the store"] == 1 and found["bad"][0].startswith("task q5: 'supporting' must name")
    code, _, err = run(capsys, "rank", tmp_path / "store", "nq_open")
    assert code != 0 and "no question marks its documents" in " ".join(err.split())
    build([Document("other", "Nothing of it.")], tmp_path / "other")
    code, out, err = run(capsys, "rank", tmp_path / "other", "cranfield")
    assert (code, out) == (3, "") and "found 0 of 5" in " ".join(err.split())
    (tmp_path / "none.jsonl").write_text("")
    code, _, err = run(capsys, "rank", tmp_path / "other", tmp_path / "none.jsonl")
    assert code == 3 and "found no row at all" in " ".join(err.split())


def test_stored_answers_are_judged_and_held_against_the_metrics(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = BENCHMARKS["bamboogle"].load()
    said = [tasks[0].answers[0], "unknown", "Orsk", "It is 312 km.", "nonsense"]
    for task, text in zip(tasks, said, strict=True):
        episodes.append(tmp_path / "run.jsonl", tagged(episode(task.question, Answer(text)), task))
    replies = {"Kaldor": "correct", "Orsk": "incorrect", "It is 312 km.": "correct", "nonsense": "perhaps"}
    scripted = ScriptedPolicy(lambda m: {"reason": "", "grade": replies[json.loads(m[1].content)["answer"]]})
    monkeypatch.setattr(policy, "open_policy", lambda spec, adapter: scripted)
    arguments = ("judge", tmp_path / "run.jsonl", "--benchmark", "bamboogle", "--out", tmp_path / "v.jsonl")
    code, out, err = run(capsys, *arguments, "--json")
    found = json.loads(out)
    assert code == 0 and len(scripted.seen) == 4, err
    assert found["grades"] == {"correct": 2, "not_attempted": 1, "incorrect": 1, "none": 1}
    assert found["correct"]["mean"] == 0.5 and found["correct"]["n"] == 4
    assert (found["agreement"]["em"]["n"], found["agreement"]["em"]["only_ours"]) == (4, 1)
    code, out, err = run(capsys, *arguments)
    assert code == 0 and "held against" in out and "no verdict on 1" in err and len(scripted.seen) == 5
    code, _, err = run(capsys, *arguments[:3], "nq_open")
    assert code != 0 and "no episode of nq_open here" in " ".join(err.split())
