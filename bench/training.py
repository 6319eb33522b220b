"""How fast the engine trains and starts, what its telemetry costs, and whether kills are survived.

python -m bench.training [throughput] [peers] [first_step] [accepted] [telemetry] [kills] [--trials N] [--rounds N]

Each part takes at most nine minutes on an idle machine of two cores. Everything that is compared takes turns in
one run; ratios are medians. CPU time a step stands beside wall time: neighbours disturb it less.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from bench.report import machine, write_result
from bench.training_accepted import accepted
from bench.training_peers import NAMES, PINS, python_of_peers
from bench.training_runs import (
    BATCH,
    digits_run,
    environment,
    first_step_s,
    last_weights,
    losses,
    points_run,
    torchrun,
    warm_parent,
    warm_run,
)
from trainer.contract import (
    CHECKPOINTS_DIR,
    EVENTS_FILE,
    RunSpec,
)
from trainer.control import Control
from trainer.events import Events
from trainer.prepare import Run, prepare

EPOCHS = 25
KILL_EPOCHS = 12
HANG_S = 120.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    if wrong := set(chosen.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(wrong))}; there are {', '.join(PARTS)}")
    always = []
    if not torch.cuda.is_available():
        always.append("gpu_throughput_vs_bare, gpu_mfu: not measured, no GPU at hand.")
    with tempfile.TemporaryDirectory() as temporary:
        for name in chosen.parts or list(PARTS):
            folder = Path(temporary) / name
            folder.mkdir()
            metrics: dict[str, float] = {}
            notes = list(always)
            PARTS[name](folder, chosen, metrics, notes)
            write_result("training", metrics, notes, machine())


def throughput(folder: Path, chosen: argparse.Namespace, metrics: dict[str, float], notes: list[str]) -> None:
    """Steps a second of a whole run with events, control and checkpoints, against the bare loop."""
    for ranks in (1, 2):
        runs = {
            "bare": lambda spec, ranks=ranks: bare(spec, ranks),
            "ours": lambda spec, ranks=ranks: ours(spec, ranks),
        }
        paces = in_turns(folder / str(ranks), runs, ranks, chosen.rounds)
        pace = [one["pace"] / other["pace"] for one, other in zip(paces["ours"], paces["bare"], strict=True)]
        cpu = [one["cpu"] / other["cpu"] for one, other in zip(paces["ours"], paces["bare"], strict=True)]
        metrics[f"throughput_vs_bare_{ranks}p"] = round(statistics.median(pace), 3)
        metrics[f"cpu_per_step_vs_bare_{ranks}p"] = round(statistics.median(cpu), 3)
        about = f"throughput_vs_bare_{ranks}p: scikit-learn digits, batch {BATCH}, one thread a rank; rounds "
        notes.append(
            about + ", ".join(f"{one:.3f}" for one in pace)
            + "; CPU time of rank 0 a step, ours against bare: " + ", ".join(f"{one:.3f}" for one in cpu) + "."
        )  # fmt: skip


def peers(folder: Path, chosen: argparse.Namespace, metrics: dict[str, float], notes: list[str]) -> None:
    """The same against Lightning Fabric, Accelerate and the HF Trainer, two ranks."""
    python = python_of_peers()
    runs = {"ours": lambda spec: ours(spec, 2)}
    for name in NAMES:
        runs[name] = lambda spec, name=name: peer(name, python, spec, 2)
    paces = in_turns(folder, runs, 2, chosen.rounds)
    median = {name: statistics.median(one["pace"] for one in turns) for name, turns in paces.items()}
    best = max(NAMES, key=lambda name: median[name])
    ratios = [a["pace"] / b["pace"] for a, b in zip(paces["ours"], paces[best], strict=True)]
    metrics["throughput_vs_best_peer_2p"] = round(statistics.median(ratios), 3)
    cpu = {name: statistics.median(one["cpu"] for one in turns) for name, turns in paces.items()}
    shown = ", ".join(f"{name} {median[name]:.1f} ({1000 * cpu[name]:.2f} ms)" for name in paces)
    notes.append(
        f"throughput_vs_best_peer_2p: best peer {best}; {', '.join(PINS)}; steps/s (CPU a step): {shown}."
    )


def in_turns(
    folder: Path, runs: Mapping[str, Callable[[Path], dict[str, float]]], ranks: int, rounds: int
) -> dict[str, list[dict[str, float]]]:
    """Every run once a round, in an order that changes; {name: pace and CPU seconds a step, by round}."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    for turn in range(rounds):
        spec = digits_run(folder / str(turn), processes=ranks, epochs=EPOCHS)
        dump(spec)
        names = list(runs)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            found[name].append(runs[name](spec))
        shown = ", ".join(f"{name} {found[name][-1]['pace']:.1f} steps/s" for name in names)
        print(f"{ranks} rank(s): {shown}", flush=True)
    return found


def first_step(folder: Path, chosen: argparse.Namespace, metrics: dict[str, float], notes: list[str]) -> None:
    """From the call to the first step's loss in events.jsonl, two ranks."""
    cold, warm = [], []
    with warm_parent(folder) as parent:
        for turn in range(chosen.rounds):
            one = points_run(folder / f"cold-{turn}", epochs=2)
            cold.append(first_step_s(one, torchrun("trainer", 2, ["train", str(one)])))
            two = points_run(folder / f"warm-{turn}", epochs=2)
            warm.append(first_step_s(two, warm_run(parent, two, 2)))
            print(f"first step: cold {cold[-1]:.2f} s, warm {warm[-1]:.3f} s")
    ratios = [b / a for a, b in zip(cold, warm, strict=True)]
    metrics["first_step_vs_cold_torchrun"] = round(statistics.median(ratios), 4)
    notes.append(
        f"first step, medians: cold {statistics.median(cold):.2f} s, warm {statistics.median(warm):.3f} s."
    )


def telemetry(folder: Path, chosen: argparse.Namespace, metrics: dict[str, float], notes: list[str]) -> None:
    """Work with 1,000 metrics a second, against the same work with as many said to nobody."""
    torch.set_num_threads(1)
    x = torch.randn(256, 256)
    speaking, silent = Events(folder / "e"), Events(None)
    ratios, said, took = [], 0, 0.0
    for turn in range(120):
        pair = {}
        for events in (speaking, silent) if turn % 2 else (silent, speaking):
            began, step = time.perf_counter(), 0
            for _ in range(400):
                busy(x, 1)
                while step < 1000 * (time.perf_counter() - began):
                    events.metric("train/loss", 1.0, step=step)
                    step += 1
            pair[events] = time.perf_counter() - began
            if events is speaking:
                said, took = said + step, took + pair[events]
        ratios.append(pair[speaking] / pair[silent])
    speaking.close()
    metrics["telemetry_overhead_percent"] = round(100 * (statistics.median(ratios) - 1), 2)
    notes.append(f"telemetry: {said / took:.0f} metrics a second while speaking; median of 120 pairs.")


def kills(folder: Path, chosen: argparse.Namespace, metrics: dict[str, float], notes: list[str]) -> None:
    """kill -9 of a rank or of the agent at a random step; then the next attempt must end as if unharmed."""
    dice = random.Random(11)
    recovered = mismatches = hangs = 0
    with warm_parent(folder) as parent:
        whole = points_run(folder / "whole", epochs=KILL_EPOCHS)
        subprocess.run(warm_run(parent, whole, 2), cwd=whole.parent, env=environment(), check=True)
        expected, weights = losses(whole), last_weights(whole)
        for trial in range(chosen.trials):
            spec = points_run(folder / f"t{trial}", epochs=KILL_EPOCHS)
            at, victim = dice.randrange(5, len(expected) - 5), dice.choice(["rank 0", "rank 1", "agent"])
            while not harm(spec, parent, at=at, victim=victim):  # it was done before we came
                at //= 2
                shutil.rmtree(spec.parent)
                points_run(spec.parent, epochs=KILL_EPOCHS)
            try:
                subprocess.run(
                    warm_run(parent, spec, 2), cwd=spec.parent, env=environment(), check=True, timeout=HANG_S
                )
                recovered += 1
            except subprocess.TimeoutExpired:
                hangs += 1
            except subprocess.CalledProcessError:
                pass
            else:
                found = losses(spec)
                wrong = sum(found.get(step) != loss for step, loss in expected.items())
                mismatches += wrong + len(set(found) - set(expected)) + (last_weights(spec) != weights)
            print(f"trial {trial + 1}: {victim} at step {at}; {recovered} recovered, {mismatches} mismatches")
    metrics |= {
        "kill_trials": chosen.trials,
        "kill_recoveries": recovered,
        "kill_step_mismatches": mismatches,
    }
    notes.append(f"kills: {hangs} hangs; started by the warm parent, two ranks, {len(expected)} steps.")


PARTS: dict[str, Callable[[Path, argparse.Namespace, dict[str, float], list[str]], None]] = {
    "throughput": throughput,
    "peers": peers,
    "first_step": first_step,
    "accepted": accepted,
    "telemetry": telemetry,
    "kills": kills,
}


def dump(spec: Path) -> None:
    """The rows as the engine encodes them, for loops that know nothing of the engine."""
    folder = spec.parent
    run = Run(
        folder=folder,
        spec=RunSpec.from_json(spec.read_text()),
        events=Events(None),
        control=Control(folder / "none"),
    )
    ready = prepare(run)
    cpu = torch.device("cpu")
    (x, y), (x_held, y_held) = (ready.tensors(rows, cpu) for rows in (ready.split.train, ready.split.holdout))
    np.savez(folder / "data.npz", x=x, y=y, x_held=x_held, y_held=y_held)
    (folder / "transform.json").write_text(json.dumps(ready.transform))


def bare(spec: Path, ranks: int) -> dict[str, float]:
    return timed(torchrun("bench.bare", ranks, [str(spec.parent), str(EPOCHS), str(BATCH)]), spec)


def ours(spec: Path, ranks: int) -> dict[str, float]:
    """A run from its first step, with its events, control file and checkpoints."""
    for left in (CHECKPOINTS_DIR, EVENTS_FILE):
        path = spec.parent / left
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return timed(torchrun("bench.timed", ranks, [str(spec)]), spec)


def peer(name: str, python: Path, spec: Path, ranks: int) -> dict[str, float]:
    words = torchrun("bench.training_peers", ranks, [name, str(spec.parent), str(EPOCHS), str(BATCH)])
    return timed([str(python), *words[1:]], spec)


def timed(command: list[str], spec: Path) -> dict[str, float]:
    done = subprocess.run(command, cwd=spec.parent, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    said = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"seconds"')))
    return {"pace": said["steps"] / said["seconds"], "cpu": said["cpu"] / said["steps"]}


def harm(spec: Path, parent: Path, *, at: int, victim: str) -> bool:
    """Start a run and kill one of its processes once step `at` is told; whether it was hit before its end."""
    command = warm_run(parent, spec, 2)
    log = (spec.parent / "engine.log").open("wb")
    with (
        log,
        subprocess.Popen(command, cwd=spec.parent, env=environment(), stdout=log, stderr=log) as process,
    ):
        while process.poll() is None and max(losses(spec), default=0) < at:
            time.sleep(0.002)
        family = gang(spec.parent)
        agents = [pid for pid, above in family.items() if above not in family]
        ranks = sorted(pid for pid, above in family.items() if above in family)
        wanted = agents if victim == "agent" else ranks[int(victim[-1]) :]
        with contextlib.suppress(ProcessLookupError):
            for pid in wanted[:1]:
                os.kill(pid, signal.SIGKILL)
        return process.wait(timeout=HANG_S) != 0


def gang(folder: Path) -> dict[int, int]:
    """Forked processes that work in this folder, with their parents."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            words = (entry / "cmdline").read_bytes()
            if b"serve" in words and (entry / "cwd").readlink() == folder.resolve():
                found[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
    return found


def busy(x: torch.Tensor, times: int) -> None:
    for _ in range(times):
        torch.mm(x, x)


if __name__ == "__main__":
    main()
