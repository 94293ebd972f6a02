"""A recipe is a commented TOML file that says everything about a training run but where the data lies.

`read` turns it into a frozen record (an unknown key is an error that names the nearest known one); `run` does what it
says and leaves, beside the adapter, the resolved recipe as JSON.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
import types
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from sleuth.corpora.errors import ConfigError, InputError
from sleuth.training.sft import Progress, SftSpec

TRAIN_TENTHS = (4, 5, 6, 7, 8, 9)
"""Buckets of rows (`sleuth.eval.split`) that are trained on: 0 to 2 are for reporting, 3 is held out to look at."""
HELD_OUT_TENTHS = (3,)


@dataclass(frozen=True, slots=True)
class Recipe:
    name: str
    base: str = "embedded"
    """``embedded``, or a folder or hub id of a causal language model."""
    seed: int = 0
    """Draws the examples and starts the training."""
    held_out: int = 0
    """Examples of each role to compare the untrained and the trained model on at the end (`training.held_out`)."""
    sft: SftSpec = field(default_factory=SftSpec)
    examples: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """``examples[role][set]``: how many at most."""


def read(path: str | Path) -> Recipe:
    """The recipe in a TOML file; raises `InputError` or `ConfigError` naming the file and the key."""
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a TOML file: {error}") from error
    if "name" not in data:
        raise ConfigError(f"{path}: key 'name' is missing; known keys: {', '.join(_keys(Recipe))}")
    _check(path, data, Recipe, "")
    sft = data.pop("sft", {})
    _check(path, sft, SftSpec, "sft.")
    if "seed" in sft:
        raise ConfigError(f"{path}: the seed stands at the top of a recipe; found sft.seed")
    if "targets" in sft:
        sft["targets"] = tuple(sft["targets"])
    _check_examples(path, data.get("examples", {}))
    return Recipe(**data, sft=SftSpec(**sft, seed=data.get("seed", 0)))


def run(path: str, out: str, data: str, resume: bool = False, progress: Progress = print) -> Path:
    """Train what the recipe at ``path`` says on the benchmark files in ``data``; the adapter's folder in ``out``.

    Beside it stand ``recipe.json`` (resolved), ``log.jsonl``, ``checkpoints/`` and, when asked for, ``held_out.json``.
    Resuming with another recipe than the run was started with raises `InputError`.
    """
    from sleuth.agents.policy.models import load_model, model_name, model_path
    from sleuth.training.examples import build
    from sleuth.training.sft import train

    recipe, folder = read(path), Path(out)
    examples = build(data, recipe.examples, recipe.seed, TRAIN_TENTHS)
    _settle(folder, {**dataclasses.asdict(recipe), "num_examples": len(examples)}, resume)
    progress(f"{recipe.name}: {len(examples)} examples from {data}")
    base = model_path() if recipe.base == "embedded" else recipe.base
    model, tokenizer = load_model(base)
    adapter = train(
        recipe.sft, model, tokenizer, examples, folder, base=model_name(base), resume=resume, progress=progress
    )
    if recipe.held_out:
        del model
        figures = compare(recipe, data, base, adapter, progress)
        (folder / "held_out.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return adapter


def compare(
    recipe: Recipe, data: str | Path, base: str | Path, adapter: Path, progress: Progress = print
) -> dict[str, dict[str, dict[str, float]]]:
    """``{"untrained": ..., "trained": ...}``: figures by role on the recipe's kinds of examples of held-out rows."""
    import asyncio

    from sleuth.agents.policy.embedded import EmbeddedPolicy
    from sleuth.training.examples import build
    from sleuth.training.held_out import held_out, score

    made = build(data, recipe.examples, recipe.seed, HELD_OUT_TENTHS)
    chosen = held_out(made, recipe.held_out, recipe.seed)
    figures = {}
    for name, folder in (("untrained", None), ("trained", adapter)):
        progress(f"{name}: {len(chosen)} held-out examples")
        policy = EmbeddedPolicy(base, adapter=folder)
        try:
            figures[name] = asyncio.run(score(policy, chosen))
        finally:
            policy.close()
    return figures


def _settle(folder: Path, resolved: Mapping[str, Any], resume: bool) -> None:
    """Write the resolved recipe, or when resuming check that it is still the same."""
    file = folder / "recipe.json"
    text = json.dumps(resolved, indent=1) + "\n"
    if not resume:
        if file.exists():
            raise InputError(f"{folder} already holds a run: resume it, or give another folder")
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    elif not file.exists():
        raise InputError(f"nothing to resume in {folder}: no {file.name}")
    elif file.read_text(encoding="utf-8") != text:
        old, new = json.loads(file.read_text(encoding="utf-8")), json.loads(text)
        differ = {key: (old.get(key), new[key]) for key in new if old.get(key) != new[key]}
        raise InputError(f"{folder} was started with another recipe (then, now): {differ}")


def _keys(record: type) -> list[str]:
    return [f.name for f in dataclasses.fields(record)]


def _check(path: Path, data: Mapping[str, Any], record: type, prefix: str) -> None:
    """Every key is known and every plain value has its field's type."""
    kinds = get_type_hints(record)
    for key, value in data.items():
        _known(path, prefix, key, _keys(record))
        kind = kinds[key]
        plain = isinstance(kind, type) and kind in (int, float, str) and not isinstance(kind, types.GenericAlias)
        allowed = (int, float) if kind is float else kind
        if plain and (not isinstance(value, allowed) or isinstance(value, bool)):
            raise ConfigError(f"{path}: {prefix}{key} must be {kind.__name__}; found {value!r}")


def _check_examples(path: Path, counts: Mapping[str, Any]) -> None:
    from sleuth.training.examples import BUILDERS

    for role, sets in counts.items():
        _known(path, "examples.", role, sorted({r for r, _ in BUILDERS}))
        for name, count in sets.items():
            _known(path, f"examples.{role}.", name, sorted(s for r, s in BUILDERS if r == role))
            if not isinstance(count, int) or isinstance(count, bool) or count < 0:
                raise ConfigError(f"{path}: examples.{role}.{name} must be a count; found {count!r}")


def _known(path: Path, prefix: str, key: str, known: Collection[str]) -> None:
    if key not in known:
        close = difflib.get_close_matches(key, list(known), n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ConfigError(f"{path}: unknown key {prefix + key!r}{hint}; known: {', '.join(known)}")
