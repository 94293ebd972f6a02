"""A Qdrant collection behind the `Retriever` contract: dense search over machines, by an established vector database.

`fill` copies a datastore's passages, vectors and metadata into a collection, under the store's fingerprint; the
embedder that encodes queries stays the store's. With a path or ``:memory:`` Qdrant runs inside this process and
compares all vectors; with an address it is a server or a cluster, which shards and replicates. The extra `qdrant`.
"""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sleuth.corpora.errors import ConfigError, InputError, StoreError
from sleuth.corpora.records import Passage, Scalar
from sleuth.retrieval.embed import Embedder, embedder
from sleuth.retrieval.records import Filter, Hit
from sleuth.retrieval.static import QUERY_CHARS
from sleuth.retrieval.tokens import WORD

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

    from sleuth.retrieval.store import Datastore

FIELDS = ("id", "title", "url", "source", "lang", "date")
BATCH = 256
BOUNDS = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}


def connect(where: str, api_key: str | None = None) -> QdrantClient:
    """``:memory:``, a folder, or the address of a server."""
    try:
        from qdrant_client import QdrantClient
    except ImportError as error:
        raise ConfigError("Qdrant's client is not installed: pip install 'sleuth[qdrant]'") from error
    if where == ":memory:":
        return QdrantClient(location=where)
    if where.startswith(("http://", "https://")):
        return QdrantClient(url=where, api_key=api_key)
    return QdrantClient(path=where)


def fill(client: QdrantClient, collection: str, store: Datastore) -> None:
    """Copy a store into a new collection; raises `StoreError` where one of that name is there already. What the
    collection was made from stands in a point of its own, written last."""
    from qdrant_client import models

    if client.collection_exists(collection):
        raise StoreError(f"collection {collection!r}: there already; delete it first, or choose another name")
    manifest = store.manifest
    vectors = models.VectorParams(size=manifest.dims, distance=models.Distance.DOT)
    client.create_collection(collection, vectors_config=vectors)
    points = _points(store)
    while batch := list(itertools.islice(points, BATCH)):
        client.upsert(collection, batch, wait=True)
    about = {"fingerprint": store.fingerprint, "embedder": manifest.embedder, "revision": manifest.revision,
             "passages": len(store), "fields": json.dumps(store.fields)}  # fmt: skip
    zeros = [0.0] * manifest.dims
    client.upsert(collection, [models.PointStruct(id=_ABOUT, vector=zeros, payload={"about": about})], wait=True)


_ABOUT = str(uuid.UUID(int=0))


def _points(store: Datastore) -> Iterator[Any]:
    import numpy as np
    from qdrant_client import models

    for segment in store._segments:
        kept = segment.alive_passages
        for row in range(len(segment.passages)) if kept is None else np.flatnonzero(kept).tolist():
            passage, _ = segment.passage(row)
            document = segment.document(int(segment.spans["document"][row]))
            fields = {name: getattr(document, name) for name in FIELDS}
            payload = {"passage": asdict(passage), "document": {**document.metadata, **fields}}
            vector = np.asarray(segment.vectors[row], np.float32).tolist()
            yield models.PointStruct(id=point_id(passage.id), vector=vector, payload=payload)


def point_id(passage_id: str) -> str:
    """Qdrant names points by numbers or UUIDs."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, passage_id))


class Qdrant:
    """A `Retriever` over a collection that `fill` made; raises `StoreError` for any other."""

    def __init__(self, client: QdrantClient, collection: str, device: str = "cpu") -> None:
        found = client.retrieve(collection, [_ABOUT]) if client.collection_exists(collection) else []
        about = (found[0].payload or {}).get("about") if found else None
        if not isinstance(about, dict):
            raise StoreError(f"collection {collection!r}: expected one that was filled from a store, found none such")
        self.client, self.collection = client, collection
        self.fingerprint = str(about["fingerprint"])
        """Of the store that it was filled from."""
        self._passages, self._fields = int(about["passages"]), json.loads(about["fields"])
        self._embedder: Embedder = embedder(str(about["embedder"]), device)
        if self._embedder.revision != about["revision"]:
            raise StoreError(
                f"collection {collection!r}: filled with embedder {about['embedder']!r} revision {about['revision']}, "
                f"found revision {self._embedder.revision}"
            )

    def __len__(self) -> int:
        """Number of passages."""
        return self._passages

    def search(self, queries: Sequence[str], k: int, where: Filter | None = None) -> list[list[Hit]]:
        """As `Datastore.search` in mode ``dense``, except that a filter gives texts no order."""
        from qdrant_client import models

        if isinstance(queries, str):
            raise InputError("queries: expected a list of strings, found one string")
        if not isinstance(k, int) or k < 1:
            raise InputError(f"k: expected an integer of at least 1, found {k!r}")
        chosen = self._filter(where or {})
        texts = [query[:QUERY_CHARS].encode("utf-8", "replace").decode() for query in queries]
        worded = list(dict.fromkeys(text for text in texts if WORD.search(text)))
        if not worded:
            return [[] for _ in texts]
        requests = [
            models.QueryRequest(query=vector.tolist(), limit=k, filter=chosen, with_payload=True)
            for vector in self._embedder.encode_queries(worded)
        ]
        replies = self.client.query_batch_points(self.collection, requests)
        found = {text: _hits(reply.points) for text, reply in zip(worded, replies, strict=True)}
        return [list(found.get(text, [])) for text in texts]

    def fetch(self, passage_ids: Sequence[str]) -> list[Passage]:
        """Passages by id, in order; raises ``KeyError`` naming the ids that are not there."""
        records = self.client.retrieve(self.collection, [point_id(id_) for id_ in passage_ids])
        found = {str(record.id): Passage(**(record.payload or {})["passage"]) for record in records}
        if missing := [id_ for id_ in passage_ids if point_id(id_) not in found]:
            raise KeyError(f"no such passages in {self.collection}: {', '.join(missing[:10])}")
        return [found[point_id(id_)] for id_ in passage_ids]

    def _filter(self, where: Filter) -> Any:
        from qdrant_client import models

        must: list[Any] = []
        must_not: list[Any] = [models.HasIdCondition(has_id=[_ABOUT])]
        for field, wanted in where.items():
            if field not in FIELDS and field not in self._fields:
                raise InputError(
                    f"filter: unknown field {field!r}; known fields: {', '.join([*FIELDS, *self._fields])}"
                )
            conditions = wanted if isinstance(wanted, Mapping) else {"=": wanted}
            for operator, value in conditions.items():
                target = must_not if operator == "!=" else must
                target.append(_condition(field, "=" if operator in ("!=", "==") else operator, value))
        return models.Filter(must=must, must_not=must_not)


def _condition(field: str, operator: str, value: Scalar | Sequence[Scalar]) -> Any:
    """One condition of Qdrant; raises `InputError` for what it cannot compare."""
    from qdrant_client import models

    key = f"document.{field}"
    if operator == "=" and value is None:
        return models.IsEmptyCondition(is_empty=models.PayloadField(key=key))  # no value, or no such field
    if operator == "=" and isinstance(value, str | bool | int):
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))
    if operator == "=" and isinstance(value, float):
        return models.FieldCondition(key=key, range=models.Range(gte=value, lte=value))
    if operator == "=" and isinstance(value, Sequence):
        return models.FieldCondition(key=key, match=models.MatchAny(any=list(value)))
    if operator in BOUNDS and isinstance(value, int | float) and not isinstance(value, bool):
        return models.FieldCondition(key=key, range=models.Range(**{BOUNDS[operator]: float(value)}))
    raise InputError(f"filter: Qdrant cannot compare {field} {operator} {value!r}; only numbers have an order there")


def _hits(points: Sequence[Any]) -> list[Hit]:
    rows = sorted(points, key=lambda point: (-point.score, point.payload["passage"]["id"]))
    return [
        Hit(Passage(**point.payload["passage"]), point.score, rank, "qdrant",
            *(point.payload["document"][name] for name in ("url", "source", "date")))
        for rank, point in enumerate(rows, start=1)
    ]  # fmt: skip
