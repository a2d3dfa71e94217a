"""Results folders and latency files as the tools write them, with values that tests choose."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def record(name: str, gflops: float, value: float | None, number: int = 0, **more: Any) -> dict:
    """Record of a stitch whose parameters are a tenth of its FLOPs in millions."""
    family = '-'.join(part.rstrip('0123456789') for part in name.split('-'))
    return dict(
        id=number,
        name=name,
        family=family,
        flops=round(gflops * 1e9),
        params=round(gflops * 1e5),
        metrics={'mIoU': value, **more},
    )


def write_results(
    folder: Path, records: Sequence[Mapping[str, Any]], loop: Mapping[str, Any] | None = None
) -> Path:
    """Write a results folder; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ''.join(json.dumps(one) + '\n' for one in records)
    (folder / 'stitches.jsonl').write_text(lines, encoding='utf-8')
    details = dict(test_loop=dict(loop or {}))
    (folder / 'run.json').write_text(json.dumps(dict(fingerprint={}, details=details)))
    return folder


def write_latency(path: Path, rows: Mapping[str, tuple[float, float]]) -> Path:
    """Write a latency file of milliseconds and megabytes by name; returns it."""
    stitches = [dict(name=name, ms=ms, mb=mb) for name, (ms, mb) in rows.items()]
    path.write_text(json.dumps(dict(stitches=stitches)), encoding='utf-8')
    return path
