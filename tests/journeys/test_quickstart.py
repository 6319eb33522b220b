"""The journey by REST only: the commands of docs/quickstart.md, run from the page against a running installation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("stack")]


def commands() -> str:
    """Every bash block of the page (the `sh` block only shows what to export)."""
    page = (ROOT / "docs/quickstart.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 8
    return "\n".join(blocks)


def test_every_command_of_the_quickstart_works(stack, tmp_path):
    script = "set -euo pipefail\n" + commands().replace(".venv/bin/python", sys.executable)
    environment = {**os.environ, "TAUON_URL": stack.url, "TAUON_TOKEN": stack.token, "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    result = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    said = result.stdout.splitlines()
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}\n{stack.log()[-5000:]}"
    assert said[1] == "1797", said  # rows of the dataset, after "wrote digits.zip"
    assert Decimal(said[2]) > 0  # the high end of the price
    assert "succeeded" in said
    assert said[-3] in set("0123456789"), said  # the label of the sample
    assert said[-2] == "401"
    assert Decimal(said[-1]) > 0
