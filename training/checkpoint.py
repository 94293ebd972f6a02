"""A checkpoint is a folder with tensors and a JSON record, there whole or not at all; its bytes are checked when read.

Two are kept: where the last one was cut short by a dying disk, the one before gives the same run, only later. Beside
them stays the one that a run calls good, for the last ones of a run that collapsed are no better than its end.
`locked` keeps a second run off a folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sleuth.corpora.errors import InputError, SleuthError
from sleuth.training.shards import part

FOLDER, LATEST, GOOD, STATE, META = "checkpoints", "LATEST", "GOOD", "state.safetensors", "state.json"
KEPT = 2


class TrainingError(SleuthError):
    """A run that must not go on, such as a loss that is not a number; the last good checkpoint stays."""


def save(out: Path, step: int, tensors: Mapping[str, Any], meta: Mapping[str, Any], good: bool = False) -> Path:
    """Write ``out/checkpoints/step-N``, then point ``LATEST`` at it.

    It, the one before and the last one that was ``good`` stay; all others go, those of later steps among them, which a
    run leaves that went on from before them.
    """
    from safetensors.torch import save_file

    home = out / FOLDER
    folder, making = home / f"step-{step:05d}", home / f".step-{step:05d}.making"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, making / STATE)
    record = {**meta, "step": step, "sha256": _digest(making / STATE)}
    (making / META).write_text(json.dumps({**record, "record": _sum(record)}), encoding="utf-8")
    for path in (making / STATE, making / META, making):
        _sync(path)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(making, folder)
    for name in (GOOD, LATEST) if good else (LATEST,):
        _point(home, name, folder.name)
    steps = sorted(_step(path.name) for path in home.glob("step-*"))
    kept = {_step(_pointed(home, GOOD)), *[n for n in steps if n <= step][-KEPT:]}
    for old in home.glob("step-*"):
        if _step(old.name) not in kept:
            shutil.rmtree(old)
    return folder


def fall_back(out: Path) -> str:
    """Point ``LATEST`` at the last good checkpoint, from which a resumed run goes on; its name as of `last_good`."""
    home = out / FOLDER
    if (name := _pointed(home, GOOD)) and (home / name).is_dir():
        _point(home, LATEST, name)
    return last_good(out)


def load(out: Path, say: Callable[[str], None] = lambda line: None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and record of the last checkpoint that is whole; a damaged one is named to ``say`` and passed over.

    Raises `InputError` where there is none to resume, or none that is whole.
    """
    home = out / FOLDER
    if not (home / LATEST).exists():
        raise InputError(f"nothing to resume in {out}: no {FOLDER}/{LATEST}")
    newest = _pointed(home, LATEST)
    names = sorted((p.name for p in home.glob("step-*") if _step(p.name) <= _step(newest)), key=_step, reverse=True)
    damage = []
    for name in names or [newest]:
        try:
            return _read(home / name)
        except (OSError, ValueError, KeyError) as error:
            damage.append(f"{home / name}: {error}")
            say(f"checkpoint passed over: {damage[-1]}")
    raise InputError(f"no whole checkpoint in {out}: {'; '.join(damage)}")


def goes_on(out: Path, log: Path, resume: bool) -> bool:
    """Whether a run goes on from a checkpoint; one that was stopped before its first begins anew, and so does its log.

    Raises `InputError` where a run stands in the way of one that is not to be resumed.
    """
    if not resume and log.exists():
        raise InputError(f"{out} already holds a run: resume it, or give another folder")
    going_on = resume and (out / FOLDER / LATEST).exists()
    if not going_on:
        log.unlink(missing_ok=True)
    return going_on


def last_good(out: Path) -> str:
    """Name of the last checkpoint, ``none yet`` without one; for messages."""
    return _pointed(out / FOLDER, LATEST) or "none yet"


def finite(out: Path, step: int, loss: float | None, norm: float | None) -> None:
    """Raises `TrainingError` at a step whose loss or gradient is not a number; None is of a step without an update."""
    if all(value is None or math.isfinite(value) for value in (loss, norm)):
        return
    found = f"loss {loss}, gradient norm {norm}"
    raise TrainingError(f"step {step}: expected finite numbers, found {found}; last good checkpoint: {last_good(out)}")


def optimizer_tensors(optimizer: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    """Weights, moments and the state of torch's generator, by name; of a sharded model this member's parts."""
    import torch

    state = {"rng": torch.get_rng_state()}
    for name, p in params.items():
        state[f"weight/{name}"] = p.detach()
        state |= {f"{key}/{name}": value for key, value in optimizer.state.get(p, {}).items()}
    return state


def restore_optimizer(state: Mapping[str, Any], optimizer: Any, params: Mapping[str, Any]) -> None:
    """The inverse of `optimizer_tensors`, from whole tensors; other weights than the run's raise `InputError`."""
    import torch

    theirs = {key.removeprefix("weight/") for key in state if key.startswith("weight/")}
    if theirs != set(params):
        odd = sorted(theirs ^ set(params))[0]
        raise InputError(f"the checkpoint holds other weights than this run trains, first {odd}: another base or rank?")
    with torch.no_grad():
        for name, p in params.items():
            p.copy_(part(state[f"weight/{name}"], p))
            moments = {
                key: state[f"{key}/{name}"] for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}/{name}" in state
            }
            if moments:
                optimizer.state[p] = {key: v if key == "step" else part(v, p) for key, v in moments.items()}
    torch.set_rng_state(state["rng"])


def append(path: Path, record: Mapping[str, Any]) -> None:
    """One JSON line."""
    with path.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(record) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records that `append` wrote; a line ends at a newline alone, for JSON may hold other line separators."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def trim(path: Path, done: int) -> None:
    """Drop the lines of steps that came after ``done`` (and one that was cut short): they are run again."""
    kept = []
    for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else ():
        with contextlib.suppress(ValueError):
            if json.loads(line).get("step", 0) <= done:
                kept.append(f"{line}\n")
    path.write_text("".join(kept), encoding="utf-8")


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """This run's folder for as long as it lasts; a second run on it raises `InputError`. A dead one leaves no lock."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "LOCK").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{out}: another run is training in this folder; wait for it, or take another") from None
        yield


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    from safetensors.torch import load_file

    meta = json.loads((folder / META).read_text(encoding="utf-8"))
    found = _digest(folder / STATE)
    if found != meta["sha256"]:
        raise ValueError(f"{STATE} hashes to {found[:12]}, {META} says {meta['sha256'][:12]}: cut short or changed")
    if (theirs := meta.pop("record", None)) not in (None, _sum(meta)):  # none in those of older versions
        raise ValueError(f"{META} does not match its own checksum {str(theirs)[:12]}: changed")
    return load_file(folder / STATE), meta


def _sum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(json.loads(json.dumps(record)), sort_keys=True).encode()).hexdigest()


def _step(name: str) -> int:
    """The step of a checkpoint's folder; -1 of what is none."""
    number = name.removeprefix("step-")
    return int(number) if number.isdecimal() else -1


def _pointed(home: Path, name: str) -> str:
    return (home / name).read_text(encoding="utf-8").strip() if (home / name).exists() else ""


def _point(home: Path, name: str, folder: str) -> None:
    """Let ``name`` in ``home`` say ``folder``, whole or not at all."""
    pointer = home / f".{name}"
    pointer.write_text(folder, encoding="utf-8")
    _sync(pointer)
    os.replace(pointer, home / name)
    _sync(home)


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
