"""Distillation: a smaller network learns what the trained one answers, on training rows only.

The trained network's answers say more than the labels: how sure it was, and what it confused. They are
computed once for all training rows and then cost nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.data import batches, epoch_order
from trainer.distributed import Gang
from trainer.failures import Diverged
from trainer.prepare import Prepared, Run

TEMPERATURE = 3.0  # softens the answers so that the small ones count too
SOFT_SHARE = 0.8  # of the loss; the rest is the true labels
STEPS_AT_LEAST, STEPS_AT_MOST = 300, 3000  # few rows need more epochs, many rows fewer
GENTLE_RATE = 2e-3  # when the spec's own rate belongs to plain SGD


def soft_labels(teacher: nn.Module, prepared: Prepared, device: torch.device) -> Tensor:
    """The trained network's logits, one line for each row of prepared.split.train and for no other row."""
    teacher = teacher.to(device).eval()
    with torch.inference_mode():
        parts = [
            teacher(prepared.tensors(rows, device)[0]).float() for rows in batches(prepared.split.train, 256)
        ]
    return torch.cat(parts).clone()


def loss_of(logits_BC: Tensor, soft_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Distance to the teacher's softened answers, and a little of the distance to the truth."""
    softened = functional.log_softmax(logits_BC / TEMPERATURE, dim=1)
    wanted = functional.log_softmax(soft_BC / TEMPERATURE, dim=1)
    # T^2 keeps the gradients of both parts of one size whatever the temperature
    distance = functional.kl_div(softened, wanted, log_target=True, reduction="batchmean") * TEMPERATURE**2
    return SOFT_SHARE * distance + (1 - SOFT_SHARE) * functional.cross_entropy(logits_BC, labels_B)


def teach(
    run: Run,
    prepared: Prepared,
    student: nn.Module,
    soft: Tensor,
    gang: Gang,
    *,
    epochs: int,
    pace: float = 1.0,
) -> int:
    """Train `student` in place on the training rows; `pace` scales the run's own learning rate.

    Returns the number of epochs, which is more than `epochs` when there are few rows.
    """
    hyper = run.spec.hyperparameters
    rows = prepared.split.train
    per_epoch = -(-len(rows) // hyper.batch_size)
    total = min(max(epochs * per_epoch, STEPS_AT_LEAST), STEPS_AT_MOST)
    rate = pace * (GENTLE_RATE if hyper.optimizer == "sgd" else hyper.learning_rate)
    student = student.to(gang.device).train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=rate, weight_decay=hyper.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=rate, total_steps=total + 1, pct_start=0.15, div_factor=10, final_div_factor=100
    )
    torch.manual_seed(hyper.seed + 17)
    done = 0
    taught = -(-total // per_epoch)
    for epoch in range(taught):
        order = epoch_order(len(rows), seed=hyper.seed, epoch=hyper.epochs + epoch)
        for places in list(batches(order, hyper.batch_size))[: total - done]:
            run.control.stop_here()
            x, y = prepared.tensors(rows[places], gang.device)
            wanted = soft[torch.from_numpy(places).to(soft.device)]
            own = getattr(student, "distance", None)  # classes are told from probabilities, numbers are not
            loss = own(student(x).float(), wanted, y) if own else loss_of(student(x).float(), wanted, y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
        if not torch.isfinite(loss):
            raise Diverged("The fine-tuning's loss is no longer a number.")
    student.eval()
    return taught
