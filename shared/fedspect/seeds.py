"""Derived seeds: one seed for each purpose from names, the same on every machine and in every release."""

from __future__ import annotations

import hashlib


def seed_digest(*names: object) -> bytes:
    """SHA-256 of the names joined by slashes."""
    return hashlib.sha256("/".join(str(name) for name in names).encode("utf-8")).digest()


def derived_seed(*names: object) -> int:
    """One seed for one purpose: the same names always give the same 63 bits."""
    return int.from_bytes(seed_digest(*names)[:8], "big") >> 1
