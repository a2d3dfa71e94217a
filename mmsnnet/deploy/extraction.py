"""Takes one stitch out of a stitched model: a model, a config and a file of their own."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from safetensors.torch import save_file
from torch import Tensor, nn

from mmsnnet.compat.safe_schemes import META_KEY
from mmsnnet.models import StitchedViT, find_stitched_backbone
from mmsnnet.models.anchors.anchor_weights import read_state_dict
from mmsnnet.models.anchors.lora import merge_lora
from mmsnnet.models.host.head_statistics import attached_statistics, head_norms
from mmsnnet.models.host.loaded_model import set_loaded_attributes
from mmsnnet.models.host.lookup import check_fitted, without_augmentation
from mmsnnet.runtime.metadata import METADATA_KEY, ModelMetadata

from .extracted_config import extracted_config

CONFIG_NAME = 'config.py'
METADATA_NAME = 'stitch.json'
WEIGHTS_NAMES = {'safetensors': 'model.safetensors', 'mmengine': 'model.pth'}


def extract(model: nn.Module, cfg: Config, stitch: str) -> tuple[nn.Module, Config]:
    """A model that holds and runs one stitch of another.

    Stitch layers become one linear map each, LoRA merged. Head statistics of the stitch, where
    they are attached to the model, become those of its norms. Auxiliary heads are left out.

    Args:
        model: Stitched model with its weights, as ``mmsnnet.apis.init_model`` returns it.
        cfg: Config that it was built from.
        stitch: Name of the stitch.

    Returns:
        The model on the CPU in eval mode, and its config.

    Raises:
        ValueError: If there is no such stitch, or the stitch layers were never fitted.
    """
    model = without_augmentation(model)
    backbone = find_stitched_backbone(model)
    stitch = backbone.space[stitch]
    if not stitch.is_anchor:
        check_fitted(backbone)
    fixed_cfg = extracted_config(cfg, backbone, stitch.name)
    scope = fixed_cfg.get('default_scope') or 'mmseg'
    with DefaultScope.overwrite_default_scope(scope):
        extracted = MODELS.build(fixed_cfg.model)
    extracted.load_state_dict(_state_of(model, backbone, stitch.name, extracted), strict=True)
    dataset_meta = getattr(model, 'dataset_meta', None)
    if dataset_meta is not None:
        extracted.dataset_meta = copy.deepcopy(dataset_meta)
    return extracted.eval(), fixed_cfg


def _state_of(
    model: nn.Module, backbone: StitchedViT, stitch: str, extracted: nn.Module
) -> dict[str, Tensor]:
    """What the state dict of an extracted model is, taken from the stitched one."""
    place = next(name for name, module in model.named_modules() if module is backbone)
    merged = {
        f'{place}.stitch_layers.{name}.weight': layer
        for name, layer in backbone.stitch_layers.items()
    }
    given = model.state_dict()
    for label in backbone.anchors:
        merge_lora(given, f'{place}.anchors.{label}.vit.')
    state = {
        key: merged[key].merged_weight() if key in merged else given[key].detach()
        for key in extracted.state_dict()
    }
    statistics = attached_statistics(model)
    if statistics is not None and stitch in statistics.names:
        row = statistics.names.index(stitch)
        for name in head_norms(model):
            means, variances = statistics.tables[name]
            state[f'{name}.running_mean'] = means[row]
            state[f'{name}.running_var'] = variances[row]
    # Copies: the same tensor under two names cannot be written to safetensors.
    return {key: value.cpu().clone().contiguous() for key, value in state.items()}


def save_extracted(
    folder: str | os.PathLike[str],
    extracted: nn.Module,
    cfg: Config,
    metadata: ModelMetadata,
    weights: str = 'safetensors',
    overwrite: bool = False,
    check: Callable[[Path], None] = lambda folder: None,
) -> Path:
    """Write an extracted model as a folder of weights, config and description, or nothing.

    Args:
        folder: Where to.
        extracted: Result of :func:`extract`.
        cfg: Its config.
        metadata: What to say of it.
        weights: 'safetensors', or 'mmengine' for a checkpoint of MMEngine's own format.
        overwrite: Whether an existing folder is replaced.
        check: Called with the folder before it appears; what it raises leaves nothing behind.

    Raises:
        FileExistsError: If the folder exists and is not to be replaced.
        ValueError: If the format is unknown.
    """
    if weights not in WEIGHTS_NAMES:
        raise ValueError(f'Unknown format {weights!r}; choose {" or ".join(WEIGHTS_NAMES)}.')
    with new_folder(folder, overwrite) as temporary:
        state = extracted.state_dict()
        meta = {'dataset_meta': dict(classes=metadata.classes, palette=metadata.palette)}
        path = temporary / WEIGHTS_NAMES[weights]
        cfg.dump(temporary / CONFIG_NAME)
        if weights == 'mmengine':
            torch.save({'meta': meta, 'state_dict': state}, path)
        else:
            said = {'format': 'pt', META_KEY: json.dumps(meta), METADATA_KEY: metadata.to_json()}
            save_file(state, path, said)
            shutil.copymode(temporary / CONFIG_NAME, path)  # safetensors lets its owner alone read
        (temporary / METADATA_NAME).write_text(metadata.to_json() + '\n', encoding='utf-8')
        check(temporary)
    return Path(folder)


@contextmanager
def new_folder(folder: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """A folder under a temporary name, which becomes ``folder`` when the block has succeeded.

    Raises:
        FileExistsError: If the folder exists and is not to be replaced.
        NotADirectoryError: If a file has its name.
    """
    folder = Path(folder)
    if folder.is_file():
        raise NotADirectoryError(f'{folder} is a file; give the name of a folder.')
    if folder.exists() and not overwrite and any(folder.iterdir()):
        raise FileExistsError(f'{folder} exists already; give another --out, or --overwrite.')
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f'.{folder.name}.{os.getpid()}.tmp')
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        former = folder.with_name(f'.{folder.name}.{os.getpid()}.old')
        if folder.exists():
            os.replace(folder, former)
        os.replace(temporary, folder)
        shutil.rmtree(former, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load(folder: str | os.PathLike[str], device: str = 'cpu') -> nn.Module:
    """An extracted model, ready to be run.

    Args:
        folder: Folder of ``tools/export_stitch.py``.
        device: Where it runs.

    Returns:
        Model of its host in eval mode, with the attributes ``cfg`` (its config), ``dataset_meta``
        (classes and palette) and ``stitch_metadata``
        (:class:`~mmsnnet.runtime.metadata.ModelMetadata`). It is what the host's functions for
        inference take, and an ordinary module: ``model(images)`` of normalised images (B, C, H, W)
        gives logits or maps.

    Raises:
        FileNotFoundError: If a file of the folder is missing.
        ValueError: If one is damaged, or they do not fit together.
    """
    folder = Path(folder)
    files = [folder / name for name in WEIGHTS_NAMES.values() if (folder / name).is_file()]
    for path in (folder / CONFIG_NAME, folder / METADATA_NAME):
        if not path.is_file():
            raise FileNotFoundError(
                f'{folder} is no folder of an extracted stitch: {path.name} is missing.'
            )
    if not files:
        raise FileNotFoundError(f'{folder} holds no weights ({", ".join(WEIGHTS_NAMES.values())}).')
    metadata = ModelMetadata.from_json(
        (folder / METADATA_NAME).read_text(encoding='utf-8'), folder / METADATA_NAME
    )
    cfg = Config.fromfile(folder / CONFIG_NAME)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmseg'):
        model = MODELS.build(cfg.model)
    _load_strictly(model, read_state_dict(str(files[0])), files[0])
    set_loaded_attributes(model, cfg, dict(classes=metadata.classes, palette=metadata.palette))
    model.stitch_metadata = metadata
    return model.to(device).eval()


def _load_strictly(model: nn.Module, state: Mapping[str, Any], source: Path) -> None:
    """Load a state dict.

    Raises:
        ValueError: If it does not fit.
    """
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[1:2] or [str(error)]
        raise ValueError(
            f'{source} does not fit the config beside it ({reason[0].strip()[:200]}); extract the '
            'stitch again.'
        ) from None
