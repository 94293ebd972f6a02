"""Growing: added, deleted, merged and pinned versions against stores that were built of the same documents at once."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sleuth.corpora.errors import InputError, StoreError
from sleuth.corpora.records import Document
from sleuth.retrieval import grow, keys, layout, merge
from sleuth.retrieval.bm25 import Postings
from sleuth.retrieval.build import BuildSpec, build
from sleuth.retrieval.index import build_index
from sleuth.retrieval.layout import SegmentEntry
from sleuth.retrieval.segment import Segment
from sleuth.retrieval.store import Datastore
from sleuth.retrieval.tokens import Analyzer
from tests.retrieval_stores import HashEmbedder, corpus, use_hash_embedder

SPEC = BuildSpec(segment_documents=8, max_words=100)
QUERIES = ["castle siege number", "river mill town3", "violin", "part told at length"]


@pytest.fixture(autouse=True)
def hash_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    use_hash_embedder(monkeypatch)


def hits(store: Path, snapshot: str = "") -> list[list[tuple[float, str]]]:
    """Everything that can be found, by all modes and under a filter; equal scores by id, fused ones as ids alone."""
    opened = Datastore.open(store, snapshot=snapshot)
    found = []
    for mode in ("bm25", "dense", "hybrid"):
        for where in (None, {"source": "left"}):
            for rows in opened.search(QUERIES, 50, where, mode):  # type: ignore[arg-type]
                scored = mode != "hybrid"  # close vectors may change places by the last bit of a score
                found.append(sorted((-round(hit.score, 4) if scored else 0.0, hit.passage.id) for hit in rows))
    return found


def test_deleted_documents_are_gone_from_everything_as_if_never_built(tmp_path: Path) -> None:
    documents = corpus(24)
    gone = {"d000", "d003", "d006", "d013", "d023"}
    build(documents, tmp_path / "s", SPEC)
    done = grow.delete(tmp_path / "s", [*sorted(gone), "d000", "nobody"])
    build([d for d in documents if d.id not in gone], tmp_path / "fresh", SPEC)
    assert (done.asked, done.deleted, done.missing, done.documents) == (6, 5, ("nobody",), 19)
    assert hits(tmp_path / "s") == hits(tmp_path / "fresh")
    store, fresh = Datastore.open(tmp_path / "s"), Datastore.open(tmp_path / "fresh")
    assert len(store) == len(fresh) and store.manifest.passages == fresh.manifest.passages
    for query in ("select id from documents order by id", "select id, text from passages order by id"):
        assert store.sql(query) == fresh.sql(query)
    for call in (store.document, lambda id_: store.fetch([id_])):
        with pytest.raises(KeyError):
            call("d003")
    assert grow.content_digest(tmp_path / "s") == grow.content_digest(tmp_path / "fresh")


def test_a_copy_that_lacks_empty_folders_can_be_changed(tmp_path: Path) -> None:
    build(corpus(12), tmp_path / "s", SPEC)
    for name in ("work", "reports"):
        shutil.rmtree(tmp_path / "s" / name)
    assert grow.delete(tmp_path / "s", ["d003"]).deleted == 1
    shutil.rmtree(tmp_path / "s" / "work")
    assert build(corpus(16), tmp_path / "s", SPEC).added == 5
    assert len(Datastore.open(tmp_path / "s")) == len(Datastore.open(tmp_path / "s").sql("select id from passages")[1])


def test_delete_by_filter_and_what_it_refuses(tmp_path: Path) -> None:
    build(corpus(20), tmp_path / "s", SPEC)
    assert grow.delete(tmp_path / "s", where={"source": "left", "year": {"<": 1905}}).deleted == 2
    before = grow.delete(tmp_path / "s", ["d001"])  # gone already: no new version
    assert before.deleted == 0 and before.missing == ("d001",)
    with pytest.raises(InputError, match="unknown field"):
        grow.delete(tmp_path / "s", where={"colour": "red"})
    with layout.locked(tmp_path / "s"), pytest.raises(StoreError, match="another build"):
        grow.delete(tmp_path / "s", ["d002"])
    with pytest.raises(StoreError, match="no datastore"):
        grow.delete(tmp_path / "nowhere", ["d002"])
    assert not (tmp_path / "nowhere").exists()


def test_a_filter_deletes_nothing_by_damaged_metadata(tmp_path: Path) -> None:
    build(corpus(20), tmp_path / "s", SPEC)
    before = layout.read_manifest(tmp_path / "s")
    path = next((tmp_path / "s" / "segments").glob("000002-*/documents.arrow"))
    data = path.read_bytes()
    at = data.index(b'"year": 19') + len('"year": 1')
    path.write_bytes(data[:at] + b"8" + data[at + 1 :])  # a document of 1808, say, where it was of 1908
    with pytest.raises(StoreError, match=r"documents\.arrow: damaged; expected xxh3"):
        grow.delete(tmp_path / "s", where={"year": {"<": 1900}})
    assert layout.read_manifest(tmp_path / "s") == before


def test_a_field_that_an_addition_leaves_empty_keeps_its_type(tmp_path: Path) -> None:
    prices = (5, 9, 40, 60, 100, 250)
    build([Document(f"p{n}", f"Thing {n}.", metadata={"price": n, "sold": None}) for n in prices], tmp_path / "s", SPEC)
    grow.add(tmp_path / "s", [Document("none", "A thing without a price.", metadata={"price": None, "sold": None})])
    for step in (lambda: None, lambda: grow.compact(tmp_path / "s")):
        step()
        store = Datastore.open(tmp_path / "s")
        assert store.fields == {"price": "int", "sold": "str"}
        assert store.matching({"price": {">": 45}}) == ["p60", "p100", "p250"]
        assert len(store.matching({"sold": None})) == 7
    assert grow.delete(tmp_path / "s", where={"price": {">": 45}}).deleted == 3
    grow.add(tmp_path / "s", [Document("later", "One that is sold.", metadata={"sold": 3.5})])
    assert Datastore.open(tmp_path / "s").fields == {"price": "int", "sold": "float"}


def test_a_deleted_document_can_come_again_and_a_changed_one_takes_its_place(tmp_path: Path) -> None:
    documents = corpus(12)
    build(documents, tmp_path / "s", SPEC)
    grow.delete(tmp_path / "s", ["d002"])
    changed = dataclasses.replace(documents[5], text="A wholly new account of the glacier.")
    inputs = [
        documents[1],
        documents[2],
        changed,
        dataclasses.replace(documents[5], text="third"),
        Document("n", "new"),
    ]
    report = grow.add(tmp_path / "s", inputs)
    assert (report.added, report.updated, report.rejected, report.documents) == (3, 1, 1, 13)
    store = Datastore.open(tmp_path / "s")
    assert store.document("d005").text == changed.text and store.document("d002") == documents[2]
    assert store.search(["glacier"], 3, mode="bm25")[0][0].passage.doc_id == "d005"
    assert store.manifest.dims == 64 and store.manifest.max_words == 100
    again = grow.add(tmp_path / "s", inputs[:3])
    assert (again.added, again.updated, again.fingerprint) == (0, 0, report.fingerprint)
    refused = grow.add(tmp_path / "s", [documents[5]], update=False)
    assert refused.rejected == 1


def texts(store: Path) -> dict[str, str]:
    return {str(id_): str(text) for id_, text in Datastore.open(store).sql("select id, text from documents")[1]}


A, B, C, X = (f"the {name} text" for name in ("first", "second", "third", "newest"))


@pytest.mark.parametrize(
    ("inputs", "left", "updated", "duplicates"),
    [
        ([("p1", B), ("p2", A)], {"p1": B, "p2": A, "p3": C}, 2, 0),  # they swap
        ([("p1", B), ("p2", C)], {"p1": B, "p3": C}, 1, 1),  # the last of a chain is there under its old id
        ([("p1", B), ("p2", C), ("p3", A)], {"p1": B, "p2": C, "p3": A}, 3, 0),
        ([("old", A), ("p1", X)], {"old": A, "p1": X, "p2": B, "p3": C}, 1, 0),
        ([("p1", X), ("old", A)], {"old": A, "p1": X, "p2": B, "p3": C}, 1, 0),
        ([("old", A), ("p1", A)], {"p1": A, "p2": B, "p3": C}, 0, 1),  # what it is a copy of stays
        ([("old", A)], {"p1": A, "p2": B, "p3": C}, 0, 1),
        ([("p1", B)], {"p2": B, "p3": C}, 0, 1),
        ([("old", A), ("older", A), ("old", A), ("p1", X)], {"old": A, "p1": X, "p2": B, "p3": C}, 1, 2),
        ([("old", A), ("old", X), ("p1", X)], {"old": A, "p1": X, "p2": B, "p3": C}, 1, 0),  # the first of an id
        ([("new", X), ("p1", X)], {"new": X, "p2": B, "p3": C}, 0, 1),
        ([("old", A), ("new", X), ("p1", X)], {"old": A, "new": X, "p2": B, "p3": C}, 0, 1),
    ],
)
@pytest.mark.parametrize("segment_documents", [1, 8])
def test_no_text_that_the_inputs_have_is_lost_whatever_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: list[tuple[str, str]], left: dict[str, str], updated: int,
    duplicates: int, segment_documents: int,
) -> None:  # fmt: skip
    build([Document("p1", A), Document("p2", B), Document("p3", C)], tmp_path / "s", SPEC)
    given = [Document(id_, text) for id_, text in inputs]
    spec = dataclasses.replace(SPEC, segment_documents=segment_documents)
    monkeypatch.setattr("sleuth.retrieval.build.HELD_BYTES", 10)
    monkeypatch.setattr("sleuth.retrieval.build.BLOCK", segment_documents)
    report = build(given, tmp_path / "s", spec, update=True)
    assert texts(tmp_path / "s") == left
    assert (report.updated, report.duplicates, report.documents) == (updated, duplicates, len(left))
    again = build(given, tmp_path / "s", spec, update=True)
    assert texts(tmp_path / "s") == left and (again.added, again.updated) == (0, 0)


def test_an_update_that_gives_its_text_to_a_copy_is_whole_in_every_version(tmp_path: Path) -> None:
    build([Document(f"p{n}", f"text {n}") for n in range(6)], tmp_path / "s", SPEC)
    turned = [Document(f"p{n}", f"text {(n + 1) % 6}", url="https://example.org/") for n in range(6)]
    seen: list[dict[str, str]] = []

    def stop(stage: str, done: int, total: int | None) -> None:
        if stage == "commit":
            seen.append(texts(tmp_path / "s"))
            if len(seen) == 3:
                raise KeyboardInterrupt

    spec = dataclasses.replace(SPEC, segment_documents=2)
    with pytest.raises(KeyboardInterrupt):
        build(turned, tmp_path / "s", spec, stop, update=True)
    build(turned, tmp_path / "s", spec, update=True)
    assert all(set(found.values()) >= {f"text {n}" for n in range(1, 6)} for found in seen)
    assert all(len(found) == 6 for found in seen)
    assert texts(tmp_path / "s") == {document.id: document.text for document in turned}
    assert Datastore.open(tmp_path / "s").document("p3") == turned[3]


def test_compacting_changes_no_answer_and_takes_fewer_segments(tmp_path: Path) -> None:
    documents = corpus(30)
    build(documents, tmp_path / "s", SPEC)
    grow.delete(tmp_path / "s", [d.id for d in documents[8:16]] + ["d000", "d020"])
    expected, content = hits(tmp_path / "s"), grow.content_digest(tmp_path / "s")
    done = grow.compact(tmp_path / "s")
    assert (done.segments_before, done.segments, done.documents, done.removed) == (4, 1, 20, 10)
    assert hits(tmp_path / "s") == expected and grow.content_digest(tmp_path / "s") == content
    assert grow.compact(tmp_path / "s").fingerprint == done.fingerprint  # nothing left to do
    report = grow.add(tmp_path / "s", documents[:9])
    assert (report.indexed, report.added) == (9, 2)
    grow.delete(tmp_path / "s", [d.id for d in documents])
    assert grow.compact(tmp_path / "s").segments == 0
    assert Datastore.open(tmp_path / "s").search(["castle"], 3) == [[]]


def test_merged_postings_are_those_of_the_texts_that_are_left() -> None:
    analyzer = Analyzer()
    texts = [[d.text for d in corpus(20)[start : start + 5]] for start in (0, 5, 10)]
    alive = [np.array(mask, bool) for mask in ([1, 0, 1, 1, 0], [0] * 5, [1] * 5)]
    merged = Postings.merged([Postings.of(part, analyzer) for part in texts], alive)
    left = [
        text for part, mask in zip(texts, alive, strict=True) for text, kept in zip(part, mask, strict=True) if kept
    ]
    expected = Postings.of(left, analyzer)
    for name in ("terms", "starts", "rows", "counts", "lengths"):
        found, wanted = getattr(merged, name), getattr(expected, name)
        assert found.dtype == wanted.dtype and np.array_equal(found, wanted), name


def test_a_snapshot_keeps_a_version_until_it_is_dropped(tmp_path: Path) -> None:
    documents = corpus(20)
    build(documents[:10], tmp_path / "s", SPEC)
    expected = hits(tmp_path / "s")
    pinned = grow.pin(tmp_path / "s", "june")
    grow.add(tmp_path / "s", documents[10:])
    grow.delete(tmp_path / "s", ["d001", "d002"])
    grow.compact(tmp_path / "s")
    assert hits(tmp_path / "s", "june") == expected != hits(tmp_path / "s")
    assert [s.name for s in grow.snapshots(tmp_path / "s")] == ["", "june"]
    assert Datastore.open(tmp_path / "s", snapshot="june").fingerprint == pinned.fingerprint
    with pytest.raises(InputError, match="there already"):
        grow.pin(tmp_path / "s", "june")
    for name in ("../x", "", ".hidden", "a/b"):
        with pytest.raises(InputError, match="snapshot name"):
            grow.pin(tmp_path / "s", name)
    with pytest.raises(StoreError, match=r"no snapshot 'july'; known: june"):
        Datastore.open(tmp_path / "s", snapshot="july")
    shutil.copytree(tmp_path / "s", tmp_path / "t")
    grow.restore(tmp_path / "s", "june")
    assert hits(tmp_path / "s") == expected
    held = {entry.id for entry in layout.read_manifest(tmp_path / "t", "june")[0].segments}
    assert held <= {path.name for path in (tmp_path / "t" / "segments").iterdir()}
    grow.delete(tmp_path / "t", ["d015"])
    grow.drop(tmp_path / "t", "june")
    assert not held & {path.name for path in (tmp_path / "t" / "segments").iterdir()}


def test_a_reader_keeps_its_version_through_deletion_and_compaction(tmp_path: Path) -> None:
    build(corpus(20), tmp_path / "s", SPEC)
    reader = Datastore.open(tmp_path / "s")
    grow.delete(tmp_path / "s", ["d001", "d006"])
    grow.compact(tmp_path / "s")
    for n in range(3):  # what the reader has open is gone from the disk by then
        grow.add(tmp_path / "s", [Document(f"x{n}", f"Extra {n}.")])
    held = {entry.id for entry in reader.manifest.segments}
    assert not held & {path.name for path in (tmp_path / "s" / "segments").iterdir()}
    found = {hit.passage.doc_id for rows in reader.search(QUERIES, 50) for hit in rows}
    assert {"d001", "d006"} <= found and reader.document("d001")


def test_a_damaged_or_missing_bitmap_is_found_and_named(tmp_path: Path) -> None:
    build(corpus(8), tmp_path / "s", SPEC)
    grow.delete(tmp_path / "s", ["d001"])
    (path,) = (tmp_path / "s" / "deletes").iterdir()
    data = path.read_bytes()
    for damaged in (bytes([data[0] ^ 1]) + data[1:], b""):
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match=f"{path.name}: damaged"):
            Datastore.open(tmp_path / "s")
    path.unlink()
    with pytest.raises(StoreError, match=f"{path.name}: the manifest names it"):
        Datastore.open(tmp_path / "s")


def test_the_bitmaps_of_one_commit_are_one_file_and_each_is_checked(tmp_path: Path) -> None:
    store = tmp_path / "s"
    build(corpus(24), store, SPEC)
    grow.delete(store, ["d001", "d009"])
    grow.delete(store, ["d002", "d017"])  # the first segment's bitmap moves to a second file, the second's stays
    entries = layout.read_manifest(store)[0].segments
    assert [(entry.deleted, entry.deletes_at) for entry in entries] == [(2, 0), (1, 1), (1, 1)]
    names = [entry.deletes_file for entry in entries]
    assert names[0] == names[2] != names[1] and {p.name for p in (store / "deletes").iterdir()} == set(names)
    path = store / "deletes" / names[0]
    data = path.read_bytes()
    path.write_bytes(data[:1] + bytes([data[1] ^ 1]))
    with pytest.raises(StoreError, match=f"{path.name}: damaged; expected xxh3 .* of {entries[2].id}, found"):
        Datastore.open(store)
    path.write_bytes(data)
    grow.delete(store, ["d010"])
    grow.delete(store, ["d011"])  # two versions on, only what the last two name is kept
    held = {entry.deletes_file for entry in layout.read_manifest(store)[0].segments}
    assert held < {p.name for p in (store / "deletes").iterdir()} and len(list((store / "deletes").iterdir())) == 3


def aged(store: Path, with_keys: bool) -> None:
    """Make the store what it was before segments had one file of keys, or any, and commits one file of bitmaps."""
    manifest, _ = layout.read_manifest(store)
    entries = []
    for entry in manifest.segments:
        folder = store / "segments" / entry.id
        for name in ("SUMS", keys.FILE):
            (folder / name).unlink()
        if with_keys:
            part = Segment.open(folder, manifest.dims).columns
            found = keys.hashes(part["id"].to_pylist(), part["digest"].to_pylist())
            rows = np.argsort(found, axis=1).astype(np.int32)
            for name, array in zip(keys.OLDER, (np.take_along_axis(found, rows, 1), rows), strict=True):
                np.save(folder / name, array)
        if entry.deletes:
            size = (entry.documents + 7) // 8
            data = (store / "deletes" / entry.deletes_file).read_bytes()[entry.deletes_at :][:size]
            (store / "deletes" / f"{entry.id}.{entry.deletes}").write_bytes(data)
        sums = layout.write_sums(folder)
        entries.append(dataclasses.replace(entry, sums=sums, deletes_file="", deletes_at=0))
    layout.publish(store, dataclasses.replace(manifest, segments=tuple(entries)))


@pytest.mark.parametrize("with_keys", [True, False])
def test_a_store_from_before_keys_and_shared_bitmaps_is_read_and_grows(tmp_path: Path, with_keys: bool) -> None:
    documents = corpus(24)
    for name in ("old", "new"):
        build(documents[:16], tmp_path / name, SPEC)
        grow.delete(tmp_path / name, ["d001", "d009"])
    aged(tmp_path / "old", with_keys)
    held = sorted(p.name for p in (tmp_path / "old" / "deletes").iterdir() if "." in p.name)
    manifest = layout.read_manifest(tmp_path / "old")[0]
    assert len(held) == 2 and b"deletes_file" not in manifest.encode() and b"deletes_at" not in manifest.encode()
    assert hits(tmp_path / "old") == hits(tmp_path / "new")
    assert Datastore.open(tmp_path / "old").document("d003") == documents[3]
    changed = dataclasses.replace(documents[5], text="A wholly new account of the glacier.")
    for step in (
        lambda store: grow.add(store, [*documents[15:], changed, documents[9]]),
        lambda store: grow.delete(store, ["d002", "d013", "d020", "nobody"]),
        lambda store: grow.compact(store),
    ):
        step(tmp_path / "old"), step(tmp_path / "new")
        found = [layout.read_manifest(tmp_path / name)[0] for name in ("old", "new")]
        assert found[0].passages == found[1].passages and found[0].documents == found[1].documents
        assert hits(tmp_path / "old") == hits(tmp_path / "new")
        assert grow.content_digest(tmp_path / "old") == grow.content_digest(tmp_path / "new")
    (entry,) = layout.read_manifest(tmp_path / "old")[0].segments
    path = tmp_path / "old" / "segments" / entry.id / keys.FILE  # a merged segment has them
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(StoreError, match=f"{keys.FILE}: damaged"):
        grow.delete(tmp_path / "old", ["d003"])


def entries(*documents: int, deleted: int = 0, passages: int = 1) -> list[SegmentEntry]:
    return [SegmentEntry(str(n), "", size, size * passages, {}, deleted=deleted, deleted_passages=deleted * passages)
            for n, size in enumerate(documents)]  # fmt: skip


def test_ten_neighbours_of_a_size_are_due_to_be_merged_and_no_others() -> None:
    def due(found: list[SegmentEntry], indexed: tuple[str, ...] = ()) -> list[str]:
        return [entry.id for entry in merge.due(found, indexed)]

    ten = [str(n) for n in range(10)]
    assert due(entries(*[2_000] * 10)) == ten and due(entries(*[2_000] * 9)) == []
    assert due(entries(*[2_000] * 55)) == ten  # the first ten of a run, as if they had been merged when they came
    assert due(entries(20_000, *[3] * 10)) == [str(n) for n in range(1, 11)]
    assert due(entries(*[50] * 5, 7, *[50] * 5)) == [str(n) for n in range(11)]  # with the smaller one among them
    assert due(entries(*[50] * 5, 700, *[50] * 5)) == []
    assert due(entries(*[5_000] * 10)) == ten[:6]  # to the largest that a segment may be
    assert due(entries(*[2_000] * 10, passages=5)) == ten[:3]
    assert due(entries(*[20_000] * 20)) == [] == due(entries(*[3_000] * 20, passages=20))  # full
    assert due(entries(*[2_000] * 12), ("1",)) == [str(n) for n in range(2, 12)]
    assert due(entries(*[2_000] * 12), ("2",)) == []
    assert due(entries(*[20_000] * 10, deleted=15_000)) == ten[:6]
    assert due(entries(*[5] * 10, deleted=5)) == ten  # nothing is left of them


def test_a_store_that_grows_by_little_keeps_few_segments_and_ends_as_one_built_at_once(tmp_path: Path) -> None:
    documents = corpus(130)
    for n in range(0, 130, 2):
        grow.add(tmp_path / "s", documents[n : n + 2]) if n else build(documents[:2], tmp_path / "s", SPEC)
        if n == 60:
            grow.delete(tmp_path / "s", ["d001", "d030", "d061"])
    gone = {"d001", "d030", "d061"}
    build([d for d in documents if d.id not in gone], tmp_path / "fresh", SPEC)
    found = [entry.documents - entry.deleted for entry in layout.read_manifest(tmp_path / "s")[0].segments]
    assert found == [19, 19, 20, 19, 20, 20, *[2] * 5]
    lexical = 2 * len(QUERIES)  # the rest is dense, where the last of 50 is chosen among equals by the last bit
    assert hits(tmp_path / "s")[:lexical] == hits(tmp_path / "fresh")[:lexical]
    assert grow.content_digest(tmp_path / "s") == grow.content_digest(tmp_path / "fresh")


@pytest.mark.parametrize("workers", [0, 2])
def test_updates_and_copies_are_found_while_segments_are_merged_under_them(tmp_path: Path, workers: int) -> None:
    old = corpus(40)
    changed = {n: dataclasses.replace(old[n], text=f"{old[n].text} Revised.") for n in range(0, 40, 3)}
    inputs = []
    for n in range(40):  # in one block: new ones make commits, and so merges, between updates, copies and ids taken
        inputs += [Document(f"new{n}", f"A new account, number {n}, of the mill."), changed.get(n, old[n])]
        inputs += [dataclasses.replace(old[n], id=f"copy{n}"), dataclasses.replace(old[n], text="Third.")]
    spec = dataclasses.replace(SPEC, segment_documents=2)
    build(old, tmp_path / "s", spec)
    if workers:
        with pytest.MonkeyPatch.context() as patch:  # processes of their own would have another embedder
            patch.setattr("sleuth.retrieval.build.run_all", ahead)
            patch.setattr("sleuth.retrieval.job._model", lambda spec, device: HashEmbedder())
            report = build(inputs, tmp_path / "s", spec, update=True, workers=workers)
    else:
        report = build(inputs, tmp_path / "s", spec, update=True)
    expected = {n: changed.get(n, old[n]) for n in range(40)}
    store = Datastore.open(tmp_path / "s")
    assert (report.updated, report.documents) == (14, 40 + 40 + 14)  # copies of a text that was replaced are new
    assert all(store.document(f"d{n:03d}") == expected[n] for n in range(40))
    assert store.sql("select count(*), count(distinct id) from documents")[1] == [(94, 94)]
    assert len(store.manifest.segments) < 20 and max(entry.documents for entry in store.manifest.segments) >= 20
    again = build(inputs, tmp_path / "s", spec, update=False)
    assert again.fingerprint == report.fingerprint and again.added == 0


def ahead(function: Callable[[Any], Any], jobs: Any, died: object, workers: int, engine: str) -> Any:
    """As a pool does it: jobs are drawn before the results of earlier ones are taken."""
    waiting = []
    for job in jobs:
        waiting.append((job, function(job)))
        if len(waiting) > workers:
            yield waiting.pop(0)
    yield from waiting


def test_segments_that_an_index_covers_are_not_merged(tmp_path: Path) -> None:
    documents = corpus(80)
    spec = dataclasses.replace(SPEC, segment_documents=5)
    build(documents[:45], tmp_path / "s", spec)
    build_index(tmp_path / "s", kind="sq8")
    grow.add(tmp_path / "s", documents[45:])
    for n in range(6):
        grow.add(tmp_path / "s", [Document(f"x{n}", f"Extra {n}.")])
    found = [entry.documents for entry in layout.read_manifest(tmp_path / "s")[0].segments]
    assert found[:9] == [5] * 9 and sum(found) == 86 and len(found) < 9 + 13


class Killed(BaseException):
    """The process ends here."""


OPERATIONS: tuple[tuple[Any, str], ...] = (
    (os, "fsync"), (Path, "rename"), (Path, "replace"), (Path, "mkdir"), (Path, "unlink"), (shutil, "rmtree"),
)  # fmt: skip


@pytest.mark.parametrize("step", ["delete", "update", "merge", "compact", "restore"])
def test_killed_at_any_point_it_is_the_version_before_or_after(tmp_path: Path, step: str) -> None:
    documents = corpus(8)
    changed = [dataclasses.replace(d, text=f"{d.text} Revised.") for d in documents[2:5]]
    spec = dataclasses.replace(SPEC, segment_documents=4)
    build(documents, tmp_path / "first", spec)
    if step == "merge":  # ten segments, which the next addition merges
        for n in range(8):
            grow.add(tmp_path / "first", [Document(f"x{n}", f"Extra number {n}.")])
    grow.pin(tmp_path / "first", "old")
    grow.delete(tmp_path / "first", ["d007"])
    steps: dict[str, Callable[[Path], object]] = {
        "delete": lambda store: grow.delete(store, ["d000", "d005"]),
        "update": lambda store: grow.add(store, changed),
        "merge": lambda store: grow.add(store, changed),
        "compact": grow.compact,
        "restore": lambda store: grow.restore(store, "old"),
    }
    shutil.copytree(tmp_path / "first", tmp_path / "whole")
    before = hits(tmp_path / "whole")
    steps[step](tmp_path / "whole")
    after = hits(tmp_path / "whole")
    for point in range(1, 200):
        store = tmp_path / f"s{point}"
        shutil.copytree(tmp_path / "first", store)
        count = 0

        def guarded(operation: Callable[..., Any], limit: int = point) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal count
                count += 1
                if count >= limit:
                    raise Killed
                return operation(*args, **kwargs)

            return call

        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
            use_hash_embedder(patch)
            for home, name in OPERATIONS:
                patch.setattr(home, name, guarded(getattr(home, name)))
            steps[step](store)
        if count < point:
            assert point > 3
            break
        assert hits(store) in (before, after)
        steps[step](store)
        assert hits(store) == after
        assert {path.name for path in (store / "work").iterdir()} == set()
        shutil.rmtree(store)
