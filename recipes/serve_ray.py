"""Shards of a corpus on the nodes of a Ray cluster, behind one address: each store is a Ray Serve deployment.

    pip install 'sleuth[ray,serve]'
    python recipes/serve_ray.py part1 part2 part3 --port 8000

The stores' folders must be where a replica can read them (a shared file system, or the same path on each node). Ray
places, restarts and replicates the shards; `Sharded` asks them, answers within its deadline and names those that did
not; the front is that of `sleuth serve`, so agents see the same routes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from sleuth.corpora.records import Document, Passage
from sleuth.retrieval.records import Filter, Hit
from sleuth.retrieval.sharded import Sharded
from sleuth.retrieval.store import Datastore, Mode


class StoreReplica:
    """What runs on a node: one store, opened once."""

    def __init__(self, path: str) -> None:
        self.store = Datastore.open(path)

    def ask(self, verb: str, *arguments: Any) -> Any:
        if verb == "about":
            return self.store.fingerprint, len(self.store), self.store.dense_weight
        return getattr(self.store, verb)(*arguments)


class RayShard:
    """A deployment as `Sharded` asks it; errors of the store come back as they were raised there."""

    def __init__(self, handle: Any, timeout_s: float) -> None:
        self.handle, self.timeout_s = handle, timeout_s

    def _ask(self, verb: str, *arguments: Any) -> Any:
        from ray.exceptions import RayTaskError

        try:
            return self.handle.ask.remote(verb, *arguments).result(timeout_s=self.timeout_s)
        except RayTaskError as error:
            raise error.cause from error

    @property
    def fingerprint(self) -> str:
        return str(self._ask("about")[0])

    def __len__(self) -> int:
        return int(self._ask("about")[1])

    @cached_property
    def dense_weight(self) -> float | None:
        return self._ask("about")[2]

    def search(self, queries: Sequence[str], k: int, where: Filter | None, mode: Mode) -> list[list[Hit]]:
        return self._ask("search", list(queries), k, where, mode)

    def fetch(self, passage_ids: Sequence[str]) -> list[Passage]:
        return self._ask("fetch", list(passage_ids))

    def document(self, doc_id: str) -> Document:
        return self._ask("document", doc_id)


def deploy(stores: Mapping[str, str], deadline_s: float = 5.0, replicas: int = 1, cpus: float = 1.0) -> Sharded:
    """One deployment a store, each with so many replicas, and the retriever over them."""
    from ray import serve

    shards = {}
    for name, path in stores.items():
        options = {"name": name, "num_replicas": replicas, "ray_actor_options": {"num_cpus": cpus}}
        application = serve.deployment(StoreReplica).options(**options).bind(path)
        handle = serve.run(application, name=name, route_prefix=None)
        shards[name] = RayShard(handle, 0.9 * deadline_s)
    return Sharded(shards, deadline_s)


def main() -> None:
    from sleuth.serve_policy import bind
    from sleuth.serving.app import Server, serve
    from sleuth.serving.batch import Limits
    from sleuth.serving.live import Gateway

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="+")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--deadline-s", type=float, default=10.0)
    parser.add_argument("--replicas", type=int, default=1)
    options = parser.parse_args()
    sockets = bind("127.0.0.1", options.port)
    stores = {f"shard{number}": path for number, path in enumerate(options.stores)}
    sharded = deploy(stores, 0.8 * options.deadline_s, options.replicas)
    serve(Server(Gateway(sharded), Limits(deadline_s=options.deadline_s), reload_s=0), sockets)


if __name__ == "__main__":
    main()
