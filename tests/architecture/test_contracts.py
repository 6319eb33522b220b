"""The house stands as drawn: import contracts, and words that live in one file only."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
APPS = ("console", "tenants", "billing", "jobs", "trainer")


def sources(*folders: str) -> list[Path]:
    return [
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if "migrations" not in path.parts and "__pycache__" not in path.parts
    ]


def files_naming(pattern: str, *folders: str) -> set[str]:
    expression = re.compile(pattern)
    return {str(path.relative_to(ROOT)) for path in sources(*folders) if expression.search(path.read_text())}


def test_the_import_contracts_hold():
    command = [str(Path(sys.executable).parent / "lint-imports"), "--config", str(ROOT / "pyproject.toml")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]


def test_guardian_is_named_in_one_file_only():
    named = files_naming(r"(from|import) guardian", "console", "tenants", "billing", "jobs")
    assert named == {"tenants/permissions.py"}


def test_messages_leave_through_the_outbox_only():
    named = files_naming(
        r"\.send_task\(|\.group_send\(|\.apply_async\(|\.delay\(", "console", "tenants", "billing", "jobs"
    )
    assert named == {"tenants/outbox.py"}


def test_a_status_changes_through_move_only():
    assert files_naming(r"\.status = ", "tenants", "billing", "jobs") == set()


def test_pickle_is_never_loaded():
    assert files_naming(r"(from|import) pickle|joblib\.load|weights_only=False", *APPS) == set()


@pytest.mark.parametrize(
    "module", ["tenants.roles", "jobs.scheduling", "billing.rating", "billing.money", "trainer.contract"]
)
def test_a_pure_module_loads_without_django(module):
    # stubs for the app packages: importing `jobs.scheduling` runs jobs/__init__.py, which must stay empty of Django
    code = f"import sys, {module}; assert not any(m.split('.')[0] == 'django' for m in sys.modules), 'django was loaded'"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_gateway_loads_without_django_and_torch():
    code = (
        "import sys, jobs.gateway; "
        "bad = {m.split('.')[0] for m in sys.modules} & {'django', 'rest_framework', 'celery', 'torch'}; "
        "assert not bad, bad"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_no_file_needs_a_table_of_contents():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in sources(*APPS, "tests")
        if (lines := len(path.read_text().splitlines())) > 420
    }
    assert not long, f"split by noun: {long}"


def test_no_migration_is_missing(db):
    from django.core.management import call_command

    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


def test_the_project_names_no_machine_of_ours():
    paths = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    # spelled in two halves so that this very file does not match
    machine = re.compile("/" + "work/main|/" + "work/shared|pypi" + r"\.org|npmjs" + r"\.(com|org)")
    found = []
    for name in paths:
        path = ROOT / name
        if path.suffix not in {".py", ".md", ".toml", ".html", ".css", ".js", ".json"} or not path.exists():
            continue
        if "vendor" not in path.parts and machine.search(path.read_text(errors="ignore")):
            found.append(name)
    assert not found
