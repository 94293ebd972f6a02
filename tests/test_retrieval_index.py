"""The index: what it proposes is decided exactly, what it does not cover is compared, and damage is named."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sleuth.corpora.errors import ConfigError, InputError, StoreError
from sleuth.retrieval import codes, dense, index, recall
from sleuth.retrieval.dense import Dense, Effort
from sleuth.retrieval.index import build_index, load_index
from sleuth.retrieval.layout import Manifest, SegmentEntry
from sleuth.retrieval.plan import parse_size, plan

N, DIMS = 3_000, 32


def clustered(count: int = N, dims: int = DIMS, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    found = (
        random.standard_normal((count, dims)) + 2 * random.standard_normal((20, dims))[random.integers(0, 20, count)]
    )
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)


def exact(vectors: np.ndarray, query: np.ndarray, k: int, allowed: np.ndarray | None = None) -> list[int]:
    scores = vectors.astype(np.float32) @ query
    if allowed is not None:
        scores[~allowed] = -np.inf
    return np.argsort(-scores, kind="stable")[:k].tolist()


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "NUM_QUERIES", 16)
    monkeypatch.setattr(recall, "PROBES", (4, 16, 128))
    monkeypatch.setattr(recall, "DEPTHS", (50, 200))
    monkeypatch.setattr(dense, "FEW", 20)


def made(store: Path, vectors: np.ndarray, cuts: tuple[int, ...] = (1000, 1100)) -> Manifest:
    """A store with segments of ``vectors`` alone, which is all that the index reads."""
    from sleuth.retrieval import layout

    manifest = Manifest(0, "hash", "r1", vectors.shape[1], 200, "english", pipeline="abc")
    if not store.exists():
        layout.create(store, manifest)
    entries = []
    for n, part in enumerate(np.split(vectors, cuts)):
        folder = store / "segments" / f"{n:06d}-x"
        folder.mkdir(exist_ok=True)
        np.save(folder / "vectors.npy", part)
        entries.append(SegmentEntry(folder.name, "", len(part), len(part), {}))
    manifest = dataclasses.replace(manifest, version=1, segments=tuple(entries))
    layout.publish(store, manifest)
    return manifest


def found(search: Dense, query: np.ndarray, k: int, *given: object, **more: object) -> list[tuple[int, float]]:
    """Rows and scores of one query."""
    ((rows, scores),) = search.search(query[None], k, *given, **more)  # type: ignore[arg-type]
    return list(zip(rows.tolist(), scores.tolist(), strict=True))


def opened(store: Path, manifest: Manifest) -> Dense:
    names = [entry.id for entry in manifest.segments]
    vectors = [np.load(store / "segments" / name / "vectors.npy", mmap_mode="r") for name in names]
    return Dense(vectors, names, load_index(store, manifest), "cpu")


@pytest.mark.parametrize("kind", ["sq8", "pq", "rabitq"])
def test_every_code_finds_what_comparing_all_finds_and_scores_exactly(tmp_path: Path, kind: str) -> None:
    vectors = clustered()
    manifest = made(tmp_path / "s", vectors)
    report = build_index(tmp_path / "s", kind=kind, target=0.95)  # type: ignore[arg-type]
    assert report.num_vectors == N and report.recall is not None and report.recall >= 0.95
    search = opened(tmp_path / "s", manifest)
    queries = clustered(20, seed=1).astype(np.float32)
    alone = [found(search, query, 10, effort=Effort(128, 400)) for query in queries]
    shared = [len({row for row, _ in hits} & {*exact(vectors, q, 10)}) for hits, q in zip(alone, queries, strict=True)]
    assert np.mean(shared) >= 9.8
    for effort in (Effort(128, 400), Effort(4, 50)):
        together = search.search(queries, 10, effort=effort)
        for (rows, scores), query in zip(together, queries, strict=True):
            assert list(zip(rows.tolist(), scores.tolist(), strict=True)) == found(search, query, 10, effort=effort)
    for hits, query in zip(alone, queries, strict=True):
        np.testing.assert_allclose([s for _, s in hits], [vectors[r].astype("f4") @ query for r, _ in hits], atol=1e-5)
        assert [s for _, s in hits] == sorted((s for _, s in hits), reverse=True)


def test_a_filter_holds_and_k_rows_come_back_where_k_are_allowed(tmp_path: Path) -> None:
    vectors = clustered()
    manifest = made(tmp_path / "s", vectors)
    build_index(tmp_path / "s", kind="pq")
    search, query = opened(tmp_path / "s", manifest), clustered(1, seed=2)[0].astype(np.float32)
    far = np.zeros(N, bool)
    far[exact(vectors, query, N)[-100:]] = True  # none of these is in the lists near the query
    hits = found(search, query, 50, far, Effort(nprobe=1, depth=1))
    assert len(hits) == 50 and all(far[row] for row, _ in hits)
    assert [row for row, _ in found(search, query, 100, far)] == exact(vectors, query, 100, far)
    few = np.zeros(N, bool)
    few[[5, 1050, 2999]] = True
    assert [row for row, _ in found(search, query, 10, few)] == exact(vectors, query, 3, few)
    assert found(search, query, 10, np.zeros(N, bool)) == []
    assert len(found(search, query, N + 50)) == N  # k beyond the store


def test_new_segments_are_compared_and_gone_ones_are_not_found(tmp_path: Path) -> None:
    vectors = clustered()
    manifest = made(tmp_path / "s", vectors)
    build_index(tmp_path / "s", kind="pq")
    grown = np.concatenate([vectors, clustered(50, seed=3)])
    manifest = made(tmp_path / "s", grown, (1000, 1100, N))
    query = grown[N + 7].astype(np.float32)
    assert found(opened(tmp_path / "s", manifest), query, 1)[0][0] == N + 7
    without = dataclasses.replace(manifest, segments=manifest.segments[1:])
    rows = [row for row, _ in found(opened(tmp_path / "s", without), vectors[5].astype(np.float32), 200)]
    assert len(rows) == 200 and max(rows) < len(grown) - 1000
    best = exact(grown[1000:], vectors[5].astype(np.float32), 5)
    assert len({*rows[:10]} & {*best}) >= 4
    none = dataclasses.replace(manifest, segments=())
    assert found(Dense([], [], load_index(tmp_path / "s", none), "cpu"), query, 3) == []


def test_equal_builds_give_equal_indexes_and_a_new_one_replaces_the_old(tmp_path: Path) -> None:
    vectors = clustered()
    for name in ("a", "b"):
        made(tmp_path / name, vectors)
        build_index(tmp_path / name, kind="rabitq")
    first, second = (sorted((tmp_path / name / "index").glob("*/*.npy")) for name in ("a", "b"))
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second] and len(first) == 6
    build_index(tmp_path / "a", kind="sq8")
    assert len([p for p in (tmp_path / "a" / "index").iterdir() if p.is_dir()]) == 1
    assert json.loads((tmp_path / "a" / "index" / "CURRENT").read_text())[0] != first[0].parent.name


def test_a_damaged_or_foreign_index_is_refused_with_what_to_do(tmp_path: Path) -> None:
    manifest = made(tmp_path / "s", clustered())
    build_index(tmp_path / "s", kind="pq")
    folder = next(p for p in (tmp_path / "s" / "index").iterdir() if p.is_dir())
    with pytest.raises(StoreError, match=r"pipeline other, found format 1 for 'abc'.*sleuth index"):
        load_index(tmp_path / "s", dataclasses.replace(manifest, pipeline="other"))
    with pytest.raises(StoreError, match="expected vectors of 16 dimensions, found 32"):
        load_index(tmp_path / "s", dataclasses.replace(manifest, dims=16))
    for path in sorted(folder.glob("*.npy")):
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(StoreError, match=f"{path.name}: damaged.*sleuth index"):
            load_index(tmp_path / "s", manifest)
        path.unlink()
        with pytest.raises(StoreError, match=f"{path.name}: .*cannot be read"):
            load_index(tmp_path / "s", manifest)
        path.write_bytes(data)
    assert load_index(tmp_path / "s", manifest) is not None
    (tmp_path / "s" / "index" / "CURRENT").write_text('["../../elsewhere", "0"]')
    with pytest.raises(StoreError, match="expected the name of a folder"):
        load_index(tmp_path / "s", manifest)
    shutil.rmtree(tmp_path / "s" / "index")
    assert load_index(tmp_path / "s", manifest) is None


@pytest.mark.parametrize("name", ["index.json", "SUMS"])
def test_building_again_mends_an_index_that_would_have_the_same_name(tmp_path: Path, name: str) -> None:
    manifest = made(tmp_path / "s", clustered())
    build_index(tmp_path / "s", kind="flat")
    (path,) = (tmp_path / "s" / "index").glob(f"*/{name}")
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(StoreError, match=f"{name}: damaged.*sleuth index"):
        load_index(tmp_path / "s", manifest)
    build_index(tmp_path / "s", kind="flat")
    assert load_index(tmp_path / "s", manifest) is not None and path.read_bytes() == data


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("rows", lambda a: np.where(a == 3, 4, a), "each number below 3000 once"),
        ("rows", lambda a: a + 1, "each number below 3000 once"),
        ("sizes", lambda a: a * 2, "lists of 3000 vectors in all"),
        ("coarse", lambda a: a * np.float32("nan"), "finite"),
        ("codes", lambda a: a[:-1], "codes.npy: expected u1"),
        ("book", lambda a: a.astype("f8"), "book.npy: expected f4"),
        ("rotation", lambda a: a[:3], "rotation.npy: expected f4"),
        ("rotation", lambda a: a[:0, :0], "rotation.npy: expected f4"),
    ],
)
def test_arrays_that_checksums_vouch_for_are_still_checked(tmp_path: Path, name, change, message) -> None:  # type: ignore[no-untyped-def]
    from sleuth.retrieval import layout

    manifest = made(tmp_path / "s", clustered())
    build_index(tmp_path / "s", kind="pq")
    folder = next(p for p in (tmp_path / "s" / "index").iterdir() if p.is_dir())
    np.save(folder / f"{name}.npy", change(np.load(folder / f"{name}.npy")))
    (folder / "SUMS").unlink()
    (tmp_path / "s" / "index" / "CURRENT").write_text(json.dumps([folder.name, layout.write_sums(folder)]))
    with pytest.raises(StoreError, match=message):
        load_index(tmp_path / "s", manifest)


def test_a_full_disk_keeps_the_index_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = made(tmp_path / "s", clustered())
    build_index(tmp_path / "s", kind="pq")
    before = (tmp_path / "s" / "index" / "CURRENT").read_bytes()

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device", "codes.npy")

    monkeypatch.setattr(codes, "_sorted", full)
    with pytest.raises(StoreError, match=r"codes.npy: No space left on device; the index of before is kept"):
        build_index(tmp_path / "s", kind="sq8")
    assert (tmp_path / "s" / "index" / "CURRENT").read_bytes() == before
    assert not (tmp_path / "s" / "index" / ".work").exists()
    assert load_index(tmp_path / "s", manifest) is not None


def test_plans_fit_their_budget_and_say_when_nothing_does() -> None:
    assert plan(1_000, 384).kind == "flat" and plan(0, 384).kind == "flat"
    for count in (10**6, 10**7, 10**9):
        for dims in (256, 384, 768):
            chosen = plan(count, dims)
            assert chosen.kind != "flat" and chosen.bytes_per_vector <= 64
            tight = plan(count, dims, memory=int(0.8 * chosen.memory_bytes))
            assert tight.memory_bytes < chosen.memory_bytes
    assert plan(10**6, 384, memory=parse_size("1GB")).kind == "sq8"
    with pytest.raises(ConfigError, match=r"memory of 1.0 MB holds no index of 1,000,000 vectors.*needs"):
        plan(10**6, 384, memory=parse_size("1MB"))
    assert (parse_size("8GB"), parse_size("1.5 MiB"), parse_size("7")) == (8 * 10**9, 1_572_864, 7)
    for wrong in ("", "much", "-1GB", "8XB"):
        with pytest.raises(ConfigError, match="a size such as 8GB"):
            parse_size(wrong)
    with pytest.raises(InputError, match="nprobe: expected an integer of at least 1, found 0"):
        Effort(nprobe=0)
    with pytest.raises(ConfigError, match="a recall above 0"):
        index.build_index("nowhere", target=1.5)


def test_few_vectors_and_none_are_indexed_flat(tmp_path: Path) -> None:
    manifest = made(tmp_path / "s", clustered(5), (2,))
    report = build_index(tmp_path / "s")
    assert (report.kind, report.recall) == ("flat", None)
    assert len(found(opened(tmp_path / "s", manifest), clustered(1)[0].astype(np.float32), 10)) == 5


def test_a_store_searches_through_its_index_and_notes_deletions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sleuth.retrieval import grow
    from sleuth.retrieval.build import BuildSpec, build
    from sleuth.retrieval.store import Datastore
    from tests.retrieval_stores import corpus, use_hash_embedder

    use_hash_embedder(monkeypatch)
    path = tmp_path / "s"
    build(corpus(200), path, BuildSpec("hash", segment_documents=70))

    def answer(query: str, **given: object) -> tuple[list[float], list[str]]:
        """Scores, and ids but for those that tie for the last place."""
        hits = Datastore.open(path).search([query], 8, mode="dense", **given)[0]  # type: ignore[arg-type]
        scores = [round(hit.score, 4) for hit in hits]
        return scores, sorted(hit.passage.id for hit in hits if hit.score > hits[-1].score + 1e-4)

    before = answer("steam engine number 84"), answer("castle siege", where={"year": {">=": 2000}})
    fingerprint = Datastore.open(path).fingerprint
    build_index(path, kind="pq")
    most = Effort(nprobe=10_000, depth=10_000)
    assert Datastore.open(path).index is not None and Datastore.open(path).fingerprint == fingerprint
    assert answer("steam engine number 84", effort=most) == before[0]
    assert answer("castle siege", where={"year": {">=": 2000}}, effort=most) == before[1]
    gone = "d084"
    grow.delete(path, [gone])
    after = answer("steam engine number 84", effort=most)
    assert len(after[0]) == 8 and gone in before[0][1] and gone not in after[1]
    grow.compact(path)  # its segments are new ones: compared in full until they are indexed
    assert answer("steam engine number 84") == after
    index_of_before = next(p for p in (path / "index").glob("*/codes.npy"))
    index_of_before.write_bytes(b"")
    with pytest.raises(StoreError, match=r"codes.npy: damaged.*sleuth index STORE"):
        Datastore.open(path)
    build_index(path)  # mends it
    assert answer("steam engine number 84") == after


def test_a_query_chooses_its_lists_by_itself_and_fewer_where_the_nearest_stand_out(tmp_path: Path) -> None:
    lists = 100
    steady, standing_out, alike = np.linspace(1, 0, lists), np.where(np.arange(lists) < 25, 1.0, 0.2), np.ones(lists)
    coarse = np.stack([steady, standing_out, alike], axis=1).astype(np.float32)  # (L, 3): a query is an axis
    none = np.zeros(0)
    held = codes.Codes(coarse, none, none, none, none, none, np.full(lists, 0.3, np.float32))
    axes = np.eye(3, dtype=np.float32)
    chosen, products = recall.nearest_lists(held, axes, 20)
    assert chosen[0].tolist() == [*range(49), *[-1] * 31]  # down to the twentieth less 0.3
    assert chosen[1].tolist() == [*range(25), *[-1] * 55]
    assert len({*chosen[2].tolist()} - {-1}) == recall.MOST * 20 == 80
    assert (products[0, :49] == coarse[:49, 0]).all()
    for axis, together in zip(axes, chosen, strict=True):
        alone = recall.nearest_lists(held, axis[None], 20)[0][0]
        assert alone.tolist() == together[together >= 0].tolist()
        assert set(recall.nearest_lists(held, axis[None], lists)[0][0].tolist()) == set(range(lists))

    vectors = clustered()
    manifest = made(tmp_path / "s", vectors)
    build_index(tmp_path / "s", kind="pq")
    found = load_index(tmp_path / "s", manifest)
    assert found is not None and found.codes is not None
    queries = vectors[::10].astype(np.float32) @ found.codes.rotation.T
    for nprobe in (1, 8, 32, 64):
        seen = np.count_nonzero(recall.nearest_lists(found.codes, queries, nprobe)[0] >= 0, axis=1)
        assert 0.5 * nprobe < seen.mean() < 2 * nprobe and seen.min() >= 1


def test_half_precision_widens_exactly_and_rows_of_many_segments_come_in_order() -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)]
    assert (recall.widened(finite).view(np.uint32) == finite.astype(np.float32).view(np.uint32)).all()
    vectors = clustered(100)
    parts, first = [vectors[:7], vectors[7:7], vectors[7:60], vectors[60:]], np.array([0, 7, 7, 60, 100])
    rows = np.array([0, 6, 7, 59, 60, 99])
    assert (recall.gather(parts, first, rows) == vectors[rows]).all()
    queries = clustered(9, seed=4).astype(np.float32)
    proposed = [np.random.default_rng(n).permutation(100)[: 20 + n] for n in range(9)]
    hits = recall.compared(parts, first, queries, proposed, 5)
    for (found_rows, _), query, own in zip(hits, queries, proposed, strict=True):
        kept = np.zeros(100, bool)
        kept[own] = True
        assert found_rows.tolist() == exact(vectors, query, 5, kept)


def test_the_best_are_those_of_a_stable_sort() -> None:
    random = np.random.default_rng(0)
    for _ in range(500):
        count, k = int(random.integers(0, 60)), int(random.integers(0, 8))
        rows, scores = np.arange(count), random.integers(0, 9, count).astype(np.float32)
        order = np.argsort(-scores, kind="stable")[:k]
        found, theirs = recall.best(rows, scores, k)
        assert found.tolist() == order.tolist() and theirs.tolist() == scores[order].tolist()
