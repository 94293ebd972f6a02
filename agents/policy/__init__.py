"""Policies: anything that answers messages. `open_policy` turns what a person writes after ``--policy`` into one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleuth.corpora.errors import ConfigError

if TYPE_CHECKING:
    from sleuth.agents.policy.constrain import Mode
    from sleuth.agents.policy.embedded import EmbeddedPolicy
    from sleuth.agents.policy.openai import OpenAIPolicy

ADAPTERS = Path(__file__).resolve().parent.parent / "adapters"
"""LoRA adapters that are shipped, one folder each."""

DEFAULT = "shipped"
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
EXAMPLES = """expected one of
  embedded                                the embedded model with the adapter that is shipped
  embedded:untrained                      the embedded model as it was published
  http://127.0.0.1:8000/v1#model-name     an OpenAI-compatible server; the key comes from SLEUTH_POLICY_KEY,
                                          for api.openai.com otherwise from OPENAI_API_KEY
  /path/to/model  or  org/model           a causal language model for transformers"""


def open_policy(
    spec: str = "embedded",
    *,
    adapter: str | Path | None = "default",
    constrain: Mode = "span",
    device: str = "auto",
    **options: Any,
) -> EmbeddedPolicy | OpenAIPolicy:
    """The policy that ``spec`` names; see `EXAMPLES`. Nothing is loaded or contacted before the first sample.

    ``adapter``: ``default`` (for the embedded model the shipped one, where there is one), ``none``, the name of a
    shipped one, or a folder. ``options`` go to the engine.
    """
    from sleuth.agents.policy.constrain import MODES

    if constrain not in MODES:
        raise ConfigError(f"constrain: expected one of {', '.join(MODES)}, found {constrain!r}")
    if "://" in spec:
        return _remote(spec, constrain, options)
    from sleuth.agents.policy.embedded import EmbeddedPolicy

    base, _, named = spec.partition(":")
    if base == "embedded":
        path, folder = None, _adapter({"untrained": "none", "": adapter or "none"}.get(named, named), embedded=True)
    elif (spec and Path(spec).is_dir()) or HUB_ID.fullmatch(spec):
        path, folder = spec, _adapter(adapter or "none", embedded=False)
    else:
        raise ConfigError(f"policy {spec!r} is unknown; {EXAMPLES}")
    return EmbeddedPolicy(path, adapter=folder, constrain=constrain, device=device, **options)


def is_shipped(adapter: Path) -> bool:
    """Whether an adapter's folder is one of `ADAPTERS`, so that its name alone says which it is."""
    return adapter.resolve().parent == ADAPTERS


def _adapter(name: str | Path, embedded: bool) -> Path | None:
    """The adapter's folder, None for no adapter."""
    if name in ("none", "untrained") or (name == "default" and not embedded):
        return None
    for folder in (ADAPTERS / (DEFAULT if name == "default" else name), Path(name)):
        if (folder / "adapter_config.json").is_file():
            return folder
    if name in ("default", DEFAULT) and embedded:
        return None
    raise ConfigError(
        f"adapter {str(name)!r}: expected default, none, a folder with adapter_config.json, or {_shipped()}"
    )


def _shipped() -> str:
    names = sorted(path.parent.name for path in ADAPTERS.glob("*/adapter_config.json"))
    return "one that is shipped: " + (", ".join(names) or "(none is)")


def _remote(spec: str, constrain: Mode, options: dict[str, Any]) -> OpenAIPolicy:
    from sleuth.agents.policy.openai import OpenAIPolicy

    url, mark, model = spec.partition("#")
    if not url.startswith(("http://", "https://")) or not mark or not model:
        raise ConfigError(f"policy {spec!r} is not URL#model; {EXAMPLES}")
    return OpenAIPolicy(url, model, constrain=constrain, **options)
