"""Answer scores compare two strings under the official normalisation of SQuAD and HotpotQA.

Formulas restated from SQuAD's ``evaluate-v1.1.py`` and ``evaluate-v2.0.py`` (Rajpurkar et al., arXiv 1606.05250 and
1806.03822) and HotpotQA's ``hotpot_evaluate_v1.py`` (Yang et al., arXiv 1809.09600). Each function takes one prediction
and one gold string and gives a number in [0, 1]; an empty prediction scores 0 whatever the gold is.
"""

from __future__ import annotations

import functools
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_CLOSED = frozenset({"yes", "no", "noanswer"})
_ITEM_BREAK = re.compile(r"\s*[,;\n]\s*(?:and\s+)?|\s+and\s+")


_ARTICLES_OF = {
    "en": _ARTICLES,
    "de": re.compile(r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b"),
    "es": re.compile(r"\b(un|una|unos|unas|el|la|los|las)\b"),
    "ar": re.compile("ال"),  # inside words too, as the script does
}
_HAN = re.compile("([\u4e00-\u9fff\u3400-\u4dbf])")


@functools.lru_cache(maxsize=16_384)
def normalise(text: str) -> str:
    """Lower case, without ASCII punctuation, without English articles, white space to single blanks, in that order."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, gold: str) -> float:
    """1 when both normalise to the same string (SQuAD v1.1)."""
    return float(bool(prediction.strip()) and normalise(prediction) == normalise(gold))


def token_f1(prediction: str, gold: str) -> float:
    """SQuAD's F1: harmonic mean of token precision and recall, tokens counted with their multiplicity.

    Where either side has no tokens left (the answer ``a``), equality decides, as in SQuAD v2.0.
    """
    return _f1_of(normalise(prediction).split(), normalise(gold).split()) if prediction.strip() else 0.0


def f1_score(prediction: str, gold: str) -> float:
    """HotpotQA's F1: `token_f1`, but where either side is yes, no or noanswer, anything else than equality is 0."""
    said, wanted = normalise(prediction), normalise(gold)
    if said != wanted and (said in _CLOSED or wanted in _CLOSED):
        return 0.0
    return token_f1(prediction, gold)


def _f1_of(tokens: Sequence[str], gold_tokens: Sequence[str]) -> float:
    if not tokens or not gold_tokens:
        return float(tokens == gold_tokens)
    same = sum((Counter(tokens) & Counter(gold_tokens)).values())
    return 2 * same / (len(tokens) + len(gold_tokens))


@functools.lru_cache(maxsize=16_384)
def tokens_of(text: str, lang: str) -> tuple[str, ...]:
    """Tokens as MLQA's evaluation cuts them (Lewis et al., arXiv 1910.07475, ``mlqa_evaluation_v1.py``).

    Every Unicode punctuation mark goes, then the articles of ``lang`` (ISO 639-1; none for a language not listed);
    in Chinese each Han character is a token of its own.
    """
    text = "".join(c for c in text.lower().translate(_PUNCTUATION) if not unicodedata.category(c).startswith("P"))
    if lang in _ARTICLES_OF:
        text = _ARTICLES_OF[lang].sub(" ", text)
    return tuple((_HAN.sub(r" \1 ", text) if lang == "zh" else text).split())


def language_match(prediction: str, gold: str, lang: str) -> float:
    """1 when both have the same tokens in that language (`tokens_of`)."""
    return float(bool(prediction.strip()) and tokens_of(prediction, lang) == tokens_of(gold, lang))


def language_f1(prediction: str, gold: str, lang: str) -> float:
    """`token_f1` over the tokens of that language (`tokens_of`)."""
    return _f1_of(tokens_of(prediction, lang), tokens_of(gold, lang)) if prediction.strip() else 0.0


def cover_match(prediction: str, gold: str) -> float:
    """1 when the gold's tokens stand in the prediction as one run (cover-EM; Press et al., arXiv 2210.03350).

    Differs from a bare substring test in that it matches whole tokens: ``no`` is not covered by ``Norway``.
    """
    said, wanted = normalise(prediction), normalise(gold)
    if not wanted:
        return exact_match(prediction, gold)
    return float(f" {wanted} " in f" {said} ")


def items(text: str) -> frozenset[str]:
    """A list answer as normalised items, cut at commas, semicolons, line breaks and ``and``; empty ones left out."""
    return frozenset(filter(None, map(normalise, _ITEM_BREAK.split(text))))


def gold_items(answers: Sequence[str]) -> frozenset[str]:
    """The wanted items, cut by the rule of `items`, so that an item that holds an ``and`` can still be matched."""
    return frozenset().union(*map(items, answers))


def set_f1(said: frozenset[str], wanted: frozenset[str]) -> float:
    """F1 of two sets of items, an item being right only when it is equal after normalisation."""
    same = len(said & wanted)
    return 2 * same / (len(said) + len(wanted)) if same else 0.0
