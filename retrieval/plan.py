"""A plan says how vectors are held in memory: which code, how many lists, how much of them a query looks at.

`plan` is a pure function of the number of vectors, their dimensions and a budget of bytes; whatever it picks only
proposes candidates, and exact half-precision vectors on disk decide (`retrieval.dense`). Which codes it prefers was
measured (docs/retrieval.md): byte for byte, RaBitQ finds less than a product quantiser and is scanned more slowly, so
it is there for the asking and never chosen.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Literal

from sleuth.corpora.errors import ConfigError

Kind = Literal["flat", "sq8", "rabitq", "pq"]
FLAT_BYTES = 64 * 2**20
"""Up to here all vectors are compared in a few milliseconds, and nothing is worth approximating."""
DEFAULT_BYTES = 64
"""Memory of a vector where no budget is given."""
ID_BYTES = 8
"""faiss keeps 64-bit row numbers beside the codes of a list."""
TRAINING_PER_LIST = 48
MAX_TRAINING = 2**18
BLOCK = 32
"""Vectors of a fast-scan block; the last block of a list is half empty on average."""
PQ_WIDTHS = (2, 3, 4, 5, 6, 8, 12, 16, 24, 32)
"""Dimensions that share a 4-bit code; vectors are padded to a multiple."""
RABITQ_BITS = (4, 3, 2, 1)


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """How ``num_vectors`` are held, and what a query reads by default."""

    kind: Kind
    """``flat``: half-precision vectors, exact. ``sq8``: a byte a dimension. ``rabitq``: RaBitQ of Gao and Long 2024
    (SIGMOD) with ``width`` bits a dimension. ``pq``: product quantiser of 4 bits over ``width`` dimensions each,
    scanned in registers (Andre et al. 2015, "Cache locality is not enough"). All but flat are inverted files."""
    width: int
    num_vectors: int
    dims: int
    num_lists: int
    num_training: int
    """Vectors that the lists and the code book are learned from."""
    code_bytes: int
    """Of one vector, without its row number."""
    memory_bytes: int
    """Estimate for all vectors: codes, row numbers, centroids, half-empty blocks."""
    nprobe: int = 0
    """Lists that a query looks into, on average; 0 for flat."""
    depth: int = 0
    """Candidates that are compared exactly; 0 for flat, which is exact already."""

    @property
    def bytes_per_vector(self) -> float:
        return self.memory_bytes / max(1, self.num_vectors)

    @property
    def coded_dims(self) -> int:
        """Dimensions of the padded, rotated vectors that are coded."""
        return math.ceil(self.dims / self.width) * self.width if self.kind == "pq" else self.dims


def plan(num_vectors: int, dims: int, memory: int | None = None, kind: Kind | None = None) -> IndexPlan:
    """The most faithful plan within ``memory`` bytes (None: `DEFAULT_BYTES` a vector); ``kind`` leaves no other choice.

    Raises `ConfigError` where nothing fits, naming the least that would.
    """
    if num_vectors < 0 or dims < 1:
        raise ConfigError(f"plan: expected vectors of at least one dimension, found {num_vectors} of {dims}")
    flat = IndexPlan("flat", 16, num_vectors, dims, 0, 0, 2 * dims, 2 * dims * num_vectors)
    if kind == "flat" or (kind is None and flat.memory_bytes <= min(FLAT_BYTES, memory or FLAT_BYTES)):
        return _within([flat], memory)
    if kind is None and memory is None:
        memory = DEFAULT_BYTES * num_vectors
    return _within(
        [p for p in _coded(num_vectors, dims) if p.kind == kind or (not kind and p.kind != "rabitq")], memory
    )


def _within(plans: list[IndexPlan], memory: int | None) -> IndexPlan:
    """The first that fits."""
    for found in plans:
        if memory is None or found.memory_bytes <= memory:
            return found
    least = min(plans, key=lambda found: found.memory_bytes)
    raise ConfigError(
        f"memory of {size(memory or 0)} holds no index of {least.num_vectors:,} vectors of {least.dims} dimensions: "
        f"the smallest ({least.kind}) needs {size(least.memory_bytes)}"
    )


def _coded(num_vectors: int, dims: int) -> list[IndexPlan]:
    """Inverted files, most faithful first."""
    lists = num_lists(num_vectors)
    training = min(num_vectors, MAX_TRAINING, TRAINING_PER_LIST * lists)
    codes: list[tuple[Kind, int, int]] = [("sq8", 8, dims)]
    codes += [("pq", width, math.ceil(math.ceil(dims / width) / 2)) for width in PQ_WIDTHS if width <= dims]
    codes += [("rabitq", bits, rabitq_bytes(dims, bits)) for bits in RABITQ_BITS]
    found = []
    for kind, width, code in sorted(codes, key=lambda item: -item[2]):
        blocks = lists * BLOCK // 2 * code if kind != "sq8" else 0
        memory = num_vectors * (code + ID_BYTES) + lists * dims * 4 + blocks
        found.append(IndexPlan(kind, width, num_vectors, dims, lists, training, code, memory))
    return [replace(p, nprobe=max(1, min(p.num_lists, 32)), depth=200) for p in found]


def rabitq_bytes(dims: int, bits: int) -> int:
    """Size of a RaBitQ code in faiss 1.15: the bits, and factors of the estimator."""
    return math.ceil(dims / 8) * bits + (8 if bits == 1 else 20)


def num_lists(num_vectors: int) -> int:
    """A power of two near four times the root: more would weigh more than they save, fewer blur the neighbourhoods."""
    return 2 ** min(18, round(math.log2(4 * math.sqrt(num_vectors)) - 0.2)) if num_vectors >= 1_000 else 1


def size(num_bytes: float) -> str:
    """``12.3 MB``; powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(num_bytes) < 1000:
            return f"{num_bytes:,.0f} B" if unit == "B" else f"{num_bytes:,.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"


def parse_size(text: str) -> int:
    """Bytes of ``8GB``, ``500MB``, ``2GiB`` or a bare number; raises `ConfigError`."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    if match is None:
        raise ConfigError(f"expected a size such as 8GB or 500MB, found {text!r}")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** " kmgt".index(match[2].lower() or " "))
