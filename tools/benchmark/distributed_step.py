"""Times a training step of two processes that exchange what ran against torch's own wrapper.

A step is forward, backward with the exchange of gradients by gloo, and AdamW. Both wrappers hold
copies of one model and take turns. The goal is for the CPU time of both processes, which other work
on the machine stretches less than the wall-clock time until the slower one is through.
"""

from __future__ import annotations

import argparse
import copy
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from _routes import anchor, build_backbone
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mmsnnet.engine import StitchDistributedDataParallel

TIME_GOAL, BYTES_GOAL = 1.05, 1.05
STITCHES = ('S12', 'S6-L6', 'L12')
SIZE, PROCESSES = 64, 2


class Model(nn.Module):
    """Backbone and a layer that reads all its maps."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = build_backbone([anchor(12, 192), anchor(12, 384)], SIZE)
        self.head = nn.Conv2d(self.backbone.channels, 16, 1)

    def forward(self, images: Tensor) -> Tensor:
        """A loss of images (B, 3, H, W)."""
        return sum(self.head(item).square().mean() for item in self.backbone(images))


def step_of(wrapper: nn.Module, images: Tensor) -> Callable[[], None]:
    """A training step under a wrapper."""
    optimizer = torch.optim.AdamW(wrapper.parameters(), lr=1e-5)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        wrapper(images).backward()
        optimizer.step()

    return step


def seconds(step: Callable[[], None]) -> tuple[float, float]:
    """CPU-seconds of a step in all processes, and wall-clock seconds of the slower one."""
    distributed.barrier()
    start, cpu = time.perf_counter(), time.process_time()
    step()
    wall, cpu = (torch.tensor(clock() - began) for clock, began in (
        (time.perf_counter, start), (time.process_time, cpu)))  # fmt: skip
    distributed.all_reduce(wall, distributed.ReduceOp.MAX)
    distributed.all_reduce(cpu)
    return float(cpu), float(wall)


def bytes_of(step: Callable[[], None]) -> int:
    """Bytes of the messages that a step reduces from Python."""
    sent, reduce = [], distributed.all_reduce

    def count(tensor: Tensor, *args: object, **keywords: object) -> object:
        sent.append(tensor.numel() * tensor.element_size())
        return reduce(tensor, *args, **keywords)

    distributed.all_reduce = count
    try:
        step()
    finally:
        distributed.all_reduce = reduce
    return sum(sent)


def measure(rank: int, port: int, repeats: int, batch: int) -> None:
    """Measure in one of the processes; the first one prints."""
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', rank=rank, world_size=PROCESSES)
    models = [Model()]
    models.append(copy.deepcopy(models[0]))
    images = torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(rank))
    theirs = DistributedDataParallel(models[0], find_unused_parameters=True)
    ours = StitchDistributedDataParallel(models[1])
    steps = [step_of(wrapper.train(), images) for wrapper in (theirs, ours)]
    met = True
    for stitch in STITCHES:
        for model in models:
            model.backbone.set_training_stitch(stitch)
        for step in steps * 2:
            step()
        sent, active = bytes_of(steps[1]), bytes_of_gradients(models[1])
        times = [[seconds(step) for step in steps] for _ in range(repeats)]
        ratio, wall = (
            statistics.median(own[clock] / other[clock] for other, own in times)
            for clock in (0, 1)
        )
        good = ratio <= TIME_GOAL and sent <= BYTES_GOAL * active
        met = met and good
        if rank == 0:
            print(
                f'  {stitch:<6} {1000 * min(own[0] for _, own in times):8.1f} ms   CPU time x '
                f'{ratio:.3f}, wall x {wall:.3f}   bytes x {sent / active:.4f} of what ran, '
                f'{sent / all_bytes(models[1]):.2f} of all{"" if good else "   MISSED"}',
                flush=True,
            )
    distributed.barrier()
    distributed.destroy_process_group()
    sys.exit(0 if met else 1)


def bytes_of_gradients(model: nn.Module) -> int:
    """Bytes of the gradients that a step left."""
    found = (p.grad for p in model.parameters() if p.grad is not None)
    return sum(gradient.numel() * gradient.element_size() for gradient in found)


def all_bytes(model: nn.Module) -> int:
    """Bytes of the gradients of all that learns."""
    learning = (p for p in model.parameters() if p.requires_grad)
    return sum(parameter.numel() * parameter.element_size() for parameter in learning)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog='distributed_step', description=__doc__.splitlines()[0])
    parser.add_argument('--repeats', type=int, default=9, help='pairs of steps per stitch')
    parser.add_argument('--batch', type=int, default=2, help='images of a process in a step')
    args = parser.parse_args(argv)
    if args.repeats < 1 or args.batch < 1:
        parser.error('--repeats and --batch must be 1 or more')
    print(
        f'Training step of {PROCESSES} processes, 12 x 192 + 12 x 384, {SIZE} px, batch '
        f'{args.batch} each: StitchDistributedDataParallel / DistributedDataParallel; goals: '
        f'CPU time <= {TIME_GOAL}, bytes <= {BYTES_GOAL} of what ran'
    )
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    context = torch.multiprocessing.get_context('spawn')
    target = partial(measure, port=port, repeats=args.repeats, batch=args.batch)
    processes = [context.Process(target=target, args=(rank,)) for rank in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return int(any(process.exitcode for process in processes))


if __name__ == '__main__':
    sys.exit(main())
