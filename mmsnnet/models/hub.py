"""Saves a backbone to a folder or to the Hugging Face Hub, and builds it from there."""

from __future__ import annotations

import copy
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmsnnet.results.chooser import Chooser, chooser_of_results
from mmsnnet.results.records import RECORDS_NAME

from .hub_access import hub_or_cache
from .hub_config import CONFIG_NAME, config_of, read_config

WEIGHTS_NAME = 'model.safetensors'
#: Arguments of ``from_pretrained`` that say how to fetch files.
_FETCHING = ('revision', 'cache_dir', 'force_download', 'local_files_only', 'token')
_CARD = """---
{{ card_data }}
---

A stitched ViT backbone (SN-Netv2, arXiv 2307.00154): several pretrained ViTs joined by stitch
layers, of which any route runs at its own cost. Saved by `mmsnnet`.

```python
from mmsnnet import StitchedViT

backbone = StitchedViT.from_pretrained('THIS REPOSITORY')
backbone.set_budget(gflops=50)   # or set_stitch(name); stitches.jsonl lists them with their costs
maps = backbone(images)          # normalised by backbone.normalization
```
"""

Backbone = TypeVar('Backbone', bound='HubMixin')


class HubMixin(
    PyTorchModelHubMixin,
    library_name='mmsnnet',
    tags=['image-feature-extraction', 'stitching'],
    model_card_template=_CARD,
):
    """``save_pretrained``, ``from_pretrained`` and ``push_to_hub`` of a StitchedViT.

    A saved folder holds ``config.json`` (every argument, and the active stitch),
    ``model.safetensors``, ``stitches.jsonl`` (the stitches with costs, and metrics if there are
    results of a sweep; ``tools/choose_stitch.py`` reads it) and a ``README.md``.

    Attributes:
        call: Positional and named arguments that the backbone was built with.
    """

    call: tuple[tuple, Mapping[str, Any]]

    def __new__(cls: type[Backbone], *args: Any, **kwargs: Any) -> Backbone:
        """Remember the arguments; the mixin's own way drops those that are objects."""
        instance = object.__new__(cls)
        instance.call = copy.deepcopy((args, kwargs))
        return instance

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        results: str | os.PathLike[str] | None = None,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        config: None = None,
        model_card_kwargs: Mapping[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Save the backbone to a folder, and to the Hub if asked.

        Args:
            save_directory: Folder; made if need be. An existing ``README.md`` is left. Other files
                are replaced by whole ones, the config last.
            results: Folder of a sweep to choose by and save, see :meth:`use_results`.
            push_to_hub: Whether to upload it too.
            repo_id: Repository on the Hub; None takes the folder's name.
            config: None, as the mixin hands it on.
            model_card_kwargs: What to fill into the ``README.md``.
            push_to_hub_kwargs: Further arguments of ``push_to_hub``, whose result is returned.

        Raises:
            ValueError: If JSON cannot say an argument, or the folder is a file.
        """
        folder = Path(save_directory)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f'{folder} is a file; give a folder to save to.')
        if results is not None:
            self.use_results(results)
        described = {**config_of(self), **self._judged_by()}
        lines = [json.dumps(record, allow_nan=False) for record in self._records()]
        _write(folder, self.state_dict(), lines, described)
        if not (folder / 'README.md').exists():
            self.generate_model_card(**(model_card_kwargs or {})).save(folder / 'README.md')
        if push_to_hub:
            return self.push_to_hub(repo_id or folder.name, **push_to_hub_kwargs)
        return None

    @classmethod
    def from_pretrained(
        cls: type[Backbone],
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        map_location: str | torch.device = 'cpu',
        **arguments: Any,
    ) -> Backbone:
        """Build a saved backbone, in eval mode and in the precision that it was saved in.

        The anchors' pretrained weights are not fetched.

        Args:
            pretrained_model_name_or_path: Folder of :meth:`save_pretrained`, or repository on the
                Hub such as ``'user/name'``.
            map_location: Device to put it on.
            arguments: Arguments of the constructor to take in place of the saved ones, such as
                ``img_size`` or ``stitch``; and ``revision``, ``cache_dir``, ``force_download``,
                ``local_files_only`` and ``token`` of ``huggingface_hub.hf_hub_download``.

        Raises:
            FileNotFoundError: If folder, config or weights are missing or out of reach.
            ValueError: If they are damaged, of another model, or do not fit each other.
        """
        source = os.fspath(pretrained_model_name_or_path)
        fetching = {key: arguments.pop(key) for key in _FETCHING if key in arguments}
        folder = Path(source) if Path(source).is_dir() else _fetched(source, fetching)
        config = read_config(folder, source)
        try:
            with torch.random.fork_rng(devices=[]):  # what is drawn is overwritten
                backbone = cls(**{**config['arguments'], **arguments})
        except TypeError as error:
            raise ValueError(f'{folder / CONFIG_NAME} does not fit: {error}') from None
        backbone._load(folder / WEIGHTS_NAME)
        backbone._chooser = backbone._saved_chooser(folder, config)
        return backbone.to(map_location).eval()

    def _judged_by(self) -> dict[str, Any]:
        """What the metrics of ``stitches.jsonl`` are to be judged by."""
        chooser = self._chooser
        if chooser is None:
            return {'metric': None, 'rule': None, 'costs_of': 'backbone'}
        return {'metric': chooser.metric, 'rule': chooser.rule, 'costs_of': 'swept model'}

    def _records(self) -> list[dict[str, Any]]:
        """Lines of ``stitches.jsonl``."""
        return [
            {
                'id': self.space[one.name].id,
                'name': one.name,
                'family': one.family,
                'flops': one.flops,
                'params': one.params,
                'metrics': dict(one.metrics),
            }
            for one in self.chooser.candidates
        ]

    def _saved_chooser(self, folder: Path, config: Mapping[str, Any]) -> Chooser | None:
        """Chooser by the saved results of a sweep; None if there were none."""
        if config.get('costs_of') != 'swept model':
            return None
        chooser = chooser_of_results(folder, None, config.get('metric'), config.get('rule'))
        return chooser.check_space(self.space, folder)

    def _load(self, path: Path) -> None:
        """Load a weights file.

        Raises:
            FileNotFoundError: If it is missing.
            ValueError: If it is damaged or does not fit.
        """
        if not path.is_file():
            raise FileNotFoundError(f'{path.parent} has a {CONFIG_NAME} but no {path.name}.')
        try:
            state = load_file(path)
        except (SafetensorError, ValueError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f'{path} is damaged or cut off: fetch or save it again ({reason}).'
            ) from None
        if not any(name.startswith('anchors.') for name in state):
            raise ValueError(f'{path} holds no weights of a StitchedViT.')
        try:
            self.load_state_dict(state)
        except ValueError as error:
            raise ValueError(f'{path} does not fit {CONFIG_NAME} beside it: {error}') from None
        precisions = {value.dtype for value in state.values() if value.is_floating_point()}
        if len(precisions) == 1:
            self.to(precisions.pop())
        self.skip_anchor_weights()


def _write(
    folder: Path, state: Mapping[str, Tensor], lines: Sequence[str], config: Mapping[str, Any]
) -> None:
    """Write the files of a folder beside it first, then put them in their places."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix='.saving-') as place:
        new = Path(place)
        save_file(_apart(state), new / WEIGHTS_NAME, metadata={'format': 'pt'})
        (new / RECORDS_NAME).write_text(''.join(f'{line}\n' for line in lines), 'utf-8')
        (new / CONFIG_NAME).write_text(json.dumps(config, indent=2) + '\n', 'utf-8')
        for name in (WEIGHTS_NAME, RECORDS_NAME, CONFIG_NAME):
            os.replace(new / name, folder / name)


def _apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict on the CPU, no two tensors of which share memory, as safetensors need it."""
    return {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}


def _fetched(repository: str, fetching: Mapping[str, Any]) -> Path:
    """Folder of the cache with a repository's files.

    Raises:
        FileNotFoundError: If they cannot be had.
    """
    if repository.count('/') > 1 or repository.startswith(('.', '/', '~')):
        raise FileNotFoundError(f'There is no folder {repository!r}.')
    try:
        with hub_or_cache():
            config = hf_hub_download(repository, CONFIG_NAME, **fetching)
            hf_hub_download(repository, WEIGHTS_NAME, **fetching)
            try:
                hf_hub_download(repository, RECORDS_NAME, **fetching)
            except Exception:
                if json.loads(Path(config).read_bytes()).get('costs_of') == 'swept model':
                    raise
    except Exception as error:  # of huggingface_hub, requests or httpx
        reason = (str(error).strip() or 'no reason given').splitlines()[0]
        raise FileNotFoundError(
            f'There is no folder {repository!r}, and the Hub repository of that name could not be '
            f'fetched ({type(error).__name__}: {reason}). Without a network give a folder of '
            'save_pretrained().'
        ) from error
    return Path(config).parent
