"""The engine stands alone: no Django anywhere in it, and no torch where a request is answered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import trainer
from tests.trainer.helpers import environment

ROOT = Path(trainer.__file__).parent
MODULES = sorted(
    ".".join(("trainer", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if path.name != "__main__.py"
)
WEB = (
    "django",
    "rest_framework",
    "channels",
    "celery",
    "redis",
    "guardian",
    "console",
    "tenants",
    "jobs",
    "billing",
)


def imported_after(*modules: str) -> set[str]:
    """Top-level names a fresh interpreter holds after importing `modules`."""
    lines = [f"import {name}" for name in modules]
    code = "; ".join([*lines, "import sys", "print(*sorted({m.split('.')[0] for m in sys.modules}))"])
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_every_module_imports_without_django_or_any_part_of_the_web() -> None:
    assert "trainer.loop" in MODULES
    assert "trainer.compress.gate" in MODULES
    assert imported_after(*MODULES).isdisjoint(WEB)


def test_the_contract_needs_the_standard_library_alone() -> None:
    added = imported_after("trainer.contract") - imported_after("json")
    assert {name for name in added if name not in sys.stdlib_module_names} <= {"trainer"}


def test_serving_and_measuring_never_import_torch() -> None:
    light = imported_after("trainer.serve", "trainer.evaluate", "trainer.__main__")
    assert "onnxruntime" in light
    assert light.isdisjoint({"torch", "onnx", "onnxscript", "sklearn", "scipy"})


def test_the_runtime_collects_nothing_about_its_use(tmp_path: Path) -> None:
    """ONNX Runtime keeps what it would send in the home of its user; it must not even make the file."""
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", "import trainer.bundle, onnxruntime; print(onnxruntime.get_device())"],
        env=environment() | {"HOME": str(home)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(home.rglob("*")) == []
