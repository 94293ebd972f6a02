"""Answer scores compare two strings under the official normalisation of SQuAD and HotpotQA.

Formulas restated from SQuAD's ``evaluate-v1.1.py`` and ``evaluate-v2.0.py`` (Rajpurkar et al., arXiv 1606.05250 and
1806.03822) and HotpotQA's ``hotpot_evaluate_v1.py`` (Yang et al., arXiv 1809.09600). Each function takes one prediction
and one gold string and gives a number in [0, 1]; an empty prediction scores 0 whatever the gold is.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_CLOSED = frozenset({"yes", "no", "noanswer"})
_ITEM_BREAK = re.compile(r"\s*[,;\n]\s*(?:and\s+)?|\s+and\s+")


def normalise(text: str) -> str:
    """Lower case, without ASCII punctuation, without English articles, white space to single blanks, in that order."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, gold: str) -> float:
    """1 when both normalise to the same string (SQuAD v1.1)."""
    return float(bool(prediction.strip()) and normalise(prediction) == normalise(gold))


def f1_score(prediction: str, gold: str) -> float:
    """Harmonic mean of token precision and recall, tokens counted with their multiplicity.

    HotpotQA's rule holds: where either side is yes, no or noanswer, anything but equality is 0. So does SQuAD v2.0's:
    where either side has no tokens left (the answer ``a``), equality decides.
    """
    said, wanted = normalise(prediction), normalise(gold)
    if not prediction.strip() or (said != wanted and (said in _CLOSED or wanted in _CLOSED)):
        return 0.0
    tokens, gold_tokens = said.split(), wanted.split()
    if not tokens or not gold_tokens:
        return float(tokens == gold_tokens)
    same = sum((Counter(tokens) & Counter(gold_tokens)).values())
    return 2 * same / (len(tokens) + len(gold_tokens))


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
