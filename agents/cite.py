"""A citation is kept only when a program could find it again: its span exists, is verbatim, and carries its sentence.

Policies give quotes, never positions or passage ids: `locate` looks a quote up in the passages that were shown, so a
forged marker, address or id has nothing to act on. `checked` turns a policy's draft into an `Answer`, and `verify`
recomputes every kept citation from an episode and a datastore alone.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sleuth.agents.records import Answer, Citation, Episode, Sentence
from sleuth.corpora.records import Passage
from sleuth.corpora.text import sentences
from sleuth.retrieval.records import Retriever

MIN_QUOTE_CHARS = 12
"""A quote shorter than this could stand anywhere and proves nothing, unless it is a whole sentence of its passage."""

MIN_SUPPORT = 0.6
"""Share of a sentence's content words that its quotes must hold. Lexical, as in the overlap tests that ALCE (arXiv
2305.14627) compares with entailment models; a paraphrase can fall below it, which marks it, never drops it."""

MIN_YES_NO_SUPPORT = 0.4
"""A bare yes or no has no content words: the quotes must then hold this share of the question's."""

_LETTER = r"[^\W_\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]"
"""A letter or digit of a script that puts gaps between its words: Thai, Lao, Burmese, Khmer, Japanese and Chinese put
none, so that next to their characters a word may begin anywhere."""

_EDGE = rf"(?!(?<={_LETTER}){_LETTER}|(?<=\d)[.,]\d|(?<=\d[.,])\d)"
"""Matches between characters, but not within a word or a number."""

_STOPWORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a also an and are as at be been both but by can could did do does either for from had has have he her
        hers him his how i if in into is it its me more most my no nor not of on or our out same she so some
        such than that the their them then there these they this those to too under up was we were what when
        where which while who whom whose why will with would yes you your
        """,
    )
)


def quotable(passages: Sequence[Passage]) -> list[str]:
    """The sentences of some passages, each once, in order: what a quote may be."""
    spans = ((p.text, start, end) for p in passages for start, end in sentences(p.text))
    return list(dict.fromkeys(text[start:end] for text, start, end in spans))


def locate(quote: str, passages: Iterable[Passage], fingerprint: str = "") -> Citation | None:
    """Where a quote stands, as a citation of the passage's own characters; None when it stands nowhere.

    White space may differ (line breaks and runs are lost in prompts); letters, digits and punctuation may not. A quote
    begins and ends where words and numbers do: "illegal" does not say "legal", nor 15,000 people 15.
    """
    words = quote.split()
    if not words:
        return None
    pattern = re.compile(_EDGE + r"\s+".join(map(re.escape, words)) + _EDGE)
    for passage in passages:
        match = pattern.search(passage.text)
        if match and (len(match[0]) >= MIN_QUOTE_CHARS or match.span() in sentences(passage.text)):
            return Citation(fingerprint, passage.id, match.start(), match.end(), match[0])
    return None


def checked(
    question: str,
    text: str,
    quotes: Sequence[str],
    passages: Sequence[Passage],
    fingerprint: str,
    items: Sequence[str] = (),
) -> Answer:
    """The answer with the citations that hold; quotes that stand nowhere go to ``rejected``.

    A sentence that its quotes do not carry gets the one shown sentence that does (`attributed`), where there is one.
    The ``items`` of a list are cited one by one, as its sentences; a quote that names none of them goes with all.
    """
    places = [(quote, locate(quote, passages, fingerprint)) for quote in quotes]
    citations = list(dict.fromkeys(place for _, place in places if place))
    titles = {p.id: p.title for p in passages}
    parts = list(items) or [text[start:end] for start, end in sentences(text)]
    named = frozenset().union(*map(_content, items))
    common = [c for c in citations if len(parts) == 1 or (items and not named & _content(_carrying(c, titles)))]
    attached = (_attach(question, part, citations, titles, common) for part in parts)
    return Answer(
        text=text,
        sentences=tuple(s if s.supported else attributed(question, s, passages, fingerprint) for s in attached),
        rejected=tuple(quote for quote, place in places if place is None),
    )


def attributed(question: str, sentence: Sentence, passages: Sequence[Passage], fingerprint: str) -> Sentence:
    """The sentence with the passage sentence added that carries it and shares most words with the question.

    Attribution after the fact, as "post-cite" in ALCE (arXiv 2305.14627, section 4), but verbatim and by `supports`
    alone. A bare yes or no is left as it is: words shared with the question decide nothing there.
    """
    if not _content(sentence.text):
        return sentence
    titles = {p.id: p.title for p in passages}
    held = [_carrying(c, titles) for c in sentence.citations]
    best: tuple[int, Citation] | None = None
    for passage in passages:
        for start, end in sentences(passage.text):
            quote = f"{passage.title} {passage.text[start:end]}"
            shared = len(_content(quote) & _content(question))
            if (best is None or shared > best[0]) and supports(question, sentence.text, [*held, quote]):
                best = shared, Citation(fingerprint, passage.id, start, end, passage.text[start:end])
    return sentence if best is None else Sentence(sentence.text, (*sentence.citations, best[1]), supported=True)


def _attach(
    question: str,
    sentence: str,
    citations: Sequence[Citation],
    titles: Mapping[str, str],
    common: Sequence[Citation],
) -> Sentence:
    """A sentence with the ``common`` citations (of a one-sentence answer all, hops included) and those that share words
    with it."""
    words = _content(sentence)
    kept = tuple(c for c in citations if c in common or words & _content(_carrying(c, titles)))
    carried = [_carrying(c, titles) for c in kept]
    return Sentence(sentence, kept, bool(kept) and supports(question, sentence, carried))


def _carrying(citation: Citation, titles: Mapping[str, str]) -> str:
    return f"{titles[citation.passage_id]} {citation.quote}"


def supports(question: str, sentence: str, quotes: Sequence[str]) -> bool:
    """Do the quotes carry the sentence, as an answer to the question? A lexical test that needs no model.

    ``quotes`` come with their passages' titles in front, because an encyclopedic sentence says "he" of its subject.
    Every number in the sentence must stand in a quote; so must `MIN_SUPPORT` of its content words; and the quotes must
    share a content word with the question, so that a quote about something else cannot carry a short answer.
    """
    held = set().union(*(_content(quote) for quote in quotes)) if quotes else set()
    asked, said = _content(question), _content(sentence)
    if not held & (asked | said):
        return False
    if not said:
        return len(held & asked) >= MIN_YES_NO_SUPPORT * len(asked)
    if any(word not in held for word in said if any(c.isdigit() for c in word)):
        return False
    on_topic = not asked - said or bool(held & (asked - said))
    return on_topic and len(held & said) >= MIN_SUPPORT * len(said)


@functools.lru_cache(maxsize=8192)
def _content(text: str) -> frozenset[str]:
    return frozenset(w for w in re.findall(r"\w+", text.lower()) if w not in _STOPWORDS)


@dataclass(frozen=True, slots=True)
class Check:
    """One kept citation, recomputed."""

    citation: Citation
    sentence: str
    same_store: bool
    """The citation names the fingerprint of the store it is checked against."""
    exists: bool
    """The store holds the passage, and the span lies within it."""
    verbatim: bool
    """The store's own characters at the span equal the quote."""
    retrieved: bool
    """The passage was retrieved in this very run."""
    supported: bool
    """The sentence's quotes carry it."""
    on_topic: bool
    """The quote or its passage's title shares a content word with the question or the sentence. Lexical: one in another
    language shares none."""

    @property
    def holds(self) -> bool:
        """Whether the citation stands where it says. Support and topic are reported beside it: words alone decide
        them."""
        return self.same_store and self.exists and self.verbatim and self.retrieved


def verify(episode: Episode, store: Retriever) -> list[Check]:
    """Every citation of an episode's answer recomputed from the store; the episode's own claims count for nothing."""
    if episode.answer is None:
        return []
    retrieved = {
        hit["passage_id"] for s in episode.steps for c in s.calls if c.tool == "search" for hit in c.result or ()
    }
    checks = []
    for sentence in episode.answer.sentences:
        passages = {c.passage_id: _fetch(store, c.passage_id) for c in sentence.citations}
        carried = {
            c: f"{p.title} {p.text[c.start : c.end]}" for c in sentence.citations if (p := passages[c.passage_id])
        }
        supported = supports(episode.question, sentence.text, list(carried.values()))
        topic = _content(episode.question) | _content(sentence.text)
        for citation in sentence.citations:
            passage = passages[citation.passage_id]
            exists = passage is not None and 0 <= citation.start < citation.end <= len(passage.text)
            verbatim = passage is not None and passage.text[citation.start : citation.end] == citation.quote
            checks.append(
                Check(
                    citation,
                    sentence.text,
                    citation.fingerprint == store.fingerprint,
                    exists,
                    exists and verbatim,
                    citation.passage_id in retrieved,
                    supported,
                    bool(topic & _content(carried.get(citation, ""))),
                )
            )
    return checks


def _fetch(store: Retriever, passage_id: str) -> Passage | None:
    try:
        return store.fetch([passage_id])[0]
    except KeyError:
        return None
