"""Late interaction compares every token of a query with every token of a passage, and adds up the best of each.

Khattab and Zaharia 2020 (ColBERT), arXiv 2004.12832, section 3.3. Any encoder of transformers serves; one that was not
trained for it, as the embedded MiniLM, gives token vectors all the same, and what that is worth is to be measured.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sleuth.corpora.errors import ModelError
from sleuth.corpora.records import Passage
from sleuth.retrieval.embed import SentenceEmbedder, _minilm_folder

QUERY_TOKENS, PASSAGE_TOKENS = 64, 256


@dataclass(slots=True)
class LateInteraction:
    """A `Scorer`: mean over the query's tokens of the largest cosine with a token of the passage; loaded when first
    asked. Marks at the ends are no tokens."""

    spec: str = "minilm"
    """``minilm``, or the folder or id of an encoder."""
    device: str = "cpu"
    _loaded: Any = field(default=None, repr=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def __call__(self, query: str, passages: Sequence[Passage]) -> list[float]:
        import torch

        with self._lock, torch.inference_mode():
            asked, there = self._vectors([query], QUERY_TOKENS)  # (1, Q, D), (1, Q)
            texts = [f"{p.title}\n{p.text}" if p.title else p.text for p in passages]
            told, standing = self._vectors(texts, PASSAGE_TOKENS)  # (N, T, D), (N, T)
            near = torch.einsum("qd,ntd->nqt", asked[0][there[0]], told)  # (N, Q, T)
            if not near.shape[1]:
                return [0.0] * len(passages)
            best = near.masked_fill(~standing[:, None], -1.0).amax(2)  # (N, Q)
            return best.mean(1).tolist()

    def _vectors(self, texts: Sequence[str], most: int) -> tuple[Any, Any]:
        """Unit vectors (N, T, D), and which are of tokens (N, T)."""
        import torch

        tokenizer, model = self._model()
        cut = tokenizer(list(texts), truncation=True, max_length=most, padding=True, return_tensors="pt",
                        return_special_tokens_mask=True).to(self.device)  # fmt: skip
        ends = cut.pop("special_tokens_mask").bool()
        states = model(**cut).last_hidden_state.float()
        return torch.nn.functional.normalize(states, dim=-1), ~ends & cut["attention_mask"].bool()

    def _model(self) -> Any:
        if self._loaded is None:
            from transformers import AutoModel, AutoTokenizer

            folder = _minilm_folder() if self.spec == "minilm" else SentenceEmbedder(self.spec, self.device).folder()
            try:
                tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
                model = AutoModel.from_pretrained(str(folder), local_files_only=True, use_safetensors=True)
            except (OSError, ValueError) as error:
                raise ModelError(f"late interaction: {Path(folder)} cannot be loaded as an encoder: {error}") from error
            self._loaded = tokenizer, model.to(self.device).eval()
        return self._loaded
