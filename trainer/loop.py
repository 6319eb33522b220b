"""The training loop, readable top to bottom. A step depends on seed, step and rank: resuming is exact."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import threading
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from trainer import checkpoint, optim
from trainer.contract import (
    CHECKPOINTS_DIR,
    LAST_GOOD_FILE,
    RESULT_DIR,
    SAFETENSORS_FILE,
    Failure,
    TrainingSpec,
)
from trainer.data import Indices, Position, global_batches, pieces_of_a_step, shard, steps_per_epoch
from trainer.distributed import Gang, from_leader, rank_from_environment, sum_over_ranks, wrap
from trainer.events import EVERY_STEP_BELOW
from trainer.failures import (
    GRACE_FOR_RANK_0_S,
    RESERVE_FILE,
    Cancelled,
    Diverged,
    Preempted,
    exit_code,
    leave_note,
    leave_now,
)
from trainer.prepare import Prepared, Run
from trainer.recipes.outcomes import loss_of, score_of
from trainer.stepper import Stepper, usable_precision
from trainer.stopping import Stopping
from trainer.watchdog import FIRST_STEP_S, Watchdog

SAVE_COST = 100  # writing checkpoints takes at most about 1/100 of the time; a fast disk allows more of them
LOOK_UP_EVERY_S = 0.1
LOOK_UP_MOST = 50  # steps
FIRST_COMPILE_S = 900.0


def train(run: Run, prepared: Prepared, network: nn.Module, gang: Gang) -> int:
    """Train from the newest checkpoint to the last epoch; returns the number of steps."""
    return Training(run, prepared, network, gang).go()


class Training:
    """One run of the loop; what draws the batches and what makes a step of one may be overridden."""

    def __init__(self, run: Run, prepared: Prepared, network: nn.Module, gang: Gang) -> None:
        self.run, self.prepared, self.network, self.gang = run, prepared, network, gang
        hyper, how = run.spec.hyperparameters, run.spec.training
        self.how = how
        self.rows = len(prepared.split.train)
        self.per_epoch = steps_per_epoch(self.rows, hyper.batch_size)
        self.total = self.per_epoch * hyper.epochs
        self.stepper = self.make_stepper()
        if self.stepper.precision is not run.spec.resources.precision:
            run.events.log("fp16 needs a GPU; training in fp32 on the CPU.", level="warning")
        self.pending: list[tuple[int, Tensor]] = []  # losses not yet summed over the ranks and shown
        self.stopping = Stopping(how.early_stopping)
        self.saver = checkpoint.Saver()
        self.saved_step = -1
        self.due = 0.0  # when the next checkpoint is due, and from when on an end of an epoch is worth one
        self.welcome = 0.0

    def make_stepper(self) -> Stepper:
        hyper, how, gang = self.run.spec.hyperparameters, self.how, self.gang
        return Stepper(
            network=wrap(compiled(self.network, how), gang),
            optimizer=optim.make_optimizer(self.network, hyper, gang.device),
            prepared=self.prepared,
            gang=gang,
            precision=usable_precision(self.run, gang),
            seed=hyper.seed,
            pieces=pieces_of_a_step(
                self.run.spec.resources.processes, world=gang.world, accumulation=how.grad_accumulation
            ),
            clip_norm=how.clip_norm,
        )

    def batches(self, start: Position) -> Iterator[tuple[Position, Indices]]:
        hyper = self.run.spec.hyperparameters
        return global_batches(
            self.rows, batch_size=hyper.batch_size, seed=hyper.seed, epochs=hyper.epochs, start=start
        )

    def go(self) -> int:
        first_s = FIRST_COMPILE_S if self.how.compile == "on" else FIRST_STEP_S
        with Watchdog(
            limit_s=self.how.stall_after_s, first_s=first_s, on_stall=lambda *said: give_up(self.run, *said)
        ) as self.watchdog:
            try:
                step = self.epochs()
            finally:
                self.saver.wait()
            if self.how.early_stopping is not None:
                self.take_best()
        return step

    def epochs(self) -> int:
        step, start = self.resume()
        first = step
        self.run.events.all_steps = self.total <= EVERY_STEP_BELOW
        self.saved_at(first, cost_s=0.0)
        look_up_at = step + 1
        started = time.monotonic()
        for position, places in self.batches(start):
            if self.stopping.enough:
                break
            step += 1
            self.set_rate(step)
            self.pending.append((step, self.stepper.step(self.prepared.split.train[places], step)))
            self.watchdog.step(step)
            pace = (time.monotonic() - started) / (step - first)
            epoch_ends = position.cursor == self.rows
            if not epoch_ends and step < look_up_at:
                continue
            stop, ahead = self.look_up(step, pace)
            look_up_at = step + ahead
            quality = self.validate(step) if epoch_ends else None
            self.save_if_due(step, position, quality, must=bool(stop) or step == self.total)
            if stop:
                raise stop
            self.run.events.progress(
                step=step,
                total_steps=self.total,
                epoch=position.epoch + 1,
                eta_s=pace * (self.total - step),
            )
        return step

    def set_rate(self, step: int) -> None:
        rate = optim.learning_rate(
            step - 1,
            total_steps=self.total,
            peak=self.run.spec.hyperparameters.learning_rate,
            schedule=self.how.schedule,
            warmup_steps=self.how.warmup_steps,
        )
        optim.set_learning_rate(self.stepper.optimizer, rate)

    def look_up(self, step: int, pace_s: float) -> tuple[Exception | None, int]:
        """Agree with the other ranks on the losses, on whether to stop, and on when to look up again.

        Not at every step: an exchange costs, and on a GPU reading a loss stops the queue.
        """
        ahead = 0
        if self.gang.leads:
            self.run.control.poll()
            ahead = max(1, min(LOOK_UP_MOST, int(LOOK_UP_EVERY_S / max(pace_s, 1e-6))))
            if every := self.how.checkpoint_every_steps:
                ahead = min(ahead, every - step % every)
        control = self.run.control
        orders = torch.tensor(
            [float(control.cancelled), float(control.preempted), float(ahead)],
            dtype=torch.float64,
            device=self.gang.device,
        )
        shares = torch.stack([loss for _, loss in self.pending])
        said = sum_over_ranks(torch.cat([orders, shares]), self.gang).tolist()
        for (at, _), loss in zip(self.pending, said[3:], strict=True):
            if not math.isfinite(loss):
                raise self.diverged(loss, at)
            self.run.events.step_metric("train/loss", loss, step=at)
        self.pending.clear()
        stop = Cancelled() if said[0] else Preempted() if said[1] else None
        return stop, round(said[2])

    def diverged(self, loss: float, at: int) -> Diverged:
        """What to say of a loss that is no number; the newest weights that are numbers stay as a result."""
        spec, folder = self.run.spec, self.run.folder
        with contextlib.suppress(OSError):
            self.saver.wait()
        good = checkpoint.last_good(folder / CHECKPOINTS_DIR, spec)
        if good is not None and self.gang.leads:
            about = {
                "recipe": str(spec.recipe),
                "classes": json.dumps(self.prepared.classes),
                "transform": json.dumps(self.prepared.transform),
            }
            with contextlib.suppress(OSError):  # without room for them, the reason is still the loss
                checkpoint.keep_weights(good, folder / RESULT_DIR / LAST_GOOD_FILE, about)
        last = "No checkpoint was written before."
        if good is not None:
            last = f"The last good checkpoint: step {good.step}."
        return Diverged(
            f"The loss became {loss} at step {at} of {self.total}: try a smaller learning_rate than "
            f"{spec.hyperparameters.learning_rate:g}, or look for extreme values. {last}"
        )

    def validate(self, step: int) -> float | None:
        """Measure rows not learned from; returns the quality to keep checkpoints and to stop by, more is better."""
        seen = self.prepared.split.seen_meanwhile
        mine = shard(seen, rank=self.gang.rank, world=self.gang.world)
        totals = torch.zeros(2, dtype=torch.float64, device=self.gang.device)
        size = max(64, self.run.spec.hyperparameters.batch_size)
        self.network.eval()
        with torch.inference_mode():
            for start in range(0, len(mine), size):
                x, y = self.prepared.tensors(mine[start : start + size], self.gang.device)
                logits_BC = self.network(x).float()
                totals[0] += loss_of(self.network, logits_BC, x, y)
                totals[1] += score_of(self.network, logits_BC, x, y)
                self.watchdog.beat()
        self.network.train()
        loss, right = (sum_over_ranks(totals, self.gang) / len(seen)).tolist()
        self.run.events.metric("val/loss", loss, step=step)
        self.run.events.metric(f"val/{self.prepared.recipe.TASK.quality}", right, step=step)
        accuracy = self.how.early_stopping is not None and self.how.early_stopping.metric == "val/accuracy"
        quality = right if accuracy else -loss
        if self.stopping.after(quality) and step < self.total:
            self.run.events.log(
                f"Stopped early at step {step} of {self.total}: no better for {self.stopping.waited} epochs."
            )
        return quality

    def save_if_due(self, step: int, position: Position, quality: float | None, *, must: bool) -> None:
        """Rank 0 writes: weights and optimizer are the same on every rank."""
        if not self.gang.leads or step == self.saved_step:
            return
        self.saver.raise_error()
        now, every = time.monotonic(), self.how.checkpoint_every_steps
        # what decides the result must not be lost: the best so far, and the end
        must = must or self.stopping.enough or (quality is not None and self.stopping.keep)
        wanted = now >= (self.due if quality is None else self.welcome)
        wanted = wanted or (every is not None and step % every == 0)
        if not must and (not wanted or self.saver.busy):
            return
        self.save(step, position, quality)
        if must:
            self.saver.wait()
        self.watchdog.beat()

    def save(self, step: int, position: Position, quality: float | None) -> None:
        """Freeze here, write aside. The losses up to this step are in the file before the checkpoint is."""
        self.saver.wait()
        began = time.monotonic()
        scaler, optimizer = self.stepper.scaler.state_dict(), self.stepper.optimizer.state_dict()
        files = checkpoint.frozen(self.network.state_dict(), {"optimizer": optimizer, "scaler": scaler})
        progress = {
            "epoch": position.epoch,
            "cursor": position.cursor,
            "quality": quality,
            "stopping": self.stopping.state(),
        }
        self.saved_at(step, cost_s=time.monotonic() - began)
        spec, events, folder = self.run.spec, self.run.events, self.run.folder
        world = self.gang.world

        def write() -> None:
            events.flush()
            path = checkpoint.write_checkpoint(
                folder / CHECKPOINTS_DIR, step=step, files=files, spec=spec, world=world, progress=progress
            )
            self.saved_at(step, cost_s=time.monotonic() - began)
            events.checkpoint(step=step, path=str(path.relative_to(folder)))

        self.saver.start(write)

    def saved_at(self, step: int, *, cost_s: float) -> None:
        now = time.monotonic()
        self.saved_step = step
        self.welcome = now + SAVE_COST * cost_s
        self.due = max(now + self.how.checkpoint_every_s, self.welcome)

    def resume(self) -> tuple[int, Position]:
        """Take up the newest whole checkpoint, the same on every rank; step 0 when there is none."""
        root, spec = self.run.folder / CHECKPOINTS_DIR, self.run.spec
        warn = lambda text: self.run.events.log(text, level="warning")  # noqa: E731
        found = checkpoint.load_newest(root, spec, warn) if self.gang.leads else None
        step = self.from_leader(0 if found is None else found.step)
        if step == 0:
            return 0, Position()
        found = self.everywhere(found, step)
        self.network.load_state_dict(found.weights)
        self.stepper.optimizer.load_state_dict(found.optimizer["optimizer"])
        self.stepper.scaler.load_state_dict(found.optimizer["scaler"])
        self.stopping.restore(found.progress["stopping"])
        self.run.events.log(f"Going on from the checkpoint at step {step} of {self.total}.")
        return step, Position(epoch=found.progress["epoch"], cursor=found.progress["cursor"])

    def everywhere(self, found: checkpoint.Checkpoint | None, step: int) -> checkpoint.Checkpoint:
        """The leader's checkpoint on every rank; a rank of another machine may not see the leader's disk."""
        root, spec = self.run.folder / CHECKPOINTS_DIR, self.run.spec
        if found is None:
            with contextlib.suppress(checkpoint.Unusable):
                found = checkpoint.load_step(root, step, spec)
        lacking = torch.tensor([float(found is None)], device=self.gang.device)
        if not sum_over_ranks(lacking, self.gang).item():
            assert found is not None
            return found
        sent = checkpoint.read_step(root, step) if self.gang.leads else None
        names = (checkpoint.STATE_FILE, SAFETENSORS_FILE, checkpoint.OPTIMIZER_FILE)
        content = {name: from_leader(sent[name] if sent else None, self.gang) for name in names}
        return found or checkpoint.open_checkpoint(content, spec)

    def take_best(self) -> None:
        """Early stopping promises the best weights, not the last."""
        root, spec = self.run.folder / CHECKPOINTS_DIR, self.run.spec
        found = checkpoint.load_best(root, spec, lambda text: self.run.events.log(text, level="warning"))
        if self.gang.leads and found is not None:
            self.network.load_state_dict(found.weights)
            self.run.events.log(f"The best weights are those of step {found.step}.")

    def from_leader(self, number: int) -> int:
        said = torch.tensor([float(number if self.gang.leads else 0)], device=self.gang.device).double()
        return round(sum_over_ranks(said, self.gang).item())


def compiled(network: nn.Module, how: TrainingSpec) -> nn.Module:
    return network if how.compile == "off" else torch.compile(network)  # type: ignore[return-value]


def give_up(run: Run, text: str, trace: str) -> None:
    """End this process for a stall. Rank 0 speaks; the others give it time, for its words are the run's."""
    rank = rank_from_environment()
    print(text, trace, sep="\n", file=sys.stderr)
    if rank == 0:
        (run.folder / RESERVE_FILE).unlink(missing_ok=True)
        # the disk may be what hangs, so the last words get a while and not for ever
        words = threading.Thread(target=run.events.error, args=(Failure.STALLED, text, trace), daemon=True)
        words.start()
        words.join(timeout=GRACE_FOR_RANK_0_S)
    else:
        time.sleep(GRACE_FOR_RANK_0_S)
        leave_note(run.folder, rank, Failure.STALLED, text, trace)
    leave_now(exit_code(Failure.STALLED))
