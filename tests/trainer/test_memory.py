"""Freed memory stays with the process: the next step finds it there."""

from __future__ import annotations

import subprocess
import sys

from tests.trainer.helpers import environment

STEPS = """
import resource, sys
import torch
from trainer.memory import keep_freed
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert keep_freed()
network = torch.nn.Sequential(
    torch.nn.Conv2d(1, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
    torch.nn.Conv2d(32, 64, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(1024, 128),
)
x = torch.randn(64, 1, 8, 8)
def step():
    network.zero_grad(set_to_none=True)
    network(x).square().mean().backward()
for _ in range(9):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", STEPS, word], env=environment(), capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_a_step_that_repeats_meets_hardly_a_page_fault_once_freed_memory_is_kept() -> None:
    assert faults("keep") * 10 < faults("give back")
