"""What is derived from a store: triples, questions and answers, a span index; and a look at the triples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sleuth.commands.stores import JsonFlag, StoreArgument
from sleuth.corpora.errors import ConfigError, nearest
from sleuth.terminal import emit, progress, say, table

if TYPE_CHECKING:
    from sleuth.corpora.records import Document
    from sleuth.eval.synthesis.records import Fact
    from sleuth.retrieval.pairs import Asked
    from sleuth.retrieval.stated import Statement
    from sleuth.retrieval.triples import Chain, Triples

KINDS = ("triples", "pairs", "spans")
SHOWN = 40


def derive(
    kind: Annotated[str, typer.Argument(help="triples, pairs (questions and answers) or spans.")],
    store: StoreArgument,
    rows: Annotated[
        Path | None, typer.Option("--rows", help="Pairs from this JSONL: question, answer, passage_id.")
    ] = None,
    facts: Annotated[
        bool, typer.Option("--facts/--no-facts", help="Read English sentences for facts, beside names and links.")
    ] = True,
    dense: Annotated[bool, typer.Option("--dense/--no-dense", help="Embed the questions of pairs.")] = True,
    as_json: JsonFlag = False,
) -> None:
    """Make another knowledge base out of a store, beside it; a sources file then names it. No model writes anything.

    It is of one version of the store: after `add`, `delete` or `compact` make it again.

    Example: sleuth derive triples store
    """
    from sleuth.retrieval import derived, pairs, spans, triples
    from sleuth.retrieval.stated import stated
    from sleuth.retrieval.store import Datastore

    if kind not in KINDS:
        raise ConfigError(f"unknown kind {kind!r}{nearest(kind, KINDS)}; known: {', '.join(KINDS)}")
    if rows is not None and kind != "pairs":
        raise ConfigError(f"--rows is for pairs, found it with {kind}")
    opened = Datastore.open(store)
    with progress() as tell:
        if kind == "triples":
            triples.derive(opened, _statements() if facts else stated, tell)
        elif kind == "pairs":
            pairs.derive(opened, _asked() if facts else pairs.defined, rows, dense, tell)
        else:
            spans.derive(opened, tell)
    folder, known = derived.find(opened, kind)
    if as_json:
        emit({"kind": kind, "folder": str(folder), "fingerprint": opened.fingerprint, **known})
        return
    print(f"{folder}: {', '.join(f'{value:,} {name}' for name, value in known.items() if name != 'dense')}")
    say(f'in a sources file: kind = "{kind}", path = "{store}"')


def triples(
    store: StoreArgument,
    entity: Annotated[str, typer.Argument(help="An entity: the title of a document.")],
    other: Annotated[str, typer.Argument(help="Another one, to show the paths between them.")] = "",
    hops: Annotated[int, typer.Option(min=1, max=4, help="Most triples of a path.")] = 3,
    as_json: JsonFlag = False,
) -> None:
    """Show what a store's triples say of an entity, or how two of them are connected, each step with its passage.

    Example: sleuth triples store "Jaws (film)" "Cincinnati"
    """
    from sleuth.retrieval.store import Datastore
    from sleuth.retrieval.triples import Triples

    graph = Triples.open(Datastore.open(store))
    entity, other = (_one(graph, name) if name else "" for name in (entity, other))
    chains: list[Chain] = [(triple,) for triple in graph.about(entity)[:SHOWN]]
    if other:
        chains = graph.paths(entity, other, hops)
    if as_json:
        for chain in chains:
            emit({"chain": [asdict(triple) for triple in chain]})
        return
    table(("path", "subject", "relation", "object", "passage"), list(_rows(chains)))
    if not chains:
        say(f"no path of at most {hops} triples")


def _one(graph: Triples, name: str) -> str:
    """The entity of a name: itself, or the only one that is called so."""
    if name in graph.names.entities:
        return name
    called = graph.entities(name)
    if len(called) > 1:
        raise ConfigError(f"{name!r} names several entities: {', '.join(called)}")
    return called[0] if called else name


def _rows(chains: list[Chain]) -> Iterator[tuple[int, str, str, str, str]]:
    for number, chain in enumerate(chains, 1):
        for triple in chain:
            yield number, triple.subject, triple.relation, triple.object, triple.passage_id


def _facts() -> Callable[[Document], list[Fact]]:
    """Facts that rules find in one document."""
    from sleuth.eval.synthesis.entity import entity_of
    from sleuth.eval.synthesis.extract import facts_of
    from sleuth.eval.synthesis.wording import grammar

    rules = grammar()

    def found(document: Document) -> list[Fact]:
        entity = entity_of(document)
        return list(facts_of(document, entity, rules)) if entity is not None else []

    return found


def _statements() -> Callable[..., Iterator[Statement]]:
    """Facts as statements, their values linked where a name is whole, and after them what is read anyway."""
    from sleuth.retrieval.names import Names
    from sleuth.retrieval.stated import stated

    facts = _facts()

    def found(document: Document, names: Names) -> Iterator[Statement]:
        for fact in facts(document):
            linked = [m for m in names.find(fact.value) if (m.start, m.end) == (0, len(fact.value))]
            value = linked[0].entities[0] if linked and len(linked[0].entities) == 1 else fact.value
            yield fact.entity, fact.relation, value, fact.start, fact.end
        yield from stated(document, names)

    return found


def _asked() -> Callable[[Document], Iterator[Asked]]:
    """Each fact as the first question that its relation words, and what the first sentence defines."""
    from sleuth.eval.synthesis.wording import grammar
    from sleuth.retrieval.pairs import defined

    facts, rules = _facts(), grammar()

    def found(document: Document) -> Iterator[Asked]:
        yield from defined(document)
        for fact in facts(document):
            question = rules.relation(fact.relation).questions[0].format(s=fact.subject, be=fact.be, v=fact.value)
            yield question, fact.value, fact.start, fact.end

    return found
