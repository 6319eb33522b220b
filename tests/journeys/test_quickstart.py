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

LONGEST_S = 420  # two processes train; other tests may use the same cores

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("stack")]


def commands() -> str:
    """Every bash block of the page (the `sh` block only shows what to export)."""
    page = (ROOT / "docs/quickstart.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 8
    return "\n".join(blocks)


def run(stack, folder: Path) -> list[str]:
    """Run the page from its first command to its last; what it printed. A failure says which command and why."""
    script = "set -euo pipefail\ntrap 'echo \"line $LINENO failed: $BASH_COMMAND\" >&2' ERR\n" + commands()
    script = script.replace(".venv/bin/python", sys.executable)
    environment = {**os.environ, "TAUON_URL": stack.url, "TAUON_TOKEN": stack.token, "PYTHONPATH": str(ROOT)}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
        "TMPDIR": str(folder / "tmp"),
    }
    try:
        result = subprocess.run(
            ["bash", "-c", script], cwd=folder / "here", env=environment, capture_output=True, text=True,
            timeout=LONGEST_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        said = [(one or b"").decode() for one in (late.stdout, late.stderr)]
        raise AssertionError(f"not done after {LONGEST_S} s; it said {said}\n{stack.log()[-5000:]}") from None
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}\n{stack.log()[-5000:]}"
    return result.stdout.splitlines()


def test_every_command_of_the_quickstart_works_and_works_again(stack, tmp_path):
    for name in ("here", "tmp"):
        (tmp_path / name).mkdir()
    for _turn in range(2):
        said = run(stack, tmp_path)
        assert said[1] == "1797", said  # rows of the dataset, after "wrote .../digits.zip"
        assert Decimal(said[2]) > 0, said  # the high end of the price
        assert "succeeded" in said, said
        assert said.count("1797") == 2, f"every row of the dataset is answered: {said}"
        *_, label, refused, total, status = said
        assert label in set("0123456789"), said  # of the sample
        assert refused == "401", said
        assert Decimal(total) > 0, said
        assert status == "stopped", said
        left = [str(path) for path in tmp_path.rglob("*") if path.is_file()]
        assert left == [], "the page leaves files behind"
