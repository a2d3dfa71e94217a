"""Loads pretrained weights into an anchor."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from mmengine.logging import print_log
from timm.models import adapt_input_conv
from torch import Tensor, nn

from ..checkpoint_checks import differences
from ..checkpoint_file import load_safely
from ..hub_access import hub_or_cache
from .anchor_config import AnchorConfig
from .anchor_vit import AnchorViT
from .lora import fit_lora

#: Parts of classification and pretraining that a dense backbone does not hold.
_IGNORED = ('head', 'fc_norm', 'attn_pool', 'pre_logits', 'mask_token', 'decoder', 'norm.')
#: Of these, what a classifier behind the tokens needs.
_CLASSIFIER = ('head.', 'head_dist.', 'fc_norm.')
#: Prefix of an anchor in a checkpoint of a model with a StitchedViT.
_OF_STITCHED = re.compile(r'(?P<model>.*)backbone\.anchors\.(?P<label>[^.]+)\.vit\.')
_HINT = 'Give a local file instead: anchors=[dict(model_name={name!r}, checkpoint=FILE), ...].'


def load_for_images(
    anchor: AnchorViT,
    normalization: tuple[Sequence[float], Sequence[float]],
    config: AnchorConfig | None = None,
) -> None:
    """Load an anchor's weights, for images that come with a normalisation.

    Args:
        anchor: The anchor; another normalisation than its own is folded into it.
        normalization: Mean and standard deviation per channel, in [0, 1].
        config: As of :func:`load_anchor_weights`.

    Raises:
        FileNotFoundError: If the file is missing, or timm's weights cannot be fetched.
        ValueError: If the weights do not fit the anchor.
    """
    config = config or anchor.config
    load_anchor_weights(anchor, config)
    if config.has_weights and anchor.normalization != normalization:
        fold_normalization(anchor.vit, anchor.normalization, normalization)


def load_anchor_weights(anchor: AnchorViT, config: AnchorConfig | None = None) -> None:
    """Load what the config of an anchor names: a file, timm's weights, or nothing.

    Args:
        anchor: The anchor.
        config: Config that names them in place of the anchor's own.

    Raises:
        FileNotFoundError: If the file is missing, or timm's weights cannot be fetched.
        ValueError: If the weights do not fit the anchor.
    """
    config = config or anchor.config
    if config.checkpoint is not None:
        source, prefix = config.checkpoint, config.checkpoint_prefix
        content = _read_weights(source)
        state = _converted(_below_prefix(content, prefix, source), anchor, source)
        state = {**_classifier_beside(content, prefix), **state}
    elif config.pretrained:
        state, source = _timm_state_dict(anchor), f'timm {config.model_name}'
    else:
        return
    _load_checked(anchor, state, source, config.checkpoint_prefix)
    if anchor.keeps_classifier:
        kept = {name: value for name, value in state.items() if name.startswith(_CLASSIFIER)}
        anchor.classifier = source, kept
    print_log(f'Loaded anchor {config.model_name} from {source}.', logger='current')


def read_state_dict(path: str, prefix: str = '') -> dict[str, Tensor]:
    """State dict of a checkpoint file, without ``prefix``; other entries are left out.

    Understands safetensors, and files of torch whose weights stand at the top or under
    ``state_dict``, ``model`` or ``model_ema``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or no name begins with ``prefix``.
    """
    return _below_prefix(_read_weights(path), prefix, path)


def _read_weights(path: str) -> Mapping[str, Any]:
    """All weights of a file by their names in it."""
    content = _read(path)
    for key in ('state_dict', 'model', 'model_ema'):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise ValueError(f'Weights file {path!r} holds a {type(content).__name__}, no state dict.')
    return content


def _below_prefix(content: Mapping[str, Any], prefix: str, path: str) -> dict[str, Tensor]:
    """Weights whose names begin with a prefix, without it."""
    state = {k[len(prefix) :]: v for k, v in content.items() if k.startswith(prefix)}
    if not state:
        raise ValueError(
            f'No weight in {path!r} begins with checkpoint_prefix={prefix!r}; names there begin '
            f'like {sorted(content)[:2]}.'
        )
    return state


def _classifier_beside(content: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    """Classifier of an anchor that was trained as a StitchedViT, which lies beside the backbone.

    Args:
        content: All weights of the file.
        prefix: What the anchor's names begin with, ``backbone.anchors.S.vit.``.

    Returns:
        Weights by their names in timm; empty where the prefix is another.
    """
    found = _OF_STITCHED.fullmatch(prefix)
    if not found:
        return {}
    parts = {'head': 'head.classifiers', 'fc_norm': 'head.fc_norms'}
    names = {
        f'{part}.{kind}': f'{found["model"]}{there}.{found["label"]}.{kind}'
        for part, there in parts.items()
        for kind in ('weight', 'bias')
    }
    return {name: content[there] for name, there in names.items() if there in content}


def _read(path: str) -> Any:
    """Content of a weights file, of which nothing runs."""
    if '://' not in path and not Path(path).is_file():
        raise FileNotFoundError(f'Weights file {path!r} does not exist.')
    if '://' not in path and not path.endswith('.safetensors'):
        return load_safely(path)
    try:
        if path.endswith('.safetensors'):
            from safetensors.torch import load_file

            return load_file(path)
        from mmengine.runner import CheckpointLoader  # takes all of its training along

        return CheckpointLoader.load_checkpoint(path, map_location='cpu')
    except Exception as error:
        reason = (str(error).strip() or 'no reason given').splitlines()[0]
        raise ValueError(
            f'Weights file {path!r} cannot be read ({type(error).__name__}: {reason}).'
        ) from error


def _converted(state: dict[str, Tensor], anchor: AnchorViT, source: str) -> dict[str, Tensor]:
    """State dict with timm's names, laid out for image size and channels of an anchor.

    Raises:
        ValueError: If its patch or position embedding cannot be resampled.
    """
    key = 'patch_embed.proj.weight'
    try:
        state = anchor.convert(state)
        # As timm does on its own weights.
        if key in state and state[key].shape[1] == 3 != anchor.in_channels:
            return {**state, key: adapt_input_conv(anchor.in_channels, state[key])}
        return state
    except Exception as error:  # timm reshapes unchecked
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f'Weights {source!r} do not fit the anchor: timm cannot convert them ({reason}).'
        ) from error


def _timm_state_dict(anchor: AnchorViT) -> dict[str, Tensor]:
    """Weights that timm knows for an anchor, laid out for the anchor's image size."""
    config = anchor.config
    arguments = anchor.timm_arguments(anchor.vit.patch_embed.img_size)
    if anchor.keeps_classifier:
        del arguments['num_classes']  # as many as the weights have
    try:
        # The weights that the constructor would draw are overwritten: leave the RNG alone.
        with torch.random.fork_rng(devices=[]), hub_or_cache():
            vit = timm.create_model(
                config.model_name, pretrained=True, **arguments, **config.model_kwargs
            )
    except Exception as error:
        raise FileNotFoundError(
            f'The weights of timm model {config.model_name!r} could not be loaded '
            f'({type(error).__name__}: {str(error).splitlines()[0] if str(error) else "no text"}). '
            + _HINT.format(name=config.model_name)
        ) from error
    return vit.state_dict()


def _load_checked(
    anchor: AnchorViT, state: Mapping[str, Tensor], source: str, prefix: str
) -> None:
    """Load a state dict that must fit the model but for parts that serve classification.

    The final norm of files without one stays as it is where nothing passes it.
    """
    state = dict(state)
    fit_lora(anchor.vit, state)
    own = anchor.vit.state_dict()
    state = {k: v for k, v in state.items() if k in own or not k.startswith(_IGNORED)}
    if not anchor.final_norm:
        state = {**{k: v for k, v in own.items() if k.startswith('norm.')}, **state}
    problems = differences(own, state)
    if problems:
        hint = _prefix_hint(own, state, prefix)
        raise ValueError(f'Weights {source!r} do not fit the anchor: {problems}.{hint}')
    anchor.vit.load_state_dict(state)


def _prefix_hint(own: Mapping[str, Tensor], state: Mapping[str, Tensor], prefix: str) -> str:
    """Longer prefix to take off, if the weights that fit stand behind one."""
    key = 'patch_embed.proj.weight'
    found = [name for name in state if name.endswith(key) and name != key]
    if not found or any(name in state for name in own if not name.startswith('norm.')):
        return ''
    return f' Set checkpoint_prefix={prefix + found[0][: -len(key)]!r}.'


@torch.no_grad()
def fold_normalization(
    vit: nn.Module,
    expected: tuple[Sequence[float], Sequence[float]],
    given: tuple[Sequence[float], Sequence[float]],
) -> None:
    """Make a ViT that expects one normalisation of images accept another.

    With x_given = (image - mean_g) / std_g, the expected input is x_given * std_g / std_e +
    (mean_g - mean_e) / std_e, an affine map per channel, which the patch projection absorbs
    exactly.

    Raises:
        ValueError: If the patch projection has no bias and the model no position embedding.
    """
    projection = vit.patch_embed.proj
    weight, bias = projection.weight, projection.bias
    plain = isinstance(vit.patch_embed.norm, nn.Identity)
    if bias is None and plain and vit.pos_embed is not None:
        skip = 0 if vit.no_embed_class else vit.num_prefix_tokens
        bias = vit.pos_embed[:, skip:]  # added to every patch, as a bias is
    if bias is None:
        raise ValueError(
            'An anchor whose patch projection has no bias cannot take images normalised with '
            f'mean {tuple(given[0])} in place of {tuple(expected[0])}.'
        )
    mean_e, std_e = (weight.new_tensor(values) for values in expected)
    mean_g, std_g = (weight.new_tensor(values) for values in given)
    shift = ((mean_g - mean_e) / std_e).view(1, -1, 1, 1)
    bias.add_((weight * shift).sum(dim=(1, 2, 3)))
    weight.mul_((std_g / std_e).view(1, -1, 1, 1))
