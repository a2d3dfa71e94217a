"""Checkpoints that name the anchors' files and their hashes in place of the anchors' weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmsnnet.results.fingerprint import fingerprint_file

from .anchors.anchor_vit import AnchorViT
from .anchors.anchor_weights import load_for_images

#: Entry of a state dict that stands for its anchors: JSON in UTF-8 as bytes, since savers and
#: loaders of state dicts take tensors alone.
KEY = 'anchor_files'
#: Entry by which a stitched backbone in a state dict is known.
_MARK = 'position_grid'


@dataclass(frozen=True)
class AnchorFile:
    """Where an anchor's weights come from.

    Attributes:
        file: Path, as the config names it.
        prefix: What the names of the anchor's weights begin with in it.
        sha256: SHA-256 of the file as hex digits.
    """

    file: str
    prefix: str
    sha256: str


def anchor_files(backbone: Any) -> dict[str, AnchorFile]:
    """Files that the anchors of a backbone came from, by label.

    Args:
        backbone: A StitchedViT.

    Raises:
        ValueError: If the anchors learn, one came from no local file, or now differs from it.
    """
    if backbone.training_mode != 'stitches':
        raise ValueError(
            "Checkpoints can leave out only anchors that stay as they are: set training='stitches' "
            f'of the backbone (it is {backbone.training_mode!r}), or drop StitchAnchorFilesHook.'
        )
    found = {}
    for label, anchor in backbone.anchors.items():
        path = anchor.config.checkpoint
        if path is None or not Path(path).is_file():
            raise ValueError(
                f'Checkpoints cannot leave out anchor {label}, whose weights come from '
                f'{"no file" if path is None else path}: give a local file by '
                f'anchors=[dict(model_name={anchor.config.model_name!r}, checkpoint=FILE), ...].'
            )
        found[label] = AnchorFile(path, anchor.config.checkpoint_prefix, fingerprint_file(path))
        _check_unchanged(backbone, label)
    return found


def _check_unchanged(backbone: Any, label: str) -> None:
    """Refuse an anchor that is not what its file gives, as one of another checkpoint is not.

    The file is read into the anchor itself, so that nothing is held twice on its device.
    """
    anchor = backbone.anchors[label]
    before = {name: value.cpu().clone() for name, value in anchor.vit.state_dict().items()}
    load_for_images(anchor, backbone.normalization)
    after = anchor.vit.state_dict()
    changed = [name for name, value in before.items() if not torch.equal(value, after[name].cpu())]
    if changed:
        anchor.vit.load_state_dict(before)
        raise ValueError(
            f'Checkpoints cannot leave out anchor {label}: {len(changed)} of its weights, e.g. '
            f'{changed[0]}, are not those of {anchor.config.checkpoint}. They came with another '
            'checkpoint: leave out StitchAnchorFilesHook, or name the file that they came from.'
        )


def omit_anchors(
    state: MutableMapping[str, Any], backbone: Any, files: Mapping[str, AnchorFile]
) -> None:
    """Put files in the place of the anchors of all backbones in a state dict, in place.

    Backbones whose anchors differ from the given one's, as other teachers may, are left whole.

    Args:
        state: State dict of a model, or of a copy of it in a wrapper.
        backbone: Backbone whose anchors the files hold.
        files: Result of :func:`anchor_files`.
    """
    own = {k: v.cpu() for k, v in backbone.state_dict().items() if k.startswith('anchors.')}
    text = json.dumps({label: asdict(one) for label, one in files.items()})
    for mark in [key for key in state if key.rpartition('.')[2] == _MARK]:
        prefix = mark[: -len(_MARK)]
        given = {k for k in state if k.startswith(f'{prefix}anchors.')}
        if given == {prefix + k for k in own} and all(
            torch.equal(state[prefix + k].cpu(), v) for k, v in own.items()
        ):
            for key in given:
                del state[key]
            state[prefix + KEY] = torch.tensor(list(text.encode()), dtype=torch.uint8)


def names_anchor_files(state: Mapping[str, Any]) -> bool:
    """Whether a state dict names files in the place of anchors."""
    return any(key.rpartition('.')[2] == KEY for key in state)


def restore_anchors(
    backbone: Any, state: MutableMapping[str, Tensor], prefix: str
) -> None:
    """Read anchors that a state dict leaves out from their files, into backbone and state dict.

    A file is looked for where the backbone's config says, else where the training had it.

    Args:
        backbone: Backbone about to load the state dict.
        state: State dict; without ``anchor_files`` it stays as it is.
        prefix: What names of the backbone begin with in it.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is another one than in training, or the anchors are others.
    """
    encoded = state.pop(prefix + KEY, None)
    if encoded is None:
        return
    files = {k: AnchorFile(**v) for k, v in json.loads(bytes(encoded.tolist())).items()}
    if files.keys() != backbone.anchors.keys():
        raise ValueError(
            f'The checkpoint is of anchors {", ".join(files)}, this StitchedViT has '
            f'{", ".join(backbone.anchors)}.'
        )
    paths = {label: _checked_path(backbone.anchors[label], label, files[label]) for label in files}
    for label, anchor in backbone.anchors.items():
        config = replace(
            anchor.config, checkpoint=paths[label], checkpoint_prefix=files[label].prefix
        )
        load_for_images(anchor, backbone.normalization, config)
    own = backbone.state_dict()
    for key in own:
        if key.startswith('anchors.') or key == _MARK:  # laid out for this image size
            state[prefix + key] = own[key].clone()


def _checked_path(anchor: AnchorViT, label: str, known: AnchorFile) -> str:
    """Path of an anchor's file, if it is the one of the training."""
    path = anchor.config.checkpoint or known.file
    if not Path(path).is_file():
        raise FileNotFoundError(
            f'The checkpoint leaves out anchor {label}, whose file {path} (SHA-256 {known.sha256}) '
            'is missing: put it there, or give its place by '
            f'anchors=[dict(model_name={anchor.config.model_name!r}, checkpoint=FILE), ...].'
        )
    found = fingerprint_file(path)
    if found != known.sha256:
        raise ValueError(
            f'The file {path} of anchor {label} is not the one that the checkpoint was trained '
            f'with: its SHA-256 is {found}, that of the training {known.sha256}.'
        )
    return path
