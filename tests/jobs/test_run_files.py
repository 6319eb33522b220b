"""Copies between run folders, when they are cut short."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jobs.services.run_files import copy_whole
from tenants.errors import DiskFull


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    folder = tmp_path / "old" / "checkpoints"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"part-{number}").write_bytes(b"x" * 100)
    return folder


def test_a_copy_that_was_cut_short_is_not_there_and_the_next_one_is_whole(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "new"

    def die(source: str, copy: str, **_: object) -> None:
        Path(copy).write_bytes(b"x")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil.copytree, "__defaults__", (False, None, die, False, False))
        copy_whole(parts, target)
    assert not target.exists()
    copy_whole(parts, target)
    assert [one.stat().st_size for one in sorted(target.iterdir())] == [100, 100, 100]


def test_a_full_disk_is_named_as_such(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil.copytree, "__defaults__", (False, None, full, False, False))
    with pytest.raises(DiskFull):
        copy_whole(parts, tmp_path / "new")
    assert not [one for one in tmp_path.iterdir() if "new" in one.name]
