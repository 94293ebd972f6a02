"""A recipe is a commented TOML file that says everything about a training run but where the data lies.

With ``[examples]`` it is supervised, with ``[tasks]`` it learns from rewards, with both the first is the warm start;
with ``[tasks]`` and ``[reranker]`` what learns is no policy but a reranker.

`read` turns it into a frozen record (an unknown key is an error that names the nearest known one); `run` does what it
says and leaves, beside the adapter, the resolved recipe as JSON.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

from sleuth.corpora.errors import ConfigError, InputError, nearest
from sleuth.corpora.files import read_toml
from sleuth.training.crew import Crew, join
from sleuth.training.reranker import RerankerSpec
from sleuth.training.rl_recipe import TABLES, RlRecipe, build_record, in_file, starting_point
from sleuth.training.rl_recipe import read as read_rl
from sleuth.training.sets import OWN, QuestionSet
from sleuth.training.sft import Progress, SftSpec, check_share
from sleuth.training.tasks import TaskSpec

Own = Callable[[], QuestionSet]
Record = Callable[[Mapping[str, Any]], None]

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
    ranked: bool | Literal["chain"] = False
    """Examples show gold passages where a search ranks them, as a run does, or with ``"chain"`` strategy `chain`, its
    reranker included; otherwise anywhere among the others."""
    held_out: int = 0
    """Examples of each role to compare the untrained and the trained model on at the end (`training.held_out`)."""
    sft: SftSpec = field(default_factory=SftSpec)
    examples: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """``examples[role][set]``: how many at most."""
    start: str = "none"
    """The adapter that the first part begins with: a shipped one, a folder, none, or another recipe (a ``.toml`` beside
    this one), which is then trained first, in the run's folder ``start``. After examples come rewards."""
    rl: RlRecipe | None = None
    reranker: RerankerSpec | None = None


def read(path: str | Path, seed: int | None = None) -> Recipe:
    """The recipe in a TOML file, with another ``seed`` where one is given.

    Raises `InputError` or `ConfigError` naming the file and the key.
    """
    path = Path(path)
    data = read_toml(path)
    if seed is not None:
        data["seed"] = seed
    if "name" not in data:
        raise ConfigError(f"{path}: key 'name' is missing; known keys: {', '.join(_keys(Recipe))}")
    rl = {key: data.pop(key) for key in TABLES if key in data}
    ranks = data.pop("reranker", None)
    for key in data:
        known(path, "", key, [*(k for k in _keys(Recipe) if k != "rl"), *TABLES])
    _check(path, data, Recipe, "")
    ranked = data.get("ranked", False)
    if not isinstance(ranked, bool) and ranked != "chain":
        raise ConfigError(f'{path}: ranked: expected true, false or "chain"; found {ranked!r}')
    sft = data.pop("sft", {})
    _check(path, sft, SftSpec, "sft.")
    if "seed" in sft:
        raise ConfigError(f"{path}: the seed stands at the top of a recipe; found sft.seed")
    if "targets" in sft:
        sft["targets"] = tuple(sft["targets"])
    _check_examples(path, data.get("examples", {}))
    start = data.get("start", "none")
    if not start.endswith(".toml"):  # those are read by `run`, one after the other
        in_file(path, "start", lambda: starting_point(start, path.parent))
    seed = data.get("seed", 0)
    if rl and "tasks" not in rl:
        raise ConfigError(f"{path}: [{next(iter(rl))}] needs [tasks]: what to learn from")
    learned = read_rl(path, rl, seed) if rl else None
    in_file(path, "sft", lambda: check_share(SftSpec(**sft), start))
    if learned and data.get("examples") and sft.get("rank") == 0:
        raise ConfigError(
            f"{path}: sft.rank 0 trains a whole model, but rewards go on from an adapter: expected over 0"
        )
    least = 0 if data.get("examples") else 1
    if learned and not learned.offline and learned.spec.steps < least:
        raise ConfigError(f"{path}: rl.steps: expected at least 1, 0 only with [examples]; found {learned.spec.steps}")
    for role, sets in data.get("examples", {}).items():
        if OWN in sets and not (learned and learned.tasks.store):
            raise ConfigError(f"{path}: examples.{role}.{OWN} needs [tasks] with questions and store: whose they are")
    if ranks is None:
        return Recipe(**data, sft=SftSpec(**sft, seed=seed), rl=learned)
    beside = sorted({*rl, *data, *(["sft"] if sft else [])} - {"tasks", "name", "base", "seed"})
    if beside or not learned:
        raise ConfigError(f"{path}: [reranker] goes with [tasks] alone; found {', '.join(beside) or 'no [tasks]'}")
    chosen = build_record(path, ranks, RerankerSpec, "reranker")
    return Recipe(**{"base": "minilm", **data}, rl=learned, reranker=chosen)


def run(
    path: str,
    out: str,
    data: str | None = None,
    resume: bool = False,
    progress: Progress = print,
    seed: int | None = None,
    record: Record = lambda line: None,
    crew: Crew | None = None,
) -> Path:
    """Train what the recipe at ``path`` says; the adapter's folder in ``out``. ``data``: the benchmark files' folder.

    Beside it stand ``recipe.json`` (resolved), ``log.jsonl`` or ``metrics.jsonl``, ``checkpoints/``, and of a reranker,
    or when asked for, ``held_out.json``. ``seed`` replaces the recipe's; ``record`` gets each line of a run that learns
    from rewards or makes a reranker; ``crew`` shares one that learns from rewards, None for the processes that the
    environment names.
    Resuming with another recipe than the run was started with raises `InputError`.
    """
    recipe, folder = read(path, seed), Path(out)
    if recipe.reranker is not None:
        if (size := (crew or join()).size) > 1:
            raise ConfigError(f"{path}: a reranker is trained by one process; found {size}")
        return _reranker(recipe, recipe.reranker, folder, data, resume, progress, record)
    _readable(Path(path))
    if recipe.rl is None:
        waiting = (folder / "start").exists() and not (folder / "recipe.json").exists()
        if waiting and not resume:
            raise InputError(f"{folder} already holds a run: resume it, or give another folder")
        _before(recipe, path, folder, data, progress)
        return _supervised(recipe, folder, data, resume and not waiting, progress)
    from sleuth.training import rl_recipe

    resolved = {**dataclasses.asdict(recipe), "rl": _but_length(recipe.rl)}
    crew = crew or join()
    if crew.first:
        _settle(folder, resolved, resume)
    if crew.first and recipe.examples and not (folder / "warm" / "adapter").is_dir():
        warm = dataclasses.replace(recipe, rl=None)
        _before(recipe, path, folder / "warm", data, progress)
        going = (folder / "warm" / "recipe.json").exists()
        _supervised(warm, folder / "warm", data, going, progress, _own(recipe.rl.tasks))
    elif crew.first and not recipe.examples:
        _before(recipe, path, folder, data, progress)
    crew.gather(None)
    if recipe.rl.spec.steps == 0:
        return folder / "warm" / "adapter"
    start = starting_point("warm" if recipe.examples else recipe.start, folder)
    return rl_recipe.run(
        recipe.rl, recipe.base, start, folder, data, resume=resume, progress=progress, record=record, crew=crew
    )


def _reranker(
    recipe: Recipe, spec: RerankerSpec, folder: Path, data: str | None, resume: bool, progress: Progress, record: Record
) -> Path:
    from sleuth.training.checkpoint import locked
    from sleuth.training.reranker import needed, train
    from sleuth.training.tasks import open_tasks

    assert recipe.rl is not None
    needed()
    kept, sources = dataclasses.asdict(recipe), recipe.rl.tasks
    parts = {key: kept[key] for key in ("name", "base", "seed", "reranker")}
    with locked(folder):
        _settle(folder, {**parts, "rl": {"tasks": dataclasses.asdict(sources)}}, resume)
        store, tasks, dev = open_tasks(sources, data, folder, recipe.seed, progress)
        return train(
            spec, recipe.base, store, tasks, dev, folder, recipe.seed, resume=resume, progress=progress, record=record
        )


def _readable(path: Path) -> None:
    """Read every recipe that this one starts from, so that a mistake in one shows before another is trained."""
    met: list[Path] = []
    while path.suffix == ".toml":
        if path.resolve() in met:
            raise ConfigError(f"{met[0]}: starts from itself, by way of {', '.join(p.name for p in met[1:]) or 'none'}")
        found = read(path)
        if met and found.reranker:
            raise ConfigError(f"{met[-1]}: start: {path.name} trains a reranker; expected a recipe for a policy")
        whole = (found.rl.spec.rank if found.rl else found.sft.rank) == 0
        if met and (whole or (found.rl and found.rl.spec.steps == 0)):
            raise ConfigError(f"{met[-1]}: start: {path.name} ends without an adapter of its own (rank 0, or steps 0)")
        met.append(path.resolve())
        path = path.parent / found.start


def _before(recipe: Recipe, path: str, folder: Path, data: str | None, progress: Progress) -> None:
    """Train the recipe that this one starts from, or go on with it, where it is not trained yet.

    Alone: the other members of a crew wait, and what this one gathered would meet what they do.
    """
    out = folder / "start" if recipe.start.endswith(".toml") else None
    if out is not None and not (out / "adapter").is_dir():
        progress(f"{recipe.name}: first {recipe.start}")
        going_on = (out / "recipe.json").exists()
        run(str(Path(path).parent / recipe.start), str(out), data, going_on, progress, crew=Crew())


def _but_length(recipe: RlRecipe) -> dict[str, Any]:
    """What must be the same in a resumed run: all but the number of steps, so that a run can be made longer."""
    resolved = dataclasses.asdict(recipe)
    del resolved["spec"]["steps"]
    return resolved


def _own(tasks: TaskSpec) -> Own | None:
    from sleuth.training.own import own

    return functools.partial(own, tasks.store, tasks.questions) if tasks.store else None


def _supervised(
    recipe: Recipe, folder: Path, data: str | None, resume: bool, progress: Progress, own: Own | None = None
) -> Path:
    from sleuth.agents.policy.models import load_model, model_name, model_path
    from sleuth.training.examples import build
    from sleuth.training.sft import train

    examples = build(data, recipe.examples, recipe.seed, TRAIN_TENTHS, recipe.ranked, own, progress)
    if not examples:
        asked = ", ".join(f"{role}.{name}" for role, sets in recipe.examples.items() for name in sets)
        raise InputError(
            f"{recipe.name}: no example could be made of {asked or 'nothing'}: rows need an answer that stands in a "
            "gold passage and, for several look-ups, a decomposition"
        )
    _settle(folder, {**dataclasses.asdict(recipe), "num_examples": len(examples)}, resume)
    progress(f"{recipe.name}: {len(examples)} examples")
    base = model_path() if recipe.base == "embedded" else recipe.base
    model, tokenizer = load_model(base)
    start = starting_point(recipe.start, folder)
    name = model_name(base)
    adapter = train(
        recipe.sft, model, tokenizer, examples, folder, base=name, start=start, resume=resume, progress=progress
    )
    if recipe.held_out:
        del model
        figures = compare(recipe, data, base, adapter, progress, own)
        (folder / "held_out.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return adapter


def compare(
    recipe: Recipe,
    data: str | Path | None,
    base: str | Path,
    adapter: Path,
    progress: Progress = print,
    own: Own | None = None,
) -> dict[str, dict[str, dict[str, float]]]:
    """``{"untrained": ..., "trained": ...}``: figures by role on the recipe's kinds of examples of held-out rows."""
    import asyncio

    from sleuth.agents.policy.embedded import EmbeddedPolicy
    from sleuth.training.examples import build
    from sleuth.training.held_out import held_out, score

    made = build(data, recipe.examples, recipe.seed, HELD_OUT_TENTHS, recipe.ranked, own)
    chosen = held_out(made, recipe.held_out, recipe.seed)
    figures = {}
    whole = recipe.sft.rank == 0
    trained = EmbeddedPolicy(adapter) if whole else EmbeddedPolicy(base, adapter=adapter)
    for name, policy in (("untrained", EmbeddedPolicy(base)), ("trained", trained)):
        progress(f"{name}: {len(chosen)} held-out examples")
        try:
            figures[name] = asyncio.run(score(policy, chosen))
        finally:
            policy.close()
    return figures


def _settle(folder: Path, resolved: Mapping[str, Any], resume: bool) -> None:
    """Write the resolved recipe, or where a run stands check that it is resumed with the same one."""
    file = folder / "recipe.json"
    text = json.dumps(resolved, indent=1) + "\n"
    if resume and not file.exists():
        raise InputError(f"nothing to resume in {folder}: no {file.name}")
    old, new = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}, json.loads(text)
    if not file.exists() or not _begun(folder, old, new):
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    elif not resume:
        raise InputError(f"{folder} already holds a run: resume it, or give another folder")
    elif differ := "; ".join(_differ(old, new)):
        raise InputError(f"{folder} was started with another recipe (then -> now): {differ}")


def _begun(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a run left more than its recipe: one that ended in a mistake before that can be corrected.

    A store is made of the tasks alone: it serves any recipe that has the same ones.
    """
    left = ["log.jsonl", "metrics.jsonl", "checkpoints", "adapter", "model", "warm", "start"]
    if (old.get("rl") or {}).get("tasks") != (new.get("rl") or {}).get("tasks"):
        left += ["store", "store.part"]
    return any((folder / name).exists() for name in left)


def _differ(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """``key: then -> now`` of every single value that is another one, under the key that it has in the file."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {**old, **new}:
            yield from _differ(old.get(key), new.get(key), f"{at}.{key}" if at else key)
    elif old != new:
        inner = at.removeprefix("rl.").removeprefix("spec.")  # the record's own layers
        key = inner if inner.partition(".")[0] in TABLES or inner == at else f"rl.{inner}"
        yield f"{key}: {json.dumps(old)} -> {json.dumps(new)}"


def _keys(record: type) -> list[str]:
    return [f.name for f in dataclasses.fields(record)]


def _check(path: Path, data: Mapping[str, Any], record: type, prefix: str) -> None:
    """Every key is known and every plain value has its field's type."""
    kinds = get_type_hints(record)
    for key, value in data.items():
        known(path, prefix, key, _keys(record))
        kind = kinds[key]
        plain = isinstance(kind, type) and kind in (int, float, str, bool) and not isinstance(kind, types.GenericAlias)
        allowed = (int, float) if kind is float else kind
        if plain and (not isinstance(value, allowed) or isinstance(value, bool) != (kind is bool)):
            raise ConfigError(f"{path}: {prefix}{key} must be {kind.__name__}; found {value!r}")


def _check_examples(path: Path, counts: Mapping[str, Any]) -> None:
    from sleuth.training.examples import BUILDERS

    for role, sets in counts.items():
        known(path, "examples.", role, sorted({r for r, _ in BUILDERS}))
        for name, count in sets.items():
            known(path, f"examples.{role}.", name, sorted(s for r, s in BUILDERS if r == role))
            if not isinstance(count, int) or isinstance(count, bool) or count < 0:
                raise ConfigError(f"{path}: examples.{role}.{name} must be a count; found {count!r}")


def known(path: Path, prefix: str, key: str, known: Collection[str]) -> None:
    if key not in known:
        raise ConfigError(f"{path}: unknown key {prefix + key!r}{nearest(key, known)}; known: {', '.join(known)}")
