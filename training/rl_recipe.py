"""The part of a recipe that says how to learn from rewards: tasks, rollouts, reward, algorithm, curriculum, guards.

Every table of the TOML file is one frozen record beside the code that it sets; an unknown key, a wrong type or a value
that a record refuses is a `ConfigError` that names the file and the key. `run` opens what the recipe names and trains.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sleuth.corpora.errors import ConfigError, nearest
from sleuth.eval.records import Task
from sleuth.training.algorithms import algorithm
from sleuth.training.crew import Crew, join
from sleuth.training.offline import OfflineSpec
from sleuth.training.rewards import RewardSpec, Term
from sleuth.training.rl import LOG, Parts, RlSpec, train
from sleuth.training.rollouts import RolloutSpec
from sleuth.training.sft import Progress
from sleuth.training.tasks import TaskSpec, open_tasks

TABLES = ("tasks", "rl", "rollout", "reward", "algorithm", "curriculum", "update", "guards", "offline")
"""A recipe with the first of these learns from rewards; with the last from stored episodes instead of its own."""


@dataclass(frozen=True, slots=True)
class RlRecipe:
    tasks: TaskSpec
    spec: RlSpec = field(default_factory=RlSpec)
    offline: OfflineSpec | None = None


def read(path: Path, data: Mapping[str, Any], seed: int) -> RlRecipe:
    """The record of a recipe's `TABLES`."""
    made: dict[str, Any] = {}
    for name, record in {f.name: f for f in fields(RlSpec)}.items():
        kind = get_type_hints(RlSpec)[record.name]
        if is_dataclass(kind) and name in data:
            build = _BUILDERS.get(name)
            made[name] = build(path, data[name]) if build else build_record(path, data[name], kind, name)
    plain = build_record(path, data.get("rl", {}), RlSpec, "rl", skip=(*made, "seed"))
    tasks = build_record(path, data["tasks"], TaskSpec, "tasks")
    spec = dataclasses.replace(plain, **made, seed=seed)
    if spec.reference_every and not spec.algorithm.kl:
        raise ConfigError(f"{path}: rl.reference_every needs algorithm.kl over 0; found {spec.reference_every} and 0")
    if "offline" not in data:
        return RlRecipe(tasks, spec)
    chosen: OfflineSpec = build_record(path, data["offline"], OfflineSpec, "offline", ("seed", "reward", "update"))
    if not chosen.episodes:
        raise ConfigError(f"{path}: offline.episodes is missing: the files of stored episodes")
    return RlRecipe(tasks, spec, dataclasses.replace(chosen, seed=seed, reward=spec.reward, update=spec.update))


def build_record(path: Path, table: Any, kind: Any, prefix: str, skip: tuple[str, ...] = ()) -> Any:
    """A frozen record from a TOML table, checked key by key."""
    from sleuth.training.recipe import known

    if not isinstance(table, Mapping):
        raise ConfigError(f"{path}: {prefix} must be a table; found {table!r}")
    hints = get_type_hints(kind)
    usable = [name for name in hints if name not in skip and not (prefix == "rl" and is_dataclass(hints[name]))]
    values = {}
    for key, value in table.items():
        known(path, f"{prefix}.", key, usable)
        values[key] = _value(path, f"{prefix}.{key}", value, hints[key])
    return in_file(path, prefix, lambda: kind(**values))


def _value(path: Path, where: str, value: Any, kind: Any) -> Any:
    if is_dataclass(kind):
        return build_record(path, value, kind, where)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ConfigError(f"{path}: {where} must be one of {', '.join(get_args(kind))}; found {value!r}")
        return value
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{path}: {where} must be a list; found {value!r}")
        return tuple(value)
    if get_origin(kind) is not None or isinstance(kind, types.GenericAlias):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path}: {where} must be a table; found {value!r}")
        return value
    allowed = (int, float) if kind is float else kind
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{path}: {where} must be {kind.__name__}; found {value!r}")
    return float(value) if kind is float else value


def _reward(path: Path, table: Mapping[str, Any]) -> RewardSpec:
    """``terms.NAME`` is a weight, or a table of ``weight`` and ``when``."""
    terms = table.get("terms", {})
    if not isinstance(terms, Mapping):
        raise ConfigError(f"{path}: reward.terms must be a table; found {terms!r}")
    made = {}
    for name, value in terms.items():
        given = value if isinstance(value, Mapping) else {"weight": value}
        if "weight" not in given:
            raise ConfigError(f"{path}: reward.terms.{name} needs a weight; found {dict(given)!r}")
        made[name] = build_record(path, given, Term, f"reward.terms.{name}")
    rest: RewardSpec = build_record(path, {k: v for k, v in table.items() if k != "terms"}, RewardSpec, "reward")
    return in_file(path, "reward", lambda: dataclasses.replace(rest, terms=made) if made else rest)


def _algorithm(path: Path, table: Mapping[str, Any]) -> Any:
    """``name``, and what differs from that algorithm."""
    return in_file(path, "algorithm", lambda: algorithm(**{"name": "grpo", **table}))


def in_file(path: Path, where: str, make: Callable[[], Any]) -> Any:
    """A record's own refusal, with the file in front."""
    try:
        return make()
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(str(path)) else f"{path}: {where}: {text}") from None


_BUILDERS: dict[str, Callable[[Path, Any], Any]] = {"reward": _reward, "algorithm": _algorithm}


def run(
    recipe: RlRecipe,
    base: str,
    start: str | Path | None,
    out: Path,
    data: str | Path | None,
    *,
    resume: bool = False,
    progress: Progress = print,
    record: Callable[[Mapping[str, Any]], None] = lambda line: None,
    crew: Crew | None = None,
) -> Path:
    """Open the tasks, the store, the model and the engine, and train; the adapter's folder in ``out``.

    ``start``: an adapter's folder, whose rank and alpha the run takes over (at rank 0 it is merged), or None.
    ``resume``: go on with what stands in ``out``; a run that was stopped before its first step begins anew.
    ``crew``: None for the processes that the environment names.
    """
    from sleuth.agents.policy.lora import read_config
    from sleuth.agents.policy.models import choose_device, choose_dtype, load_model, model_name, model_path

    spec = recipe.spec
    if start is not None and spec.rank:
        config = read_config(Path(start))
        spec = dataclasses.replace(spec, rank=int(config["r"]), alpha=int(config["lora_alpha"]))
    crew = crew or join()
    going_on = resume and (out / LOG).exists()
    if crew.first:  # the others find the store made
        open_tasks(recipe.tasks, data, out, spec.seed, progress)
    crew.gather(None)
    store, tasks, dev = open_tasks(recipe.tasks, data, out, spec.seed)
    shape = f"{spec.rollout.questions} x {spec.rollout.group} rollouts a step"
    if crew.first:
        progress(f"{len(tasks)} tasks, {len(dev)} held out, {shape}")
    path = model_path() if base == "embedded" else base
    held = "cpu" if spec.shard and crew.size > 1 else crew.device  # `shard` takes its parts to the GPU, layer by layer
    model, tokenizer = load_model(path, choose_dtype(choose_device(crew.device)), held)
    if recipe.offline is not None:
        return _offline(recipe.offline, spec, model, tokenizer, model_name(path), tasks, start, out, resume, progress)
    engine = _engine(spec.rollout, path, model, tokenizer, crew.device, out)
    try:
        parts = Parts(model, model_name(path), engine, store, tasks, dev, start, crew)
        return train(spec, parts, out, resume=going_on, progress=progress, record=record)
    finally:
        engine.close()


def _engine(rollout: RolloutSpec, path: str | Path, model: Any, tokenizer: Any, device: str, out: Path) -> Any:
    """What rolls out: the embedded engine over another copy of the base, or the server that the recipe names."""
    from sleuth.agents.policy.constrain import Tokens as Grammars
    from sleuth.agents.policy.embedded import EmbeddedPolicy, end_tokens
    from sleuth.training.engines import RemoteEngine

    if not rollout.server:
        return EmbeddedPolicy(path, device=device, max_batch=16, run=out.name)
    grammars = Grammars(tokenizer, model.config.vocab_size, end_tokens(model))
    return RemoteEngine(rollout.server, grammars, out / "serving", rollout.constrain)


def _offline(
    offline: OfflineSpec,
    spec: RlSpec,
    model: Any,
    tokenizer: Any,
    base: str,
    tasks: Sequence[Task],
    start: str | Path | None,
    out: Path,
    resume: bool,
    progress: Progress,
) -> Path:
    import torch

    from sleuth.agents.policy.constrain import Tokens as Grammars
    from sleuth.agents.policy.embedded import end_tokens
    from sleuth.training import adapter
    from sleuth.training.judging import asking
    from sleuth.training.offline import stored
    from sleuth.training.offline import train as train_offline
    from sleuth.training.reflect import refined
    from sleuth.training.samples import Masks
    from sleuth.training.sft import SftSpec, adapt

    torch.manual_seed(spec.seed)
    masks = Masks(Grammars(tokenizer, model.config.vocab_size, end_tokens(model)))
    adapted = adapt(model, SftSpec(rank=spec.rank, alpha=spec.alpha), base)
    if start is not None:
        adapter.load_weights(adapted, start, base)
    ask = asking(offline.reward, out / "verdicts-0.jsonl")
    rows = stored(offline.episodes, tasks, offline.reward, ask)
    progress(f"{len(rows)} stored episodes, {sum(row.graded.success for row in rows)} successful")
    if offline.method == "reflect":
        rows += (mended := refined(rows, offline, masks, out / "refined.jsonl", resume, ask))
        progress(f"{len(mended)} failed episodes mended by {offline.reflector}")
    return train_offline(offline, adapted, masks, rows, out, base=base, resume=resume, progress=progress)


def starting_point(name: str, out: Path) -> Path | None:
    """The adapter that a recipe starts from: a shipped one's name, a folder, ``none``, or one that the run made itself:
    ``warm``, or that of another recipe."""
    from sleuth.agents.policy import ADAPTERS

    if name == "none":
        return None
    own = "warm" if name == "warm" else "start" if name.endswith(".toml") else ""
    given = ADAPTERS / name if (ADAPTERS / name).is_dir() else Path(name)
    folder = out / own / "adapter" if own else given
    if not (folder / "adapter_config.json").is_file():
        close = nearest(name, ["none", *(path.name for path in ADAPTERS.iterdir())])
        raise ConfigError(f"expected none, a shipped adapter, an adapter's folder or a recipe; found {name!r}{close}")
    return folder
