"""A constraint admits exactly the compact JSON of its schema, and only verbatim runs of whole words for spans."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from sleuth.agents.policy.constrain import WORD, Tokens, grammar, replay, strip_extensions
from sleuth.agents.roles import answerer
from sleuth.corpora.errors import ConfigError
from sleuth.corpora.records import Passage
from tests import tiny_model

EOS = [2]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(tiny_model.make(tmp_path_factory.mktemp("tiny"))))


@pytest.fixture(scope="module")
def tokens(tokenizer: Any) -> Tokens:
    return Tokens(tokenizer, len(tokenizer), EOS)


def accepts(tokens: Tokens, tokenizer: Any, schema: Any, text: str, mode: Any = "span") -> bool:
    """The grammar lets exactly this text through, to its end."""
    constraint = tokens.constraint(schema, mode)
    try:
        for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
            if token not in constraint.allowed():
                return False
            constraint.take([token])
    except ConfigError:
        return False
    return constraint.done or EOS[0] in constraint.allowed()


def wander(tokens: Tokens, tokenizer: Any, schema: Any, seed: int) -> Any:
    """A random value of the schema."""
    rng, constraint, out = random.Random(seed), tokens.constraint(schema), []
    while not constraint.done:
        step = constraint.forced() or [int(rng.choice(constraint.allowed()))]
        if step[0] in EOS:
            break
        constraint.take(step)
        out += step
    return json.loads(tokenizer.decode(out))


def spans(text: str, bound: int = 99) -> set[str]:
    words = WORD.findall(text)
    runs = {"".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}
    return {run for run in runs if run == run.strip() and len(run.split()) <= bound}


def test_spans_are_all_runs_of_whole_words_and_nothing_else(tokens: Tokens, tokenizer: Any) -> None:
    text = 'Born in "St. Paul",\n\tMN \\ \u00dcber-caf\u00e9 3.5%'
    schema = {"type": "object", "properties": {"a": {"x-span": [text]}}}
    inside = spans(text)
    for run in inside:
        assert accepts(tokens, tokenizer, schema, json.dumps({"a": run}, ensure_ascii=False, separators=(",", ":"))), (
            run
        )
    for run in ("", " ", "Bor", "in ", " in", "orn in", "Born Paul", text + " x", "St.  Paul", "caf", "caf\\u00e9"):
        assert run not in inside
        assert not accepts(tokens, tokenizer, schema, json.dumps({"a": run}, ensure_ascii=False, separators=(",", ":")))


def test_spans_do_not_cross_texts_or_control_characters(tokens: Tokens, tokenizer: Any) -> None:
    schema = {"x-span": ["one two\x07three", "four\ud800five", "   "]}
    for run, fits in (("one two", True), ("five", True), ("two\x07three", False), ("three four", False)):
        assert accepts(tokens, tokenizer, schema, json.dumps(run, ensure_ascii=False)) is fits
    assert accepts(tokens, tokenizer, {"x-span": ["  "]}, '""')
    assert not accepts(tokens, tokenizer, {"x-span": ["word"]}, '""')


def test_max_words(tokens: Tokens, tokenizer: Any) -> None:
    text = 'a "b" c\\ d\ne f, g'
    for run in spans(text):
        fits = len(run.split()) <= 3
        said = json.dumps(run, ensure_ascii=False)
        assert accepts(tokens, tokenizer, {"x-span": [text], "x-max-words": 3}, said) is fits, run


def test_random_walks_stay_verbatim(tokens: Tokens, tokenizer: Any) -> None:
    texts = ['He said "hi" to \\me\\ at 5\u00a0pm. Caf\u00e9 \u65e5\u672c\u8a9e!', "Second text, here."]
    quotes = ['A "quote".', "A quote of 1\\2.", "\u65e5\u672c."]
    schema = {
        "type": "object",
        "properties": {
            "q": {"type": "array", "items": {"type": "string", "enum": quotes, "x-quote": True}, "maxItems": 2},
            "a": {"anyOf": [{"type": "string", "enum": ["yes", "no"]}, {"type": "string", "x-span": texts}]},
            "n": {"type": "integer", "minimum": 0, "maximum": 30},
        },
        "required": ["q", "a", "n"],
        "additionalProperties": False,
    }
    every = spans(texts[0]) | spans(texts[1]) | {"yes", "no"}
    for seed in range(60):
        value = wander(tokens, tokenizer, schema, seed)
        assert value["a"] in every and set(value["q"]) <= set(quotes) and 0 <= value["n"] <= 30


def test_an_answer_is_a_span_or_a_list_of_spans(tokens: Tokens, tokenizer: Any) -> None:
    passages = [Passage("a", "a", 0, 19, "Ada", "Ada knew Bo and Cy.")]
    schema = answerer.schema(passages)
    quotes = ',"quotes":["Ada knew Bo and Cy."]}'
    for said, fits in (
        ('"Bo"', True), ('["Bo","Cy"]', True), ('["Ada","Bo and Cy","Cy"]', True), ('"no"', True),
        ('["Bo"]', False), ("[]", False), ('["Bo","Di"]', False), ('["no","Bo"]', False),
        ("[" + ",".join(['"Bo"'] * (answerer.MAX_ITEMS + 1)) + "]", False),
    ):  # fmt: skip
        assert accepts(tokens, tokenizer, schema, '{"answer":' + said + quotes) is fits, said
    assert grammar(schema).count("substring_chunks") == 2  # text and title, each once


def test_array_bounds(tokens: Tokens, tokenizer: Any) -> None:
    for low, high in ((0, 0), (0, 1), (1, 1), (1, 3), (2, None), (0, None)):
        schema = {"type": "array", "items": {"x-span": ["x"]}, "minItems": low, "maxItems": high}
        if high is None:
            del schema["maxItems"]
        for count in range(5):
            said = json.dumps(["x"] * count, separators=(",", ":"))
            assert accepts(tokens, tokenizer, schema, said) is (low <= count <= (99 if high is None else high)), (
                low,
                high,
            )


def test_plain_json_is_compact(tokens: Tokens, tokenizer: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"b": {"type": "string"}, "a": {"type": "array", "items": {"type": "boolean"}}},
        "required": ["b", "a"],
        "additionalProperties": False,
    }
    assert accepts(tokens, tokenizer, schema, '{"b":"x\\n\\"\u00e9","a":[true,false]}')
    for wrong in ('{"b": "x","a":[]}', '{"a":[],"b":"x"}', '{"b":"\\u00e9","a":[]}', '{"b":"\\/","a":[]}', '{"b":"x"}'):
        assert not accepts(tokens, tokenizer, schema, wrong), wrong


def test_modes_and_stripping() -> None:
    quote = {"type": "string", "enum": ["q"], "x-quote": True}
    schema = {"type": "object", "properties": {"a": {"anyOf": [{"enum": ["yes"]}, {"x-span": ["t"]}]}, "q": quote}}
    plain = {"type": "string"}
    properties = {"a": {"anyOf": [{"enum": ["yes"]}, plain]}, "q": {"type": "string", "enum": ["q"]}}
    assert strip_extensions(schema) == {"type": "object", "properties": properties}
    assert strip_extensions(schema, keep_quotes=False)["properties"] == {**properties, "q": plain}
    assert "substring" in grammar(schema) and "substring" not in grammar(schema, "schema")


def test_replay_gives_back_the_choices(tokens: Tokens, tokenizer: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"x-span": ["the fox"]}}}
    constraint = tokens.constraint(schema)
    start = constraint.forced()
    constraint.take(start)
    word = tokenizer("the", add_special_tokens=False)["input_ids"]
    said = [*start, *word, *tokenizer('"}', add_special_tokens=False)["input_ids"], 2]
    masks = list(replay(tokens.constraint(schema), said, EOS))
    assert masks[: len(start)] == [()] * len(start) and masks[-1] == ()
    assert all(could_stand(token, mask) for token, mask in zip(said, masks, strict=True))
    assert len(masks[len(start)]) > 1 and masks[len(start)][0] >= 0
    assert list(replay(None, [5, 6], EOS)) == [None, None]
    assert len(list(replay(tokens.constraint(schema), said[:-3], EOS))) == len(said) - 3  # a reply that was cut short
    assert len(list(replay(tokens.constraint(schema), [*said[:-3], said[0]], EOS))) == len(said) - 3  # and a wrong one


def could_stand(token: int, choice: Any) -> bool:
    if choice is None or isinstance(choice, tuple):
        return True
    return -1 - token not in choice if choice[0] < 0 else token in choice


def test_a_nearly_free_choice_is_kept_as_what_is_barred(tokens: Tokens, tokenizer: Any) -> None:
    constraint = tokens.constraint({"type": "object", "properties": {"a": {"type": "string"}}})
    constraint.take(constraint.forced())
    allowed = constraint.allowed()
    choice = constraint.choice(allowed)
    assert all(could_stand(i, choice) == (i in allowed) for i in range(tokens.vocab_size))
    if len(allowed) > tokens.vocab_size / 2:
        assert choice[0] < 0 and len(choice) == tokens.vocab_size - len(allowed)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "object", "properties": {"a": 3, "b": {"x-span": ["x"]}}}, r"\$\.a: expected an object, found int"),
        ({"enum": [1], "x-quote": True}, "x-quote needs an enum of strings"),
        ({"type": "string", "x-span": 5}, r"schema at \$: x-span needs a list of strings"),
        ({"x-span": ["x"], "x-max-words": "few"}, "found one that cannot be read: invalid literal"),
        ({"anyOf": 5, "items": {"x-span": ["x"]}}, "found one that cannot be read: 'int' object is not iterable"),
        ({"properties": [{"x-span": ["x"]}]}, "found one that cannot be read: 'list' object has no attribute"),
        ({"enum": ["half \ud800 a pair"]}, "found one that cannot be read: .* surrogates not allowed"),
        ({"oneOf": [{"x-span": ["x"]}]}, r"spans and quotes may stand in .* found \['oneOf'\]"),
        ({"type": "object", "properties": {"a": {"type": "nonsense"}}}, "the schema cannot be held"),
    ],
)
def test_unusable_schemas_are_named(tokens: Tokens, schema: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tokens.constraint(schema)


def test_long_evidence_compiles_and_holds(tokens: Tokens, tokenizer: Any) -> None:
    rng = random.Random(0)
    texts = [" ".join(f"w{rng.randrange(400)}" for _ in range(600)) for _ in range(8)]
    value = wander(tokens, tokenizer, {"type": "object", "properties": {"a": {"x-span": texts, "x-max-words": 12}}}, 1)
    assert any(value["a"] in text for text in texts)


def test_module_is_light() -> None:
    import subprocess
    import sys

    code = "import sys, sleuth.agents.policy.constrain, sleuth.agents.policy.embedded, sleuth.agents.policy.openai\n"
    code += "print([m for m in ('torch', 'transformers', 'llguidance', 'httpx', 'numpy') if m in sys.modules])"
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_forced_tokens_are_those_a_trainer_sees(tokens: Tokens, tokenizer: Any) -> None:
    """Following a reply as the tokenizer writes it whole, the grammar never forces another cut of the same text."""
    quotes = ["Jaws is a 1975 film.", "Spielberg was born in Cincinnati, Ohio.", 'He said "no".', "Café 日本語."]
    schema = {
        "type": "object",
        "properties": {
            "quotes": {"type": "array", "items": {"type": "string", "enum": quotes, "x-quote": True}, "minItems": 1},
            "answer": {"anyOf": [{"type": "string", "enum": ["yes", "no"]}, {"type": "string", "x-span": quotes}]},
        },
    }
    for picked in ([0], [1, 2], [3, 0, 1]):
        for answer in ("yes", "no", "Cincinnati, Ohio", "1975", '"no".', "日本語"):
            value = {"quotes": [quotes[i] for i in picked], "answer": answer}
            said = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            written = [*tokenizer(said, add_special_tokens=False)["input_ids"], *EOS]
            masks = list(replay(tokens.constraint(schema), written, EOS))
            assert len(masks) == len(written) and any(isinstance(mask, tuple) for mask in masks)
            assert all(could_stand(token, mask) for token, mask in zip(written, masks, strict=True)), said
