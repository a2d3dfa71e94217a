"""Refuses MMEngine's own compilation of the whole training step."""

from __future__ import annotations

from mmengine.runner import Runner


def refuse_runner_compile(runner: Runner) -> None:
    """Refuse a config with ``compile=`` of the Runner.

    MMEngine would compile ``train_step`` as a whole. Each route is another graph of it, so torch
    would compile anew for one stitch after the other and then give up.

    Raises:
        ValueError: If the config asks for it.
    """
    wanted = runner.cfg.get('compile')
    if wanted is None or wanted is False:
        return
    raise ValueError(
        f'compile={wanted!r} of the config would compile the training step anew for every stitch. '
        'Leave it out and set model.backbone.compile_blocks=True, or to the same arguments: it '
        'compiles the blocks once for all stitches.'
    )
