"""Fingerprints: what tells the inputs of one run from those of another."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping

ABSENT = '(absent)'


def fingerprint_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file as hex digits; memory use does not depend on its size."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for chunk in iter(lambda: file.read(1 << 20), b''):
            digest.update(chunk)
    return digest.hexdigest()


def fingerprint_text(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8 as hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def _flatten(value: object, prefix: str = '') -> dict[str, object]:
    """Return the leaves of nested dicts by dotted path."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    leaves: dict[str, object] = {}
    for key, child in value.items():
        leaves.update(_flatten(child, f'{prefix}.{key}' if prefix else str(key)))
    return leaves


def differences(
    stored: Mapping[str, object], current: Mapping[str, object]
) -> dict[str, tuple[object, object]]:
    """Return the fields in which two fingerprints differ, each with both values.

    Fields of nested dicts go by their dotted path; a field that one side lacks is `ABSENT` there.
    """
    old, new = _flatten(stored), _flatten(current)
    pairs = {key: (old.get(key, ABSENT), new.get(key, ABSENT)) for key in {**old, **new}}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
