"""Building: accounting, resuming after a stop at any point, refusing what is not its own, damage found."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sleuth.corpora.errors import ConfigError, InputError, StoreError
from sleuth.corpora.records import Document
from sleuth.retrieval import grow, layout, tokens
from sleuth.retrieval.build import BuildReport, BuildSpec, build, build_once
from sleuth.retrieval.index import build_index, covered
from sleuth.retrieval.store import Datastore
from tests.retrieval_stores import corpus, files, use_hash_embedder

SPEC = BuildSpec(segment_documents=8, max_words=100)


@pytest.fixture(autouse=True)
def hash_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    use_hash_embedder(monkeypatch)


def adds_up(report: BuildReport) -> bool:
    drops = [json.loads(line) for line in Path(report.drops).read_text().splitlines()]
    counted = report.indexed + report.duplicates + report.rejected
    return report.inputs == counted and len(drops) == report.duplicates + report.rejected


def test_each_input_ends_up_indexed_duplicate_or_rejected(tmp_path: Path) -> None:
    rows = [{"id": d.id, "text": d.text, "title": d.title} for d in corpus(10)]
    rows += [{**rows[0], "id": "copy"}, {"id": "d003", "text": "other"}, {"id": "x#1", "text": "y"}, {"id": "z"}]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "odd.bin").write_bytes(b"x")
    stages: list[str] = []
    report = build(
        [tmp_path / "c.jsonl", tmp_path / "odd.bin"],
        tmp_path / "s",
        SPEC,
        lambda stage, done, total: stages.append(stage),
    )
    assert (report.inputs, report.indexed, report.duplicates, report.rejected) == (15, 10, 1, 4)
    assert adds_up(report) and report.documents == 10 and set(stages) == {"read", "embed", "commit"}
    store = Datastore.open(tmp_path / "s")
    assert len(store) == report.passages and store.document("d003").text == rows[3]["text"]
    assert store.fingerprint == report.fingerprint


def test_rows_of_a_table_without_ids_are_in_the_store(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": [d.text for d in corpus(8)]}), tmp_path / "rows.parquet")
    report = build([tmp_path / "rows.parquet"], tmp_path / "s", SPEC)
    assert (report.inputs, report.indexed) == (8, 8)
    store = Datastore.open(tmp_path / "s")
    assert store.document("rows.parquet/2").text == corpus(8)[1].text
    assert store.fetch(["rows.parquet/7#1"])[0].doc_id == "rows.parquet/7"


def test_names_of_files_that_are_not_utf8_are_drops_of_the_report(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in (b"bad\xff.txt", b".hidden\xff", b"good.txt"):
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path / "in"), name))).write_text("some text")
    report = build([tmp_path / "in"], tmp_path / "s", SPEC)
    assert (report.inputs, report.indexed, report.rejected) == (3, 1, 2) and adds_up(report)


def test_the_same_build_again_changes_nothing_and_more_input_adds_a_segment(tmp_path: Path) -> None:
    documents = corpus(20)
    first = build(documents[:12], tmp_path / "s", SPEC)
    again = build(documents[:12], tmp_path / "s", SPEC)
    assert (again.added, again.indexed, again.fingerprint) == (0, 12, first.fingerprint)
    more = build([*documents, documents[0]], tmp_path / "s", SPEC)
    assert (more.added, more.indexed, more.duplicates, more.documents) == (8, 20, 1, 20)
    assert more.fingerprint != first.fingerprint and adds_up(more)
    assert len(list((tmp_path / "s" / "manifests").iterdir())) == layout.KEPT_MANIFESTS


def test_two_builds_of_the_same_input_are_the_same_store(tmp_path: Path) -> None:
    assert build(corpus(), tmp_path / "a", SPEC).fingerprint == build(corpus(), tmp_path / "b", SPEC).fingerprint


class Killed(BaseException):
    """The process ends here: after it nothing reaches the disk any more, cleaning up included."""


OPERATIONS: tuple[tuple[Any, str], ...] = (
    (os, "fsync"), (Path, "rename"), (Path, "replace"), (Path, "mkdir"), (Path, "unlink"), (shutil, "rmtree"),
)  # fmt: skip


def kill_at(monkeypatch: pytest.MonkeyPatch, point: int) -> Callable[[], int]:
    count = 0

    def guarded(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count >= point:
                raise Killed
            return operation(*args, **kwargs)

        return call

    for home, name in OPERATIONS:
        monkeypatch.setattr(home, name, guarded(getattr(home, name)))
    return lambda: count


def test_a_build_killed_at_any_point_goes_on_to_the_same_store(tmp_path: Path) -> None:
    documents, spec = corpus(8), dataclasses.replace(SPEC, segment_documents=4)
    expected = build(documents, tmp_path / "whole", spec).fingerprint
    for point in range(1, 1000):
        out = tmp_path / f"s{point}" / "store"
        with pytest.MonkeyPatch.context() as patch:
            use_hash_embedder(patch)
            count = kill_at(patch, point)
            with contextlib.suppress(Killed):
                build(documents, out, spec)
            if count() < point:
                assert point > 40  # the loop has met every operation of a whole build
                break
        committed = len(Datastore.open(out).manifest.segments) if (out / "CURRENT").exists() else 0
        report = build(documents, out, spec)
        assert report.added == 8 - 4 * committed and report.indexed == 8
        assert report.fingerprint == expected
        assert [path.name for path in out.parent.iterdir()] == ["store"]
        assert {path.name for path in (out / "segments").iterdir()} == {
            entry.id for entry in Datastore.open(out).manifest.segments
        }
        assert not list((out / "work").iterdir())


def test_a_store_that_is_built_once_is_there_only_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents, out = corpus(16), tmp_path / "store"

    def stop(stage: str, done: int, total: int | None) -> None:
        if stage == "commit" and done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_once(documents, out, SPEC, stop)
    assert not out.exists()
    assert Datastore.open(build_once(documents, out, SPEC)).manifest.documents == 16
    with monkeypatch.context() as patch:
        patch.setattr("sleuth.retrieval.build.build", lambda *given: pytest.fail("built again"))
        assert build_once(documents, out, SPEC) == out
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_an_interrupt_or_a_full_disk_leaves_the_last_committed_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(stage: str, done: int, total: int | None) -> None:
        if stage == "commit" and done == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(corpus(), tmp_path / "s", SPEC, stop)
    assert Datastore.open(tmp_path / "s").manifest.documents == 16

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "vectors.npy")

    with monkeypatch.context() as patch, pytest.raises(StoreError, match="No space left"):
        patch.setattr("sleuth.retrieval.segment.save", full)
        build(corpus(), tmp_path / "s", SPEC)
    assert Datastore.open(tmp_path / "s").manifest.documents == 16
    assert build(corpus(), tmp_path / "s", SPEC).added == 4


def test_a_reader_keeps_its_version_while_the_store_grows(tmp_path: Path) -> None:
    build(corpus(8), tmp_path / "s", SPEC)
    reader = Datastore.open(tmp_path / "s")
    before = reader.search(["castle siege"], 3, mode="bm25")
    build(corpus(20), tmp_path / "s", SPEC)
    assert reader.search(["castle siege"], 3, mode="bm25") == before
    assert Datastore.open(tmp_path / "s").fingerprint != reader.fingerprint


def test_a_folder_that_is_something_else_is_left_untouched(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    (tmp_path / "file").write_text("text")
    for name in ("photos", "file"):
        with pytest.raises(StoreError, match="something else"):
            build(corpus(2), tmp_path / name, SPEC)
    assert files(tmp_path) == [tmp_path / "file", tmp_path / "photos" / "cat.jpg"]


def test_bad_input_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        build([tmp_path / "nowhere"], tmp_path / "s", SPEC)
    with pytest.raises(ConfigError, match="klingon"):
        build(corpus(2), tmp_path / "s", BuildSpec(language="klingon"))
    with pytest.raises(InputError, match="max_words"):
        build(corpus(2), tmp_path / "s", BuildSpec(max_words=0))
    with pytest.raises(InputError, match="one path"):
        build(str(tmp_path), tmp_path / "s", SPEC)
    assert files(tmp_path) == []


def test_words_of_titles_weigh_as_the_store_says(tmp_path: Path) -> None:
    named = Document("named", "A harbour town in the north with a market.", title="Glacier Bay")
    said = Document("said", "The glacier, a glacier seen from the bay.", title="Notes")
    ranks = {}
    for weight in (0, 1, 4):
        store = tmp_path / f"s{weight}"
        build([named, said], store, BuildSpec("hash", title_weight=weight))
        opened = Datastore.open(store)
        ranks[weight] = [hit.passage.doc_id for hit in opened.search(["glacier bay"], 2, mode="bm25")[0]]
        assert opened.manifest.title_weight == weight
        assert (b"title_weight" in (store / "manifests" / "000001.json").read_bytes()) == (weight != 1)
        assert opened.fetch(["named"])[0].text == named.text  # the title is weighed, not stored again
    assert ranks == {0: ["said"], 1: ["said", "named"], 4: ["named", "said"]}
    grow.add(tmp_path / "s4", [Document("later", "Ships and nets.", title="Glacier Bay")])
    found = Datastore.open(tmp_path / "s4").search(["glacier bay"], 3, mode="bm25")[0]
    assert [hit.passage.doc_id for hit in found] == ["later", "named", "said"]
    with pytest.raises(StoreError, match=r"'title_weight': 4.*'title_weight': 3"):
        build([named], tmp_path / "s4", BuildSpec("hash"))
    for wrong in (-1, 21, 2.5, "3", True):
        with pytest.raises(InputError, match=f"title_weight of 0 to 20, found {wrong!r}"):
            build([named], tmp_path / "s", BuildSpec("hash", title_weight=wrong))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"max_words of 1 to .* found '9'"):
        build([named], tmp_path / "s", BuildSpec("hash", max_words="9"))  # type: ignore[arg-type]


def test_a_store_is_searched_with_the_analyzer_that_it_was_built_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [Document("m", "новый дом"), Document("f", "новая мельница"), Document("o", "старый замок")]
    with monkeypatch.context() as before:
        before.setattr(tokens, "VERSIONS", {})
        build(documents, tmp_path / "old", BuildSpec("hash", language="russian"))
    build(documents, tmp_path / "new", BuildSpec("hash", language="russian"))
    build(documents, tmp_path / "english", BuildSpec("hash"))
    found = {}
    for name in ("old", "new", "english"):
        store = Datastore.open(tmp_path / name)
        found[name] = {hit.passage.doc_id for hit in store.search(["новый"], 3, mode="bm25")[0]}
        says = b"analyzer" in (tmp_path / name / "manifests" / "000001.json").read_bytes()
        assert (store.manifest.analyzer, says) == ((2, True) if name == "new" else (1, False))
    assert found == {"old": {"m"}, "new": {"m", "f"}, "english": {"m"}}
    grow.add(tmp_path / "new", [Document("n", "новое поле")])
    with pytest.raises(StoreError, match=r"'analyzer': 1.*'analyzer': 2"):
        grow.add(tmp_path / "old", [Document("n", "новое поле")])


def test_a_second_builder_is_refused(tmp_path: Path) -> None:
    build(corpus(2), tmp_path / "s", SPEC)
    with layout.locked(tmp_path / "s"), pytest.raises(StoreError, match=f"process {os.getpid()}"):
        build(corpus(4), tmp_path / "s", SPEC)
    assert build(corpus(4), tmp_path / "s", SPEC).added == 2


def test_another_spec_or_embedder_is_refused_with_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(corpus(2), tmp_path / "s", SPEC)
    with pytest.raises(StoreError, match=r"'max_words': 100.*'max_words': 50"):
        build(corpus(4), tmp_path / "s", dataclasses.replace(SPEC, max_words=50))
    use_hash_embedder(monkeypatch, revision="r2")
    with pytest.raises(StoreError, match=r"'r1'.*'r2'"):
        build(corpus(4), tmp_path / "s", SPEC)
    store = Datastore.open(tmp_path / "s")
    assert store.search(["castle"], 1, mode="bm25")[0]
    with pytest.raises(StoreError, match=r"revision r1.*revision r2"):
        store.search(["castle"], 1)


def test_an_input_of_nothing_makes_an_empty_store_that_answers(tmp_path: Path) -> None:
    report = build([], tmp_path / "s", SPEC)
    store = Datastore.open(tmp_path / "s")
    assert report.inputs == 0 and len(store) == 0
    assert store.search(["anything"], 5) == [[]]
    assert store.sql("select count(*) from passages")[1] == [(0,)]


def test_every_flipped_byte_and_cut_is_found_and_the_file_named(tmp_path: Path) -> None:
    build(corpus(20), tmp_path / "s", SPEC)
    whole = Datastore.open(tmp_path / "s").manifest
    named = [path for entry in whole.segments for path in files(tmp_path / "s" / "segments" / entry.id)]
    named += [tmp_path / "s" / "CURRENT", tmp_path / "s" / "manifests" / f"{whole.version:06d}.json"]
    for path in named:
        data = path.read_bytes()
        for at in {0, len(data) // 3, len(data) // 2, len(data) - 1}:
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            if path.name == "CURRENT":
                with pytest.raises(StoreError):
                    Datastore.open(tmp_path / "s")
            else:
                with pytest.raises(StoreError, match=f"{path.name}: damaged; expected .*, found "):
                    Datastore.open(tmp_path / "s")
        path.write_bytes(data[:-1])
        with pytest.raises(StoreError, match=r"CURRENT|damaged"):
            Datastore.open(tmp_path / "s")
        path.unlink()
        with pytest.raises(StoreError, match=path.name):
            Datastore.open(tmp_path / "s")
        path.write_bytes(data)
    assert len(Datastore.open(tmp_path / "s")) == whole.passages


def test_a_store_of_another_format_is_refused_with_both_versions(tmp_path: Path) -> None:
    build(corpus(2), tmp_path / "s", SPEC)
    path = tmp_path / "s" / "manifests" / "000001.json"
    data = json.dumps({**json.loads(path.read_bytes()), "format": 99}).encode()
    path.write_bytes(data)
    (tmp_path / "s" / "CURRENT").write_text(json.dumps([1, hashlib.sha256(data).hexdigest()]))
    with pytest.raises(StoreError, match="expected store format 1, found 99"):
        Datastore.open(tmp_path / "s")
    with pytest.raises(StoreError, match="no datastore"):
        Datastore.open(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="CURRENT"):
        Datastore.open(tmp_path)


def test_a_file_that_is_sound_but_no_array_of_ours_is_refused(tmp_path: Path) -> None:
    import numpy as np

    build(corpus(2), tmp_path / "s", SPEC)
    (folder,) = (tmp_path / "s" / "segments").iterdir()
    np.save(folder / "vectors.npy", np.array([{"an": "object"}], dtype=object), allow_pickle=True)
    (folder / "SUMS").unlink()
    sums = layout.write_sums(folder)
    manifest, _ = layout.read_manifest(tmp_path / "s")
    (entry,) = manifest.segments
    layout.publish(tmp_path / "s", dataclasses.replace(manifest, segments=(dataclasses.replace(entry, sums=sums),)))
    with pytest.raises(StoreError, match="not a segment"):
        Datastore.open(tmp_path / "s")


DEEP = b"[" * 100_000
NO_POINTER = [b'[1e999, "x"]', b"[1]", b"7", b"{}", b"[{}, []]", b"\xff", DEEP]
NO_SUMS = [b"[1]", b"7", b"{\"a\": 1}", b"{\"a\": [1]}", b"{\"../../../secret\": [1, \"0\"]}", b"{\"..\": [1, \"0\"]}",
           b"{\"a\\u0000b\": [1, \"0\"]}", b"{\"/etc/passwd\": [1, \"0\"]}", DEEP]  # fmt: skip


def forged(store: Path, data: bytes) -> None:
    """A manifest of these bytes is the committed one."""
    (store / "manifests" / "000009.json").write_bytes(data)
    (store / "CURRENT").write_text(json.dumps([9, hashlib.sha256(data).hexdigest()]))


@pytest.mark.parametrize("data", NO_POINTER)
def test_a_pointer_of_any_other_kind_is_refused(tmp_path: Path, data: bytes) -> None:
    build(corpus(2), tmp_path / "s", SPEC)
    build_index(tmp_path / "s", kind="flat")
    pointer = tmp_path / "s" / "index" / "CURRENT"
    kept = pointer.read_bytes()
    pointer.write_bytes(data)
    with pytest.raises(StoreError, match=r"CURRENT: expected \[name, sha256\]"):
        Datastore.open(tmp_path / "s")
    assert covered(tmp_path / "s") == frozenset()
    pointer.write_bytes(kept)
    (tmp_path / "s" / "CURRENT").write_bytes(data)
    with pytest.raises(StoreError, match=r"CURRENT: expected \[version, sha256\]"):
        Datastore.open(tmp_path / "s")


@pytest.mark.parametrize(
    "change",
    [
        {"id": "../../segments"}, {"id": ".."}, {"id": "a/b"}, {"id": 7}, {"deletes_file": "../x"}, {"deletes": "/x"},
        {"documents": -1}, {"documents": "2"}, {"passages": 2.5}, {"passages": True}, {"fields": []},
        {"fields": {"year": []}}, {"more": 1},
    ],
)  # fmt: skip
def test_a_manifest_whose_fields_are_something_else_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    build(corpus(2), tmp_path / "s", SPEC)
    whole = json.loads((tmp_path / "s" / "manifests" / "000001.json").read_bytes())
    whole["segments"] = [{**whole["segments"][0], **change}]
    forged(tmp_path / "s", json.dumps(whole).encode())
    with pytest.raises(StoreError, match=r"000009\.json: expected a manifest of format 1, found something else"):
        Datastore.open(tmp_path / "s")


@pytest.mark.parametrize("data", [b"[1]", b"7", DEEP, b'{"format": 1, "segments": 7}', b'{"format": 1}'])
def test_a_manifest_of_any_other_kind_is_refused(tmp_path: Path, data: bytes) -> None:
    build(corpus(2), tmp_path / "s", SPEC)
    forged(tmp_path / "s", data)
    with pytest.raises(StoreError, match=r"000009\.json: expected a manifest of format 1, found something else"):
        Datastore.open(tmp_path / "s")


@pytest.mark.parametrize("data", NO_SUMS)
def test_sums_of_any_other_kind_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "secret").write_bytes(b"1")
    build(corpus(2), tmp_path / "s", SPEC)
    build_index(tmp_path / "s", kind="flat")
    name, _ = json.loads((tmp_path / "s" / "index" / "CURRENT").read_bytes())
    (tmp_path / "s" / "index" / name / "SUMS").write_bytes(data)
    (tmp_path / "s" / "index" / "CURRENT").write_text(json.dumps([name, hashlib.sha256(data).hexdigest()]))
    with pytest.raises(StoreError, match="SUMS: expected names with sizes and checksums, found something else"):
        Datastore.open(tmp_path / "s")
    (folder,) = (tmp_path / "s" / "segments").iterdir()
    (folder / "SUMS").write_bytes(data)
    manifest, _ = layout.read_manifest(tmp_path / "s")
    entry = dataclasses.replace(manifest.segments[0], sums=hashlib.sha256(data).hexdigest())
    layout.publish(tmp_path / "s", dataclasses.replace(manifest, segments=(entry,)))
    with pytest.raises(StoreError, match="SUMS: expected names with sizes and checksums, found something else"):
        Datastore.open(tmp_path / "s")


@pytest.mark.parametrize(
    "name",
    ["CURRENT", "manifests/*.json", "segments/*/SUMS", "segments/*/documents.arrow", "deletes/*", "index/*/SUMS"],
)
def test_nothing_is_waited_on_for_ever(tmp_path: Path, name: str) -> None:
    build(corpus(2), tmp_path / "s", SPEC)
    build_index(tmp_path / "s", kind="flat")
    grow.delete(tmp_path / "s", ["d000"])
    for path in (tmp_path / "s").glob(name):
        path.unlink()
        os.mkfifo(path)

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    try:
        with pytest.raises(StoreError, match="expected a plain file"):
            Datastore.open(tmp_path / "s", verify=False)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_documents_given_directly_are_checked(tmp_path: Path) -> None:
    report = build([Document("a", "text"), Document("b", " "), Document("", "text of none")], tmp_path / "s", SPEC)
    assert (report.indexed, report.rejected) == (1, 2) and adds_up(report)
    with pytest.raises(InputError, match="dict"):
        build([{"id": "x"}], tmp_path / "t", SPEC)  # type: ignore[list-item]
