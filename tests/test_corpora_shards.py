"""Shards: documents that end their worker, shards that stop anywhere, and stages by name."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sleuth.corpora import shards, stages
from sleuth.corpora.errors import ConfigError, InputError, StoreError
from sleuth.corpora.pool import run_all
from sleuth.corpora.records import Document, Drop
from sleuth.corpora.shards import Limits, ShardJob, documents_of, drops_of, plan, run, state_of

CHOSEN = (("length", {"min_words": 3}),)


def pages(folder: Path, count: int = 12) -> Path:
    folder.mkdir()
    for n in range(count):
        (folder / f"{n:02d}.txt").write_text(f"Page {n} tells of lighthouse number {n}." if n % 4 else f"short{n}")
    (folder / "x.bin").write_bytes(b"?")
    rows = [{"id": f"row{n}", "text": f"Row {n} is about ships and their crews."} for n in range(6)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "not json\n")
    return folder


def planned(folder: Path, work: Path, limits: Limits | None = None, per_shard: int = 5) -> list[ShardJob]:
    jobs, drops = plan("ships", [folder], CHOSEN, limits or Limits(), work, 1 << 20, per_shard)
    assert not drops
    return jobs


def test_shards_hold_every_document_in_order_and_add_up(tmp_path: Path) -> None:
    jobs = planned(pages(tmp_path / "in"), tmp_path / "work")
    states = [run(job) for job in jobs]
    found = [d for job in jobs for d in documents_of(job)]
    drops = [d for job in jobs for d in drops_of(job)]
    assert [d.id for d in found] == [f"in/{n:02d}.txt" for n in range(12) if n % 4] + [f"row{n}" for n in range(6)]
    assert {d.source for d in found} == {"ships"}
    assert sorted(d.stage for d in drops) == ["length"] * 3 + ["read"] * 2
    assert sum(s.inputs for s in states) == len(found) + len(drops) == 20
    assert [run(job) for job in jobs] == states  # done already


def test_a_drop_is_one_line_whatever_its_name_holds(tmp_path: Path) -> None:
    name = "two\u2028parts\x85of it"
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": name, "text": "short"}) + "\n")
    (job,) = planned(tmp_path / "a.jsonl", tmp_path / "work")
    run(job)
    assert [drop.id for drop in drops_of(job)] == [name]


@pytest.mark.parametrize("per_part", [1, 2, 3])
def test_a_shard_stopped_after_any_part_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_part: int
) -> None:
    monkeypatch.setattr(shards, "PART", per_part)
    (job,) = planned(pages(tmp_path / "in"), tmp_path / "whole", per_shard=99)
    expected = run(job)
    again = replace(job, folder=str(tmp_path / "again"))
    write, left = shards._Run._write, 0

    def stopping(self: object, *args: object) -> None:
        nonlocal left
        write(self, *args)  # type: ignore[arg-type]
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(shards._Run, "_write", stopping)
    for _ in range(30):
        left = 1
        try:
            found = run(again)
            break
        except KeyboardInterrupt:
            assert not state_of(again).done or state_of(again) == expected
    assert found == expected and list(drops_of(again)) == list(drops_of(job))


def hostile(documents: object, drop: object) -> object:
    """A stage that never ends over one document and takes all memory over another."""
    for document in documents:  # type: ignore[attr-defined]
        if "endless" in document.text:
            while True:
                pass
        if "crash" in document.text:
            import ctypes

            ctypes.string_at(0)
        yield document


def poison() -> object:
    return hostile


def test_a_hostile_document_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pages(tmp_path / "in", 6)
    (folder / "03.txt").write_text("This is an endless page.")
    (folder / "05.txt").write_text("This page will crash you.")
    jobs, _ = plan("s", [folder], [("poison", {})], Limits(seconds=1), tmp_path / "work", 1 << 20, 99)
    ((job, state),) = run_all(run_poisoned, jobs, shards.after_death, workers=1)
    assert [d.id for d in documents_of(job)] == [f"in/{n:02d}.txt" for n in (0, 1, 2, 4)] + [
        f"row{n}" for n in range(6)
    ]
    reasons = {d.id: d.reason for d in drops_of(job)}
    assert "took too long" in reasons["in/03.txt"] and "SIGSEGV" in reasons["in/05.txt"]
    assert state.inputs == state.documents + state.drops == 14


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def ended(job: ShardJob) -> tuple[int, float]:
    """How a process that runs a shard ends, and the CPU seconds that it took after all was loaded."""
    shards._warm(job)
    if (child := os.fork()) == 0:
        with contextlib.suppress(BaseException):
            run(job)
        os._exit(0)
    _, status, used = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime


def test_an_item_costs_its_limit_over_both_tries_whatever_is_done_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = planned(pages(tmp_path / "in"), tmp_path / "work", Limits(seconds=1), per_shard=99)
    made, length = shards.made, stages.length

    def slow(item: Document, drop: object) -> Document | None:
        burn(0.35 if item.id == "in/02.txt" else 0)
        return made(item, drop)  # type: ignore[arg-type]

    def slower(min_words: int) -> object:
        def of(documents: Iterable[Document], drop: object) -> Iterator[Document]:
            for document in length(min_words)(documents, drop):
                burn(9 if document.id == "in/02.txt" else 0)
                yield document

        return of

    monkeypatch.setattr(shards, "made", slow)
    monkeypatch.setattr(stages, "length", slower)
    took = 0.0
    for _ in range(2):
        code, used = ended(job)
        assert code == -signal.SIGPROF and json.loads((Path(job.folder) / "AT").read_bytes())[:2] == [2, 0]
        took += used
        job = shards.after_death(job, "it took too long")
    assert 0.9 < took < 1.5 and [entry[:3] for entry in job.skip] == [(2, 0, False)]


def test_what_is_between_items_is_at_no_item_s_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = planned(pages(tmp_path / "in"), tmp_path / "work", Limits(seconds=1), per_shard=99)
    write = shards._Run._write

    def long(self: shards._Run, *args: Any) -> None:
        burn(0.7)
        write(self, *args)

    monkeypatch.setattr(shards._Run, "_write", long)
    assert run(job).done and signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)


def run_poisoned(job: ShardJob) -> shards.ShardState:
    """In the worker: the table has one more stage."""
    import sys

    stages.STAGES["poison"] = "stages:length"
    sys.modules["sleuth.corpora.stages"].length = poison  # type: ignore[attr-defined]
    return run(job)


def test_a_page_that_takes_too_much_memory_is_a_drop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = planned(pages(tmp_path / "in"), tmp_path / "work", per_shard=99)
    made = shards.made

    def greedy(item: Document, drop: object) -> Document | None:
        if item.id == "row2":
            bytearray(4 << 30)
        return made(item, drop)  # type: ignore[arg-type]

    monkeypatch.setattr(shards, "made", greedy)
    run(job)
    assert [d.reason for d in drops_of(job) if d.id == "row2"] == ["needs more than 2,147,483,648 bytes of memory"]


def test_a_worker_that_ends_before_any_document_is_an_error(tmp_path: Path) -> None:
    (job,) = planned(pages(tmp_path / "in"), tmp_path / "work", per_shard=99)
    with pytest.raises(StoreError, match="before it met any document"):
        shards.after_death(job, "it ended")


@pytest.mark.parametrize(("phase", "left_out"), [("read", "01.txt: from item 0 on"), ("parse", "in/01.txt")])
def test_an_item_that_ends_its_worker_is_tried_once_more(tmp_path: Path, phase: str, left_out: str) -> None:
    (job,) = planned(pages(tmp_path / "in"), tmp_path / "work", per_shard=99)
    at = Path(job.folder) / "AT"
    at.parent.mkdir(parents=True)
    at.write_text(json.dumps([1, 0, phase, "01.txt: item 0"]))
    again = shards.after_death(job, "it took too long")
    run(again)  # this time it goes well: it was the machine that stood still
    whole = [d.id for d in documents_of(again)]
    dropped = {(d.id, d.reason) for d in drops_of(again)}
    assert again.skip == () and "in/01.txt" in whole
    shutil.rmtree(job.folder)
    at.parent.mkdir()
    at.write_text(json.dumps([1, 0, phase, "01.txt: item 0"]))
    left = shards.after_death(again, "it took too long")
    assert [known[:3] for known in left.skip] == [(1, 0, phase == "read")]
    run(left)
    ((id_, reason),) = {(d.id, d.reason) for d in drops_of(left)} - dropped
    assert id_.endswith(left_out) and reason.startswith("it took too long")
    assert [d.id for d in documents_of(left)] == [id_ for id_ in whole if id_ != "in/01.txt"]


def test_changed_files_and_options_make_other_shards(tmp_path: Path) -> None:
    folder = pages(tmp_path / "in")
    first = planned(folder, tmp_path / "work")
    (folder / "00.txt").write_text("Changed.")
    second = planned(folder, tmp_path / "work")
    assert first[0].folder != second[0].folder and [j.folder for j in first[1:]] == [j.folder for j in second[1:]]
    third = planned(folder, tmp_path / "work", Limits(seconds=9))
    assert not {j.folder for j in third} & {j.folder for j in second}


def test_unknown_stages_and_options_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"unknown stage 'lenght' \(did you mean 'length'"):
        stages.check("lenght", {})
    with pytest.raises(ConfigError, match="did you mean 'min_words'"):
        stages.check("length", {"minwords": 3})
    with pytest.raises(ConfigError, match="expected benchmarks"):
        stages.check("decontaminate", {})
    for name in (*stages.STAGES, *stages.CORPUS_STAGES):
        assert callable(stages.factory(name))


PASSAGE = "The keeper of the northern light walked down to the harbour each morning to fetch oil bread and the news."


def contaminated(tmp_path: Path, texts: list[str], **options: object) -> list[Drop]:
    path = tmp_path / "bench.jsonl.gz"
    rows = [{"id": "q1", "question": "who built the first iron bridge over the river Severn in Shropshire?"},
            {"id": "p1", "text": PASSAGE}, {"id": "q2", "question": "too short"}]  # fmt: skip
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    drops: list[Drop] = []
    stage = stages.factory("decontaminate")(benchmarks=[str(path)], **options)
    kept = list(stage([Document(str(n), text) for n, text in enumerate(texts)], drops.append))
    assert len(kept) + len(drops) == len(texts)
    return drops


def test_documents_that_hold_thirteen_words_of_a_benchmark_are_dropped(tmp_path: Path) -> None:
    words = PASSAGE.split()
    texts = [
        f"As told: {' '.join(words[2:15]).upper()}, and more.",  # 13 words
        f"As told: {' '.join(words[2:14])}, and more.",  # 12
        "Asked: Who built the first iron bridge, over the river Severn, in Shropshire? Nobody knows.",
        "It was too short to say.",
        PASSAGE,
    ]
    drops = contaminated(tmp_path, texts)
    assert [d.id for d in drops] == ["0", "2", "4"]
    assert drops[0].reason == "holds 12% of the 13-grams of benchmark item 'bench.jsonl.gz:p1'"
    assert "100%" in drops[1].reason and "q1" in drops[1].reason
    assert [d.id for d in contaminated(tmp_path, texts, share=0.5)] == ["2", "4"]
    assert [d.id for d in contaminated(tmp_path, texts, ngram=8)] == ["0", "1", "2", "4"]
    with pytest.raises(InputError, match="found none"):
        contaminated(tmp_path, texts, fields=("nothing",))
    stage = stages.factory("decontaminate")(benchmarks=[str(tmp_path / "bench.jsonl.gz")])
    titled = Document("t", "Abraham Darby did.", "Who built the first iron bridge over the river Severn in Shropshire?")
    assert list(stage([titled], drops.append)) == [] and drops[-1].id == "t"


def test_lines_that_repeat_over_a_site_go_and_others_stay(tmp_path: Path) -> None:
    documents = [
        Document(f"d{n}", f"Home | About\n\nStory {n} is told here at some length.\n\nCopyright of the lighthouse",
                 url=f"https://lights.example/{n}") for n in range(12)
    ]  # fmt: skip
    documents.append(Document("menu", "Home | About\n\nCopyright of the lighthouse", url="https://lights.example/m"))
    documents.append(Document("odd", "Home | About\n\nAn address that is none.", url="http://[oops/x"))
    documents += [Document(f"o{n}", f"Home | About\n\nElsewhere {n}.", url="https://o.example/") for n in range(3)]
    drops: list[Drop] = []
    (tmp_path / "w").mkdir()
    corpus = stages.Corpus(lambda: iter(documents), tmp_path / "w")
    kept = list(stages.factory("lines")(corpus)(documents, drops.append))
    assert [d.text for d in kept[:2]] == [f"Story {n} is told here at some length." for n in range(2)]
    assert kept[-1].text == documents[-1].text and len(kept) == 16
    assert [d.id for d in drops] == ["menu"]
