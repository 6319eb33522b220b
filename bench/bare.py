"""What a practitioner would write by hand: one file, DDP, no events, no checkpoints. Run under torchrun.

torchrun -m bench.bare data.npz transform.json EPOCHS BATCH; rank 0 prints seconds and steps as JSON, without the
first epoch.
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
from torch.nn import functional

from trainer.contract import Recipe
from trainer.recipes import networks


def main(data: str, transform: str, epochs: int, batch: int) -> None:
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    with np.load(data) as stored:
        x, y = torch.from_numpy(stored["x"]), torch.from_numpy(stored["y"])
        x_held, y_held = torch.from_numpy(stored["x_held"]), torch.from_numpy(stored["y_held"])
    network = networks.build(Recipe.IMAGE, json.loads(Path(transform).read_text()), 10, seed=7)
    model = network
    if world > 1:
        dist.init_process_group("gloo")
        model = torch.nn.parallel.DistributedDataParallel(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    steps = 0
    for epoch in range(epochs):
        if epoch == 1:
            began, steps = time.perf_counter(), 0
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
            mine_held = x_held[rank::world]
            (network(mine_held).argmax(dim=1) == y_held[rank::world]).float().mean().item()
        network.train()
    if rank == 0:
        print(json.dumps({"seconds": time.perf_counter() - began, "steps": steps}))
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
