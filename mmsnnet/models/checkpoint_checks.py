"""Checks of what a checkpoint hands to the backbone."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from .anchors.lora import fit_lora


class CheckedLoading:
    """Checks every state dict that is loaded into a network, by whichever library.

    Only those who call :meth:`load_state_dict` of the network itself with ``strict=False`` may load
    a part of it: they are told what was missing. Of a larger model torch and MMEngine do not hand
    on how strict they were asked to be.
    """

    _may_be_part: bool = False

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, **settings: Any
    ) -> Any:
        """Load as torch does, but with all that is wrong in one line.

        Args:
            state_dict: Weights by name; of another image size they are resampled.
            strict: Whether all must be there and no others. Shapes must fit in any case.
            settings: Further arguments of torch.

        Returns:
            Missing and unexpected names, as torch does.

        Raises:
            ValueError: If weights do not fit.
        """
        self._may_be_part = not strict
        try:
            return super().load_state_dict(state_dict, strict, **settings)
        finally:
            self._may_be_part = False

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        prepare_checkpoint(self, state_dict, prefix, not self._may_be_part)
        super()._load_from_state_dict(state_dict, prefix, *args)


def prepare_checkpoint(
    network: nn.Module,
    state_dict: MutableMapping[str, Tensor],
    prefix: str,
    strict: bool = True,
) -> None:
    """Check a state dict against a network, and lay out its position embeddings for it.

    MMEngine loads with ``strict=False``, which would leave what does not fit as it is, at random
    values. A state dict without any anchor under ``prefix`` is left to the caller.

    Args:
        network: The network.
        state_dict: The state dict; it is changed.
        prefix: What names of the network begin with in it.
        strict: Whether all weights must be there and no others.

    Raises:
        ValueError: If weights differ in shape, or are missing or too many where that matters.
    """
    if not any(key.startswith(f'{prefix}anchors.') for key in state_dict):
        return
    own = network.state_dict()
    stored = state_dict.get(f'{prefix}position_grid')  # files without it count as square
    old_grid = None if stored is None else tuple(stored.tolist())
    for label, anchor in network.anchors.items():
        place = f'{prefix}anchors.{label}.vit.'
        fit_lora(anchor.vit, state_dict, place)
        anchor.fit_positions(state_dict, place, old_grid)
    state_dict[f'{prefix}position_grid'] = own['position_grid']
    given = {key[len(prefix) :] for key in state_dict if key.startswith(prefix)}
    fitting = {key: state_dict[prefix + key] for key in given}
    is_whole = own.keys() <= given
    if not strict:
        fitting = {**own, **{key: value for key, value in fitting.items() if key in own}}
    _refuse_differences(network, own, fitting)
    network.was_loaded = network.was_loaded or is_whole
    _warn_if_unfitted(state_dict.get(f'{prefix}stitches_fitted'))


def _warn_if_unfitted(fitted: Tensor | None) -> None:
    if fitted is not None and not bool(fitted):
        print_log(
            'The stitch layers of this checkpoint were never fitted: stitches other than single '
            'anchors give noise until a training fits them.',
            logger='current',
            level=30,
        )


def _refuse_differences(
    network: nn.Module, own: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> None:
    """Raise a ValueError if a state dict does not fit a network."""
    problems = differences(own, given)
    if problems:
        anchors = ', '.join(f'{a.label}: {a.depth} x {a.width}' for a in network.space.anchors)
        raise ValueError(
            f'The checkpoint is of another backbone than this StitchedViT ({anchors}): '
            f'{problems}. Use the anchors, scheme, out_indices and lora_rank of its '
            'training, and its img_size unless that is square.'
        )


def check_initialized(
    network: nn.Module, init_cfg: Mapping[str, Any] | Sequence[Mapping[str, Any]]
) -> None:
    """Refuse an ``init_cfg`` that named a file without anchors, which leaves them random.

    Raises:
        ValueError: If a checkpoint was to be loaded and held no anchor.
    """
    parts = [init_cfg] if isinstance(init_cfg, Mapping) else init_cfg
    files = [part.get('checkpoint') for part in parts if part.get('type') == 'Pretrained']
    if files and not network.was_loaded:
        raise ValueError(
            f'init_cfg of StitchedViT names {files[0]!r}, which holds no stitched backbone: give '
            'the prefix of the backbone there, or name the file of an anchor by '
            'anchors=[dict(model_name=..., checkpoint=FILE), ...].'
        )


def differences(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], may_have_more: bool = False
) -> str:
    """What a state dict lacks, has too much of, or has in another shape, each with an example.

    Args:
        own: State dict of a model.
        given: State dict that is to be loaded into it.
        may_have_more: Whether names that the model does not have are no difference.

    Returns:
        Words to stand within a sentence; empty if the state dict fits.
    """
    missing, extra = sorted(set(own) - set(given)), sorted(set(given) - set(own))
    wrong = [key for key in own if key in given and given[key].shape != own[key].shape]
    problems = []
    if wrong:
        problems.append(
            f'{len(wrong)} shapes differ, e.g. {wrong[0]} is {tuple(given[wrong[0]].shape)} there '
            f'and {tuple(own[wrong[0]].shape)} here'
        )
    if missing:
        problems.append(f'{len(missing)} weights are missing, e.g. {missing[0]}')
    if extra and not may_have_more:
        problems.append(f'{len(extra)} weights have no place here, e.g. {extra[0]}')
    return '; '.join(problems)
