"""Policies: anything that answers messages. `open_policy` turns what a person writes after ``--policy`` into one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleuth.corpora.errors import ConfigError

if TYPE_CHECKING:
    from sleuth.agents.policy.constrain import Mode
    from sleuth.agents.policy.embedded import EmbeddedPolicy
    from sleuth.agents.policy.openai import OpenAIPolicy

ADAPTERS = Path(__file__).resolve().parent.parent / "adapters"
"""LoRA adapters that are shipped, one folder each."""

EXAMPLES = """expected one of
  embedded                                the embedded model with the adapter that is shipped
  embedded:untrained                      the embedded model as it was published
  http://127.0.0.1:8000/v1#model-name     an OpenAI-compatible server; the key comes from SLEUTH_POLICY_KEY
  /path/to/model  or  org/model           a causal language model for transformers"""


def open_policy(
    spec: str = "embedded",
    *,
    adapter: str | None = "first",
    constrain: Mode = "span",
    device: str = "auto",
    **options: Any,
) -> EmbeddedPolicy | OpenAIPolicy:
    """The policy that ``spec`` names; see `EXAMPLES`. Nothing is loaded or contacted before the first sample.

    ``adapter``: name of a shipped adapter or a folder, None for none; for the embedded model a shipped one that is not
    there is left out, for any other model an adapter counts only when it is a folder. ``options`` go to the engine.
    """
    from sleuth.agents.policy.constrain import MODES

    if constrain not in MODES:
        raise ConfigError(f"constrain: expected one of {', '.join(MODES)}, found {constrain!r}")
    if "://" in spec:
        return _remote(spec, constrain, options)
    from sleuth.agents.policy.embedded import EmbeddedPolicy

    if spec == "embedded:untrained":
        return EmbeddedPolicy(None, constrain=constrain, device=device, **options)
    if spec == "embedded":
        return EmbeddedPolicy(None, adapter=_adapter(adapter), constrain=constrain, device=device, **options)
    if spec.startswith("embedded:"):
        return EmbeddedPolicy(None, adapter=_adapter(spec[9:], must=True), constrain=constrain, device=device, **options)
    if Path(spec).is_dir() or ("/" in spec and not spec.startswith((".", "/", "~")) and len(spec.split("/")) == 2):
        folder = Path(adapter) if adapter is not None and Path(adapter).is_dir() else None
        return EmbeddedPolicy(spec, adapter=folder, constrain=constrain, device=device, **options)
    raise ConfigError(f"policy {spec!r} is unknown; {EXAMPLES}")


def _adapter(name: str | None, must: bool = False) -> Path | None:
    if name is None:
        return None
    for folder in (ADAPTERS / name, Path(name)):
        if (folder / "adapter_config.json").is_file():
            return folder
    if name == "first" and not must:
        return None
    raise ConfigError(f"adapter {name!r}: neither a folder with adapter_config.json nor one that is shipped in {ADAPTERS}")


def _remote(spec: str, constrain: Mode, options: dict[str, Any]) -> OpenAIPolicy:
    from sleuth.agents.policy.openai import OpenAIPolicy

    url, mark, model = spec.partition("#")
    if not url.startswith(("http://", "https://")) or not mark or not model:
        raise ConfigError(f"policy {spec!r} is not URL#model; {EXAMPLES}")
    return OpenAIPolicy(url, model, constrain=constrain, **options)
