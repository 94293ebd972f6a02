"""The split says which benchmark rows are for reporting only; training, synthesis and tuning never see those.

It is one rule for everybody, a hash of the row's id, so that no list of ids has to be kept in step between folders.
Rows that share a ``base_id`` (one question in several languages) fall on the same side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from sleuth.corpora.errors import InputError

REPORTING_TENTHS = 3
"""Buckets 0, 1 and 2 of ten are for reporting."""


def bucket(row: Mapping[str, Any]) -> int:
    """0..9 from SHA-256 of the row's ``base_id`` where it has one, otherwise of its ``id``."""
    key = row.get("base_id") or row.get("id")
    if not isinstance(key, str) or not key:
        raise InputError(f"a question row needs a string id to be split; found keys {sorted(row)}")
    return int(hashlib.sha256(key.encode()).hexdigest(), 16) % 10


def reporting_only(row: Mapping[str, Any]) -> bool:
    """True for a row that figures are reported on and that training and the choice of settings must not touch."""
    return bucket(row) < REPORTING_TENTHS
