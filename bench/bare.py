"""What a practitioner would write by hand: one file, DDP, no events, no checkpoints. Run under torchrun.

torchrun -m bench.bare FOLDER EPOCHS BATCH, with data.npz and transform.json in the folder; rank 0 prints seconds,
its CPU seconds and steps as JSON, without the first epoch. Rows are picked by index, which is faster than a
DataLoader that collates them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from trainer.contract import Recipe
from trainer.recipes import networks


def load(folder: Path) -> tuple[nn.Module, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The network before its first step, the rows to train on, and those held out."""
    with np.load(folder / "data.npz") as stored:
        x, y, x_held, y_held = (torch.from_numpy(stored[name]) for name in ("x", "y", "x_held", "y_held"))
    transform = json.loads((folder / "transform.json").read_text())
    return networks.build(Recipe.IMAGE, transform, 10, seed=7), (x, y), (x_held, y_held)


class Clocks:
    """Wall and CPU time since `start`, told as one line of JSON."""

    def start(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def tell(self, steps: int) -> None:
        said = {"seconds": time.perf_counter() - self.wall, "cpu": time.process_time() - self.cpu}
        print(json.dumps({**said, "steps": steps}), flush=True)


def main(folder: Path, epochs: int, batch: int) -> None:
    torch.set_num_threads(1)
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    network, (x, y), (x_held, y_held) = load(folder)
    model = network
    if world > 1:
        dist.init_process_group("gloo")
        model = nn.parallel.DistributedDataParallel(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    clocks, steps = Clocks(), 0
    for epoch in range(epochs):
        if epoch == 1:
            clocks.start()
            steps = 0
        order = torch.from_numpy(np.random.default_rng([7, epoch]).permutation(len(x)))
        for start in range(0, len(x), batch):
            mine = order[start : start + batch][rank::world]
            loss = functional.cross_entropy(model(x[mine]), y[mine])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            steps += 1
        network.eval()
        with torch.inference_mode():
            (network(x_held[rank::world]).argmax(dim=1) == y_held[rank::world]).float().mean().item()
        network.train()
    if rank == 0:
        clocks.tell(steps)
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
