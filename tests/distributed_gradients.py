"""One of two processes that train a small model under two wrappers, for test_stitch_distributed.

``python -m tests.distributed_gradients FILE [DEVICE]`` under the variables that torchrun sets
writes what each step left: gradients by wrapper, and what was sent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from mmengine.logging import MMLogger
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from mmsnnet.engine import StitchDistributedDataParallel
from mmsnnet.models import StitchedViT
from mmsnnet.models.route_parameters import parameters_of_route
from tests.builders import tiny_anchor
from tests.toy_segmentation import ROOT, child_environment

DEVICE = sys.argv[2] if __name__ == '__main__' and len(sys.argv) > 2 else 'cpu'
STITCHES = ('S3', 'L6', 'L2-S1-L2', 'S1-L4', 'S3', 'L6')


class Model(nn.Module):
    """A stitched backbone and layers of which some run always, some sometimes and one never."""

    def __init__(self, reentrant: bool = False, frozen_stages: int = -1) -> None:
        super().__init__()
        torch.manual_seed(0)
        anchors = [tiny_anchor(3, 32), tiny_anchor(6, 48)]
        self.backbone = StitchedViT(
            anchors, img_size=32, out_indices=(2, 5), lora_rank=2, frozen_stages=frozen_stages
        )
        self.backbone.mark_fitted()
        self.head = nn.Conv2d(48, 4, 1)
        self.sometimes = nn.Linear(4, 4)
        self.never = nn.Linear(4, 4)
        self.twice = nn.Linear(4, 4)
        self.register_buffer('note', torch.full((2,), float(distributed.get_rank())))
        self.reentrant = reentrant
        self.runs_more = False
        self.to(DEVICE)

    def forward(self, images: Tensor) -> dict[str, Any]:
        """Losses of images (B, 3, 32, 32)."""
        images = images.to(DEVICE)
        hidden = sum(self.head(each).mean((2, 3)) for each in self.backbone(images))
        if self.runs_more:
            hidden = hidden + self.sometimes(hidden)
        if self.reentrant:  # each backward of a checkpoint brings a gradient of the same weights
            for _ in range(2):
                hidden = checkpoint(self.twice, hidden, use_reentrant=True)
        return dict(loss=hidden.square().mean(), others=[hidden.abs().mean()])


@dataclass(frozen=True)
class Scenario:
    """What steps do, and in which stitches; those of the second process may be others."""

    stitches: tuple[tuple[str, ...], tuple[str, ...]] = (STITCHES, STITCHES)
    accumulates: int = 1
    autocast: bool = False
    second_runs_more: bool = False
    keeps_gradients: bool = False
    reentrant: bool = False
    frozen: int = -1


DIFFERENT = STITCHES, ('L6', 'L6', 'S1-L4', 'S3', 'S3', 'L2-S1-L2')
SCENARIOS = dict(
    same=Scenario(),
    different=Scenario(DIFFERENT),
    accumulated=Scenario(accumulates=2),
    accumulated_different=Scenario(DIFFERENT, accumulates=3),
    low_precision=Scenario(autocast=True),
    one_runs_more=Scenario(second_runs_more=True),
    kept=Scenario(keeps_gradients=True),
    frozen=Scenario(frozen=1),
)


def train(wrap: Any, scenario: Scenario) -> list[dict[str, Tensor]]:
    """Gradients by name after each synchronised backward pass."""
    rank = distributed.get_rank()
    model = Model(scenario.reentrant, scenario.frozen)
    wrapper = wrap(model).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(rank)
    found = []
    for step, stitch in enumerate(scenario.stitches[rank], 1):
        model.backbone.set_training_stitch(stitch)
        model.runs_more = scenario.second_runs_more and rank == 1 and step % 2 == 0
        ends = step % scenario.accumulates == 0
        images = torch.randn(2, 3, 32, 32, generator=generator)
        torch.manual_seed(step)
        autocast = torch.autocast(DEVICE, torch.bfloat16, enabled=scenario.autocast)
        with contextlib.nullcontext() if ends else wrapper.no_sync(), autocast:
            losses = wrapper(images)
        (losses['loss'] + losses['others'][0]).backward()
        if ends:
            gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
            found.append({name: gradient.cpu().clone() for name, gradient in gradients.items()})
            optimizer.step()
            if not scenario.keeps_gradients:
                optimizer.zero_grad(set_to_none=True)
    return found


@contextlib.contextmanager
def messages() -> Iterator[list[int]]:
    """Bytes of the messages that are reduced meanwhile, one by one."""
    sent: list[int] = []
    reduce = distributed.all_reduce

    def count(tensor: Tensor, *args: Any, **keywords: Any) -> Any:
        sent.append(tensor.numel() * tensor.element_size())
        return reduce(tensor, *args, **keywords)

    with mock.patch.object(distributed, 'all_reduce', count):
        yield sent


def traffic() -> list[tuple[str, int, int]]:
    """Of each step: stitch, bytes that were sent, bytes of what ran."""
    model = Model()
    wrapper = StitchDistributedDataParallel(model, bucket_cap_mb=0.02).train()
    found = []
    for stitch in STITCHES * 2:
        model.backbone.set_training_stitch(stitch)
        with messages() as sent:
            sum_of(wrapper(torch.randn(2, 3, 32, 32))).backward()
        run = [*parameters_of_route(model.backbone, stitch), *model.head.parameters()]
        active = sum(p.numel() * p.element_size() for p in run if p.requires_grad)
        found.append((stitch, sum(sent), active))
    return found


def sum_of(losses: dict[str, Any]) -> Tensor:
    """The loss of a step."""
    return losses['loss'] + losses['others'][0]


def sent_by_the_end() -> tuple[int, int]:
    """Messages sent when the last gradient of a backward pass arrives, and after the pass."""
    model = Model()
    wrapper = StitchDistributedDataParallel(model, bucket_cap_mb=0.02).train()
    images = torch.randn(2, 3, 32, 32)
    model.backbone.set_training_stitch('S3')
    sum_of(wrapper(images)).backward()  # shows which layers outside of the backbone never run
    model.backbone.set_training_stitch('L6')
    losses = wrapper(images)
    seen = []
    with messages() as sent:
        model.backbone.anchor(1).vit.patch_embed.proj.weight.register_post_accumulate_grad_hook(
            lambda _: seen.append(len(sent))
        )
        sum_of(losses).backward()
    return seen[0], len(sent)


def reentrant() -> list[Tensor]:
    """Gradient of weights that come twice, and that of a second pass through the same forward."""
    found = []
    for wraps in (True, False):
        model = Model(reentrant=True)
        model.note.zero_()
        run = StitchDistributedDataParallel(model, bucket_cap_mb=1e-6) if wraps else model
        run.train()
        model.backbone.set_training_stitch('S3')
        torch.manual_seed(distributed.get_rank())
        images = torch.randn(2, 3, 32, 32)
        torch.manual_seed(3)
        loss = sum_of(run(images))
        for _ in range(2):
            loss.backward(retain_graph=True)
            own = torch.cat([p.grad.flatten() for p in model.twice.parameters()])
            if not wraps:
                distributed.all_reduce(own)
                own /= 2
            found.append(own.cpu().clone())
    return found


def sharded() -> list[list[dict[str, Tensor]]]:
    """Gradients by name of each step under torch's wrapper and with weights in shards.

    torch's ``fully_shard`` keeps a share of each block, stitch layer and of the rest in each
    process. An empty list where this torch has none.
    """
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
    except ImportError:
        return []
    mesh = init_device_mesh(DEVICE, (distributed.get_world_size(),))
    found = []
    for shards in (False, True):
        model = Model()
        for unused in (model.sometimes, model.never, model.twice):
            unused.requires_grad_(False)
        if shards:
            blocks = (b for anchor in model.backbone.anchors.values() for b in anchor.vit.blocks)
            for part in (*blocks, *model.backbone.stitch_layers.values(), model):
                fully_shard(part, mesh=mesh)
        run = model if shards else DistributedDataParallel(model, find_unused_parameters=True)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        generator = torch.Generator().manual_seed(distributed.get_rank())
        found.append([])
        for stitch in STITCHES:
            model.backbone.set_training_stitch(stitch)
            images = torch.randn(2, 3, 32, 32, generator=generator)
            torch.manual_seed(0)
            sum_of(run.train()(images)).backward()
            named = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
            whole = {n: g.full_tensor() if shards else g.clone() for n, g in named.items()}
            found[-1].append({name: gradient.cpu() for name, gradient in whole.items()})
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return found


class Lines(logging.Handler):
    """Keeps the lines that are logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(record.getMessage())


def buffers() -> list[Tensor]:
    """A buffer after wrapping, after it was changed, and after forwards with and without sync."""
    model = Model()
    wrapper = StitchDistributedDataParallel(model, broadcast_buffers=True).train()
    found = [model.note.cpu().clone()]
    for _ in range(2):
        model.note.fill_(distributed.get_rank() + 5)
        with wrapper.no_sync():
            wrapper(torch.randn(2, 3, 32, 32))
        found.append(model.note.cpu().clone())
    return found


def refusal(**settings: Any) -> str:
    """Message with which a wrapper is refused, if it is."""
    try:
        model = Model()
        if settings.pop('other', False) and distributed.get_rank():
            model.head = nn.Conv2d(48, 5, 1)
        StitchDistributedDataParallel(model, **settings)
    except (ValueError, TypeError) as error:
        return f'{type(error).__name__}: {error}'
    return ''


def found_by_two_processes(file: Path, device: str = 'cpu') -> list[dict[str, Any]]:
    """What :func:`main` writes in each of two processes.

    Args:
        file: Where they write, each with its number behind.
        device: Of the models of both.
    """
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    shared = dict(WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    processes = [
        subprocess.Popen(
            [sys.executable, '-m', 'tests.distributed_gradients', str(file), device],
            cwd=ROOT,
            env=child_environment(RANK=str(rank), **shared),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        errors = process.communicate(timeout=300)[1]
        assert process.returncode == 0, errors
    return [torch.load(f'{file}.{rank}') for rank in range(2)]


def main(file: str) -> None:
    """Run all scenarios and write what they left."""
    torch.set_num_threads(1)
    distributed.init_process_group('gloo')
    handler = Lines()
    MMLogger.get_current_instance().addHandler(handler)
    torchs = partial(DistributedDataParallel, find_unused_parameters=True, broadcast_buffers=False)
    ours = partial(StitchDistributedDataParallel, bucket_cap_mb=0.02)
    found: dict[str, Any] = {}
    for name, scenario in SCENARIOS.items():
        handler.lines.clear()
        found[name] = train(torchs, scenario), train(ours, scenario), list(handler.lines)
    found['traffic'], found['overlap'] = traffic(), sent_by_the_end()
    found['reentrant'], found['buffers'] = reentrant(), buffers()
    found['sharded'] = sharded()
    found['refused'] = [
        refusal(static_graph=True), refusal(gradient_view=1), refusal(bucket_cap_mb=0),
        refusal(other=True),
    ]  # fmt: skip
    torch.save(found, f'{file}.{os.environ["RANK"]}')


if __name__ == '__main__':
    main(sys.argv[1])
