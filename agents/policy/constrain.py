"""A constraint is a JSON Schema turned into a grammar that says, token by token, what a policy may write next.

It prints compact JSON, exactly as ``json.dumps(value, ensure_ascii=False, separators=(",", ":"))`` would, properties in
the order given. Two extensions: a string with ``"x-span": [text, ...]`` is a non-empty run of whole words copied from
one of the texts (``"x-max-words"`` bounds it), and an ``enum`` of verbatim quotes is marked ``"x-quote": true``. A
constraint knows nothing about models; the trainer follows it again to see the masks that sampling saw. Grammars run on
llguidance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from sleuth.agents.records import JsonSchema
from sleuth.corpora.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Mode: TypeAlias = Literal["span", "schema", "none"]
"""``span`` holds everything; ``schema`` the JSON alone (spans and quotes become free strings); ``none`` nothing."""
MODES: tuple[Mode, ...] = ("span", "schema", "none")

WORD = re.compile(r"\w+|\s+|[^\w\s]")
"""A span starts and ends at the edges of these: runs of letters and digits, single marks, white space between them."""
BREAK = re.compile(r"[^\x09\x0a\x0d\x20-\x7e\x80-\ud7ff\ue000-\U0010ffff]+")
"""What no JSON string of ours prints (control characters, lone surrogates): a span never runs across it."""
TIDY = r"""
TIDY: INK (ANY* INK)?
INK: /[^\s\\]/ | /\\[^nrt]/
ANY: /[^\\]/ | /\\./
"""
"""An escaped string that neither starts nor ends with white space."""


def grammar(schema: JsonSchema, mode: Mode = "span") -> str:
    """The llguidance grammar (Lark) of a schema; an unusable schema raises `ConfigError`."""
    rules: list[str] = []
    try:
        start = _rule(schema if mode == "span" else strip_extensions(schema, keep_quotes=False), rules, "$")
        made = "\n".join([f"start: {start}", *rules, TIDY if any("TIDY" in rule for rule in rules) else ""])
        made.encode()
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"schema: expected a JSON Schema, found one that cannot be read: {error}") from error
    return made


def strip_extensions(schema: JsonSchema, keep_quotes: bool = True) -> dict[str, Any]:
    """The same schema in standard JSON Schema: spans become strings; quotes stay an ``enum`` unless told otherwise."""
    if "x-span" in schema or (schema.get("x-quote") and not (keep_quotes and schema.get("enum"))):
        return {"type": "string"}
    return {key: _strip(value, keep_quotes) for key, value in schema.items() if not key.startswith("x-")}


Choice: TypeAlias = "NDArray[np.int64] | tuple[()] | None"
"""What a token was drawn from: the ids that could stand there, ascending; where most ids could, those that could not,
each as ``-1 - id``; ``()`` for a forced token, which nobody draws; None where everything could stand."""


class Tokens:
    """A tokenizer as the grammar engine sees it; made once per model (a third of a second)."""

    def __init__(self, tokenizer: Any, vocab_size: int, eos: Sequence[int]) -> None:
        from llguidance import LLParserLimits
        from llguidance.hf import from_tokenizer

        self.tokenizer = tokenizer
        self.vocab_size = max(vocab_size, len(tokenizer))
        self.eos = list(eos)
        self.table = from_tokenizer(tokenizer, n_vocab=self.vocab_size, eos_token=list(eos))
        self.limits = LLParserLimits(
            initial_lexer_fuel=20_000_000, step_lexer_fuel=5_000_000, max_lexer_states=1_000_000, verbose_errors=False
        )

    def constraint(self, schema: JsonSchema, mode: Mode = "span") -> Constraint | None:
        """A fresh constraint at its start; None for mode ``none``."""
        return None if mode == "none" else Constraint(self, grammar(schema, mode))


class Constraint:
    """Where one completion stands in its grammar."""

    def __init__(self, tokens: Tokens, lark: str) -> None:
        from llguidance import LLMatcher

        self._tokens = tokens
        self._matcher = LLMatcher(tokens.table, LLMatcher.grammar_from_lark(lark), limits=tokens.limits)
        self._ok()

    def restart(self) -> None:
        """Back to the start of the grammar, which costs far less than a new constraint."""
        self._matcher.reset()
        self._ok()

    @property
    def done(self) -> bool:
        """The value is complete and nothing but the end of the turn can follow."""
        return bool(self._matcher.is_stopped())

    def forced(self) -> list[int]:
        """The tokens that must come now, as the tokenizer itself would write them; empty where there is a choice."""
        found = list(self._matcher.compute_ff_tokens())
        self._ok()
        return found

    def take(self, tokens: Sequence[int]) -> None:
        """Move on; a token that the grammar forbids raises `ConfigError`."""
        self._matcher.consume_tokens(list(tokens))
        self._ok()

    def allowed(self) -> NDArray[np.int64]:
        """Ids of the tokens that may come now, ascending."""
        import numpy as np

        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._ok()
        return np.flatnonzero(np.unpackbits(bits, bitorder="little", count=self._tokens.vocab_size))

    def choice(self, allowed: NDArray[np.int64]) -> Choice:
        """How a trainer keeps ``allowed``."""
        import numpy as np

        if len(allowed) == 1:
            return ()
        if 2 * len(allowed) <= self._tokens.vocab_size:
            return allowed
        barred = np.setdiff1d(np.arange(self._tokens.vocab_size), allowed, assume_unique=True)
        return -1 - barred if len(barred) else None

    def _ok(self) -> None:
        if self._matcher.is_error():
            raise ConfigError(f"the schema cannot be held: {self._matcher.get_error().splitlines()[0]}")


def follow(
    constraint: Constraint, say: Callable[[Sequence[int] | NDArray[np.int64]], int | None], eos: Sequence[int]
) -> Iterator[tuple[int, Choice]]:
    """``(token, choice)`` for each token of a reply, as decoding under the constraint would come to it.

    ``say`` is shown the ids that may stand next and gives the one that does, None where the reply ends; a forced token
    is shown alone. The walk stops where the reply says what is not allowed, and after the end of the turn.
    """
    while True:
        forced = constraint.forced() or ([eos[0]] if constraint.done else [])
        for token in forced:
            if say((token,)) != token:
                return
            yield token, ()
        if constraint.done:
            return
        if forced:
            constraint.take(forced)
            continue
        allowed = constraint.allowed()
        said = say(allowed)
        if said is None or said not in allowed:
            return
        yield said, constraint.choice(allowed)
        if said in eos:
            return
        constraint.take([said])


def replay(constraint: Constraint | None, token_ids: Sequence[int], eos: Sequence[int]) -> Iterator[Choice]:
    """The choice that each sampled token was drawn from, in order; without a constraint everything was allowed.

    This is what a trainer needs to score a completion under the mask that it was sampled under.
    """
    if constraint is None:
        yield from (None for _ in token_ids)
        return
    left = iter(token_ids)
    yield from (choice for _, choice in follow(constraint, lambda allowed: next(left, None), eos))


def _strip(value: Any, keep_quotes: bool) -> Any:
    if isinstance(value, Mapping):
        return strip_extensions(value, keep_quotes)
    return [_strip(item, keep_quotes) for item in value] if isinstance(value, list) else value


def _extended(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "x-span" in value or "x-quote" in value or any(_extended(item) for item in value.values())
    return isinstance(value, (list, tuple)) and any(_extended(item) for item in value)


def _rule(schema: Any, rules: list[str], where: str) -> str:
    """A Lark expression for the schema; rules it needs are appended to ``rules``."""
    if not isinstance(schema, Mapping):
        raise ConfigError(f"schema at {where}: expected an object, found {type(schema).__name__}")
    if not _extended(schema):
        return _named(rules, "json", "%json " + json.dumps({**schema, "x-guidance": COMPACT}, ensure_ascii=False))
    if "x-span" in schema:
        return _span(schema, rules, where)
    if schema.get("x-quote"):
        return _quotes(schema, rules, where)
    if "anyOf" in schema:
        return _named(rules, "any", " | ".join(_rule(one, rules, f"{where}.anyOf") for one in schema["anyOf"]))
    if "properties" in schema:
        return _object(schema, rules, where)
    if "items" in schema:
        return _array(schema, rules, where)
    raise ConfigError(
        f"schema at {where}: spans and quotes may stand in objects, arrays and anyOf, found {sorted(schema)}"
    )


COMPACT = {
    "whitespace_flexible": False,
    "json_allowed_escapes": 'nrtbf\\"',
    "json_allow_general_unicode_escapes": False,
}


def _object(schema: Mapping[str, Any], rules: list[str], where: str) -> str:
    """Every property is printed, also those that are not ``required``: that is always valid."""
    parts: list[str] = []
    for key, value in schema["properties"].items():
        parts.append(_literal(("," if parts else "{") + json.dumps(key, ensure_ascii=False) + ":"))
        parts.append(_rule(value, rules, f"{where}.{key}"))
    return _named(rules, "object", " ".join([*parts, _literal("}")]))


def _array(schema: Mapping[str, Any], rules: list[str], where: str) -> str:
    item = _rule(schema["items"], rules, f"{where}[]")
    low, high = int(schema.get("minItems", 0)), schema.get("maxItems")
    if high is not None and high < max(low, 1):
        return _literal("[]")
    rest = "" if high is None else high - 1
    body = item if high == 1 else f'{item} ("," {item}){{{max(low - 1, 0)},{rest}}}'
    return _named(rules, "array", f'"[" {body} "]"' if low else f'"[" ({body})? "]"')


def _quotes(schema: Mapping[str, Any], rules: list[str], where: str) -> str:
    quotes = schema.get("enum") or [""]
    if not all(isinstance(quote, str) for quote in quotes):
        raise ConfigError(f"schema at {where}: x-quote needs an enum of strings")
    return _named(rules, "QUOTE", " | ".join(_literal(json.dumps(quote, ensure_ascii=False)) for quote in quotes))


def _span(schema: Mapping[str, Any], rules: list[str], where: str) -> str:
    """Substring automata over the words of each text, cut by `TIDY`; without a word only the empty string is left."""
    texts = schema["x-span"]
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"schema at {where}: x-span needs a list of strings")
    runs = []
    for text in dict.fromkeys(run for given in texts for run in BREAK.split(given)):
        words = [json.dumps(word, ensure_ascii=False)[1:-1] for word in WORD.findall(text)]
        if text.strip():
            runs.append(_named(rules, "RUN", "%regex " + json.dumps({"substring_chunks": words}, ensure_ascii=False)))
    if not runs:
        return _literal('""')
    tidy = " & TIDY"
    if bound := schema.get("x-max-words"):
        blank, ink = r"(\s|\\[nrt])+", r"([^\s\\]|\\[^nrt])+"
        tidy += " & " + _named(rules, "SHORT", f"/{ink}({blank}{ink}){{0,{int(bound) - 1}}}/")
    return _named(rules, "SPAN", rf'"\"" (({" | ".join(runs)}){tidy}) "\""')


def _named(rules: list[str], kind: str, body: str) -> str:
    """The name of a rule, added unless it is there; an upper-case kind is a terminal, matched by one regular
    expression. A span that stands in two places is one terminal and compiled once."""
    known = (rule.partition(": ") for rule in rules)
    if found := next((name for name, _, same in known if same == body and name.startswith(f"{kind}_")), ""):
        return found
    name = f"{kind}_{len(rules)}"
    rules.append(f"{name}: {body}")
    return name


def _literal(text: str) -> str:
    """A Lark string; Lark reads the same escapes as JSON."""
    return json.dumps(text, ensure_ascii=False)
