"""A sources file names knowledge bases of several kinds and a route among them; opened, it is one retriever.

    route = "probe"                # or "all" (fused), or a file of `sleuth tune-router`
    breadth = 1                    # sources asked for a query; the next follow where they find nothing

    [sources.pages]
    kind = "store"                 # also triples, pairs, spans (derived from a store), tables, remote
    path = "store"                 # tables: a list of files and folders too; remote: url = "http://..."
    about = "Pages of the manual"  # what the router reads beside samples of the source

Paths are relative to the file. An unknown key or kind is an error that names the nearest known one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from sleuth.corpora.errors import ConfigError, nearest
from sleuth.corpora.files import read_toml
from sleuth.corpora.records import Document, Passage
from sleuth.retrieval import derived
from sleuth.retrieval.records import Filter, Hit, Retriever
from sleuth.retrieval.rerank import DEPTH, CrossEncoder, Reranked, Scorer
from sleuth.retrieval.route import Choose, Learned, Probe, Routed, everywhere
from sleuth.retrieval.rubric import Judge, Rubric
from sleuth.retrieval.scope import Scoped
from sleuth.retrieval.store import Datastore, Mode
from sleuth.retrieval.tables import WriteSQL

if TYPE_CHECKING:
    from sleuth.retrieval.remote import RemoteRetriever

KINDS = ("store", "tables", "triples", "pairs", "spans", "remote")
KEYS = {"kind", "path", "url", "about", "mode", "scoped", "rerank", "depth", "samples", "seconds", "hops", "sql"}
OF_KIND = {"mode": ("store", "remote"), "url": ("remote",), "hops": ("triples",), "sql": ("tables",)}
"""Keys that mean something for these kinds alone."""
SAMPLES = 200
"""Texts of a source that the router's probe sees."""
SAMPLE_CHARS = 400


@dataclass(frozen=True, slots=True)
class Minds:
    """What policies do for sources, each made from what a person writes after ``--policy``; None refuses the key."""

    judge: Callable[[str], Judge] | None = None
    """For ``rerank = "rubric:POLICY"``."""
    write_sql: Callable[[str], WriteSQL] | None = None
    """For ``sql = "POLICY"``."""


@dataclass(frozen=True, slots=True)
class Source:
    """One opened knowledge base: how it is searched, what gives its documents, and texts that show what is in it."""

    retriever: Retriever
    base: Any
    samples: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        return self.retriever.fingerprint

    def search(self, queries: Sequence[str], k: int, where: Filter | None = None) -> list[list[Hit]]:
        return self.retriever.search(queries, k, where)

    def fetch(self, passage_ids: Sequence[str]) -> list[Passage]:
        return self.retriever.fetch(passage_ids)

    def document(self, doc_id: str) -> Document:
        found: Document = self.base.document(doc_id)
        return found


def is_sources(spec: str | Path) -> bool:
    return Path(spec).suffix == ".toml"


def open_any(
    spec: str | Path, device: str = "cpu", minds: Minds | None = None, today: date | None = None
) -> Datastore | RemoteRetriever | Routed:
    """A sources file, a datastore's folder, or the address that serves one; raises `StoreError` or `ConfigError`."""
    from sleuth.retrieval.remote import open_store

    return open_sources(spec, device, minds, today) if is_sources(spec) else open_store(spec, device)


def open_sources(
    path: str | Path, device: str = "cpu", minds: Minds | None = None, today: date | None = None, route: str = ""
) -> Routed:
    """The router over what a sources file names. ``today`` is what ``last year`` counts from where sources are scoped;
    ``route`` takes the place of the file's.

    Raises `ConfigError` naming file, source and key, and what opening a source raises.
    """
    path = Path(path)
    found = read_toml(path)
    _known(f"{path}", found, {"route", "breadth", "sources"})
    tables = found.get("sources")
    if not isinstance(tables, dict) or not tables:
        raise ConfigError(f"{path}: expected at least one table [sources.NAME], found none")
    stores: dict[str, Datastore] = {}
    sources = {}
    for name, table in tables.items():
        place = f"{path}: [sources.{name}]"
        if not isinstance(table, dict):
            raise ConfigError(f"{place}: expected a table, found {table!r}")
        sources[name] = _source(place, table, path.parent, device, minds or Minds(), today, stores)
    probe = Probe({name: source.samples for name, source in sources.items()})
    route, breadth = route or found.get("route", "probe"), found.get("breadth")
    choose: Choose = probe
    if route == "all":
        choose, breadth = everywhere(list(sources)), len(sources) if breadth is None else breadth
    elif isinstance(route, str) and route.endswith(".json"):
        choose = Learned.load(path.parent / route, probe)
    elif route != "probe":
        raise ConfigError(f"{path}: expected route of probe, all or a .json file, found {route!r}")
    breadth = 1 if breadth is None else breadth
    if type(breadth) is not int or breadth < 1:
        raise ConfigError(f"{path}: expected breadth of at least 1, found {breadth!r}")
    return Routed(sources, choose, breadth)


def _source(
    place: str, table: Mapping[str, Any], folder: Path, device: str, minds: Minds, today: date | None,
    stores: dict[str, Datastore],
) -> Source:  # fmt: skip
    _known(place, table, KEYS)
    kind = table.get("kind")
    if kind not in KINDS:
        raise ConfigError(f"{place}: expected kind of {', '.join(KINDS)}; found {kind!r}{nearest(str(kind), KINDS)}")
    for key, kinds in OF_KIND.items():
        if key in table and kind not in kinds:
            raise ConfigError(f"{place}: {key!r} is for {' and '.join(kinds)}, found it in {kind}")
    if kind == "tables":
        base, searched = _tables(place, table, folder, minds)
    elif kind == "remote":
        base, searched = _remote(place, table)
    else:
        given = table.get("path")
        if not isinstance(given, str):
            raise ConfigError(f"{place}: expected path, the folder of a datastore, found {given!r}")
        store = (
            stores.setdefault(given, Datastore.open(folder / given, device)) if given not in stores else stores[given]
        )
        base, searched = _derived(place, kind, table, store)
    if (scorer := _scorer(place, table, device, minds)) is not None:
        searched = Reranked(searched, scorer, table.get("depth", DEPTH), table.get("seconds"))
    if table.get("scoped", False):
        searched = Scoped(searched, today)
    about = str(table.get("about", ""))
    return Source(searched, base, tuple(text for text in (about, *_samples(base)) if text))


def _derived(place: str, kind: str, table: Mapping[str, Any], store: Datastore) -> tuple[Any, Retriever]:
    """A store, or what was derived from it."""
    if kind == "triples":
        from sleuth.retrieval.triples import Triples

        found: Any = Triples.open(store, hops=table.get("hops", 2))
    elif kind == "pairs":
        from sleuth.retrieval.pairs import Pairs

        found = Pairs.open(store)
    elif kind == "spans":
        from sleuth.retrieval.spans import Spans

        found = Spans.open(store)
    else:
        return store, store.retriever(_mode(place, table) or "hybrid")
    return found, found


def _tables(place: str, table: Mapping[str, Any], folder: Path, minds: Minds) -> tuple[Any, Retriever]:
    from sleuth.retrieval.table_files import open_tables

    paths = table.get("path")
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list) or not paths or not all(isinstance(path, str) for path in paths):
        raise ConfigError(f"{place}: expected path, one or several files or folders of tables, found {paths!r}")
    write = None
    if "sql" in table:
        if minds.write_sql is None:
            raise ConfigError(f"{place}: 'sql' wants a policy, and none can be had here")
        write = minds.write_sql(str(table["sql"]))
    found = open_tables([folder / path for path in paths], write_sql=write)
    return found, found


def _remote(place: str, table: Mapping[str, Any]) -> tuple[Any, Retriever]:
    from sleuth.retrieval.remote import RemoteRetriever

    if not isinstance(table.get("url"), str):
        raise ConfigError(f"{place}: expected url, the address of a server, found {table.get('url')!r}")
    found = RemoteRetriever(table["url"], _mode(place, table))
    return found, found


def _mode(place: str, table: Mapping[str, Any]) -> Mode | None:
    mode: Mode | None = table.get("mode")
    if mode is not None and mode not in get_args(Mode):
        raise ConfigError(f"{place}: expected mode of {', '.join(get_args(Mode))}, found {mode!r}")
    return mode


def _scorer(place: str, table: Mapping[str, Any], device: str, minds: Minds) -> Scorer | None:
    """What ``rerank`` names: ``late:MODEL``, ``cross:MODEL`` or ``rubric:POLICY``."""
    named = table.get("rerank")
    if named is None:
        return None
    kind, _, model = str(named).partition(":")
    if kind == "late":
        from sleuth.retrieval.late import LateInteraction

        return LateInteraction(model or "minilm", device)
    if kind == "cross" and model:
        return CrossEncoder(model, device)
    if kind == "rubric" and model:
        if minds.judge is None:
            raise ConfigError(f"{place}: a rubric wants a policy, and none can be had here")
        return Rubric(minds.judge(model), table.get("samples", 3))
    raise ConfigError(f"{place}: expected rerank of late:MODEL, cross:MODEL or rubric:POLICY, found {named!r}")


def _samples(base: Any) -> list[str]:
    """Texts that show what is in a source, evenly over it; none of what is far away."""
    if isinstance(base, Datastore):
        ids = base.matching({})
        documents = (base.document(ids[n]) for n in derived.evenly(len(ids), SAMPLES))
        return [f"{document.title} {document.text[:SAMPLE_CHARS]}" for document in documents]
    shown = getattr(base, "shown", None)
    return [text[:SAMPLE_CHARS] for text in shown(SAMPLES)] if shown is not None else []


def _known(place: str, table: Mapping[str, Any], known: set[str]) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(f"{place}: unknown key {key!r}{nearest(key, known)}; known: {', '.join(sorted(known))}")
