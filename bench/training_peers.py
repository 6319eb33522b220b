"""The same network and rows under Lightning Fabric, Accelerate and the HF Trainer, each as its own guide shows.

torchrun -m bench.training_peers NAME FOLDER EPOCHS BATCH, in the environment that `python_of_peers` makes; prints what
bench.bare prints.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from bench.bare import Clocks, load

HOME = Path(__file__).resolve().parents[1]
PINS = ("lightning-fabric==2.6.6", "accelerate==1.15.0", "transformers==5.23.0")
NAMES = ("fabric", "accelerate", "trainer")
RANK, WORLD = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def python_of_peers() -> Path:
    """A virtual environment beside ours that sees our torch; made once, kept under var/."""
    home = HOME / "var" / "bench-peers"
    python = home / "bin" / "python"
    done = home / ("-".join(PINS).replace("==", "-") + ".done")
    if done.exists():
        return python
    print("Installing the peers into var/bench-peers (once) ...", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    site = next((home / "lib").glob("python*/site-packages"))
    (site / "ours.pth").write_text(ours + "\n")
    subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *PINS], check=True)
    done.touch()
    return python


def fabric(folder: Path, epochs: int, batch: int) -> None:
    from lightning_fabric import Fabric  # noqa: PLC0415  only where it is installed

    engine = Fabric(accelerator="cpu", devices=WORLD, strategy="ddp" if WORLD > 1 else "auto")
    engine.launch()
    network, rows, (x_held, y_held) = load(folder)
    network, optimizer = engine.setup(network, torch.optim.AdamW(network.parameters(), lr=1e-3))
    loader = engine.setup_dataloaders(
        DataLoader(TensorDataset(*rows), batch_size=batch // WORLD, shuffle=True)
    )
    _loop(network, optimizer, loader, (x_held, y_held), epochs, engine.backward)


def accelerate(folder: Path, epochs: int, batch: int) -> None:
    from accelerate import Accelerator  # noqa: PLC0415

    engine = Accelerator(cpu=True)
    network, rows, held = load(folder)
    loader = DataLoader(TensorDataset(*rows), batch_size=batch // WORLD, shuffle=True)
    network, optimizer, loader = engine.prepare(
        network, torch.optim.AdamW(network.parameters(), lr=1e-3), loader
    )
    _loop(network, optimizer, loader, held, epochs, engine.backward)


def trainer(folder: Path, epochs: int, batch: int) -> None:
    from transformers import Trainer, TrainerCallback, TrainingArguments  # noqa: PLC0415

    network, (x, y), (x_held, y_held) = load(folder)
    clocks = Clocks()

    class Look(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if round(state.epoch) == 1:
                clocks.start()
                self.first = state.global_step
            elif round(state.epoch) == epochs and RANK == 0:
                clocks.tell(state.global_step - self.first)

    settings = TrainingArguments(
        output_dir=str(folder / "trainer"), num_train_epochs=epochs, learning_rate=1e-3, use_cpu=True,
        per_device_train_batch_size=batch // WORLD, per_device_eval_batch_size=1024, report_to="none",
        save_strategy="no", eval_strategy="epoch", logging_steps=50, disable_tqdm=True, weight_decay=0.01,
        ddp_find_unused_parameters=False, dataloader_pin_memory=False, lr_scheduler_type="constant",
        max_grad_norm=0.0,
    )  # fmt: skip
    Trainer(
        model=_WithLoss(network), args=settings, train_dataset=_Named(x, y), eval_dataset=_Named(x_held, y_held),
        callbacks=[Look()],
    ).train()  # fmt: skip


def _loop(
    network: Any, optimizer: Any, loader: Any, held: tuple[Tensor, Tensor], epochs: int, backward: Any
) -> None:
    clocks, steps = Clocks(), 0
    for epoch in range(epochs):
        if epoch == 1:
            clocks.start()
            steps = 0
        if isinstance(getattr(loader, "sampler", None), DistributedSampler):
            loader.sampler.set_epoch(epoch)
        for x, y in loader:
            loss = functional.cross_entropy(network(x), y)
            optimizer.zero_grad(set_to_none=True)
            backward(loss)
            optimizer.step()
            steps += 1
        network.eval()
        with torch.inference_mode():
            (network(held[0][RANK::WORLD]).argmax(dim=1) == held[1][RANK::WORLD]).float().mean().item()
        network.train()
    if RANK == 0:
        clocks.tell(steps)


class _WithLoss(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.network(x)
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


class _Named(Dataset[dict[str, Tensor]]):
    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return {"x": self.x[row], "labels": self.y[row]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    loops = {"fabric": fabric, "accelerate": accelerate, "trainer": trainer}
    loops[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
