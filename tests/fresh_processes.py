"""Python code in processes of its own, which share the seconds that importing torch takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from tests.toy_segmentation import child_environment

NEEDS_FORK = pytest.mark.skipif(
    not hasattr(os, 'fork'), reason='processes cannot be forked here'
)
#: Forks before anything of the package or of MMEngine is imported. Text of a child goes to a file,
#: so that nothing of it is lost or waited for.
_FORKS = """
import json, os, sys, tempfile, traceback
import matplotlib, timm, torch
torch.set_num_threads(1)
outcomes = []
for code in json.loads(sys.stdin.read()):
    with tempfile.TemporaryFile() as shown, tempfile.TemporaryFile() as failed:
        if os.fork() == 0:
            os.dup2(shown.fileno(), 1)
            os.dup2(shown.fileno(), 2)
            try:
                exec(code, {'sys': sys})
            except BaseException:
                failed.write(traceback.format_exc().encode())
            for stream in (sys.stdout, sys.stderr, failed):
                stream.flush()
            os._exit(0)
        os.wait()
        for file in (shown, failed):
            file.seek(0)
        outcomes.append((shown.read().decode(), failed.read().decode()))
sys.stdout.write(json.dumps(outcomes))
"""


class Outcome(NamedTuple):
    """What became of a piece of code.

    Attributes:
        shown: What stood on the terminal, both streams.
        error: Traceback; empty if there was none.
    """

    shown: str
    error: str


def run_each(codes: Sequence[str], **environment: str) -> dict[str, Outcome]:
    """Run each piece of code in a fork of a process that imported matplotlib, timm and torch only.

    Args:
        codes: Code; ``sys`` is there.
        environment: Variables to set besides.
    """
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', _FORKS],
        env={**child_environment(), **environment},
        input=json.dumps(list(codes)), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout.splitlines()[-1])
    return {code: Outcome(*one) for code, one in zip(codes, outcomes)}
