"""The gang of processes that trains together: how they find each other, and how they leave."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainer.contract import BadSpec

JOIN_TIMEOUT = timedelta(minutes=5)  # without one, a lost peer would hang the rest for ever


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """This process's place among its peers."""

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def together(self) -> bool:
        return self.world > 1


def rank_from_environment() -> int:
    return int(os.environ.get("RANK", "0"))


def join_gang(*, gpus: int) -> Gang:
    """Meet the other ranks torchrun started; alone when it did not start us."""
    # cuBLAS reads this when it starts; without it the same seed would not give the same loss on a GPU
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    rank, world = rank_from_environment(), int(os.environ.get("WORLD_SIZE", "1"))
    device = _device(gpus, local_rank=int(os.environ.get("LOCAL_RANK", "0")))
    if world > 1:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(
            backend,
            timeout=JOIN_TIMEOUT,
            device_id=device if device.type == "cuda" else None,
            **_meeting_place(world),
        )
    return Gang(rank=rank, world=world, device=device)


def _meeting_place(world: int) -> dict[str, Any]:
    """In a warm run rank 0 is given a socket that listens already; torchrun's ranks go by the environment."""
    meet = os.environ.pop("TAUON_MEET_FD", None)
    if meet is None:
        return {}
    rank, handle = rank_from_environment(), int(meet)
    store = dist.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        world,
        is_master=rank == 0,
        timeout=JOIN_TIMEOUT,
        wait_for_workers=False,
        master_listen_fd=handle if rank == 0 else None,
    )
    return {"store": store, "rank": rank, "world_size": world}


def leave_gang(gang: Gang) -> None:
    """Part after training, so that nobody waits while rank 0 compresses."""
    if gang.together and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def wrap(network: nn.Module, gang: Gang) -> nn.Module:
    """Let gradients be averaged over the ranks."""
    if not gang.together:
        return network
    ids = [gang.device.index] if gang.device.type == "cuda" else None
    with warnings.catch_warnings():
        # torch 2.13 has a new name for this argument that 2.11 does not know
        warnings.simplefilter("ignore", FutureWarning)
        # no buffers to broadcast: ours are constants; no copy of the gradients beside what is sent
        return nn.parallel.DistributedDataParallel(
            network, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True
        )


def sum_over_ranks(values: Tensor, gang: Gang) -> Tensor:
    if gang.together:
        dist.all_reduce(values, op=dist.ReduceOp.SUM)
    return values


def from_leader(content: bytes | None, gang: Gang) -> bytes:
    """What rank 0 has, on every rank. As plain bytes: torch's own way to send objects is pickle."""
    size = torch.tensor([len(content or b"")], dtype=torch.int64, device=gang.device)
    dist.broadcast(size, src=0)
    if content is None:
        sent = torch.empty(int(size.item()), dtype=torch.uint8, device=gang.device)
    else:
        sent = torch.frombuffer(bytearray(content), dtype=torch.uint8).to(gang.device)
    dist.broadcast(sent, src=0)
    return content if content is not None else sent.cpu().numpy().tobytes()


def _device(gpus: int, *, local_rank: int) -> torch.device:
    if gpus < 1:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise BadSpec("/resources/gpus", f"asks for {gpus}, but this machine shows no GPU to torch")
    if local_rank >= torch.cuda.device_count():
        raise BadSpec(
            "/resources/gpus",
            f"process {local_rank + 1} finds only {torch.cuda.device_count()} GPUs on this machine",
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device
