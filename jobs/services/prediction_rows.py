"""The rows of a dataset version as a batch prediction reads them: all of them, with their numbers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

from jobs import archives, storage
from jobs.models import DatasetVersion
from jobs.models.datasets import DatasetFormat
from jobs.services import profiling
from jobs.tables import Bad
from trainer.contract import DATA_DIR, ROWS_FILE

IMAGES = f"{DATA_DIR}/images"


def lay_out_rows(version: DatasetVersion, folder: Path, *, columns: Collection[str]) -> int:
    """Write data/rows.jsonl below `folder`, with these columns only; returns how many lines.

    Rows that could not be read when they were uploaded are among them, with the reason: whoever sent ten rows
    gets ten lines back. See `trainer.predicting` for the format.
    """
    (folder / DATA_DIR).mkdir(parents=True, exist_ok=True, mode=0o700)
    count = 0
    with (
        storage.naming_full_disk(),
        tempfile.TemporaryDirectory(prefix=".upload-", dir=folder) as aside,
        (folder / ROWS_FILE).open("w", encoding="utf-8", newline="") as out,
    ):
        upload = Path(aside) / "upload"
        storage.fetch_to(version.tenant, version.storage_key, upload)
        with upload.open("rb") as file:
            pictures = version.format == DatasetFormat.IMAGES
            lines = _pictures(version, file, folder) if pictures else _rows(version, file, columns)
            for line in lines:
                out.write(json.dumps(line, ensure_ascii=False) + "\n")
                count += 1
    return count


def _rows(version: DatasetVersion, file: IO[bytes], columns: Collection[str]) -> Iterator[dict[str, Any]]:
    for row in profiling.every_row(file, version.format, version.profile["source"]):
        if isinstance(row, Bad):
            yield {"row": row.number, "bad": row.reason}
        else:
            yield {"row": row.number, "cells": {name: row.cells.get(name) for name in columns}}


def _pictures(version: DatasetVersion, file: IO[bytes], folder: Path) -> Iterator[dict[str, Any]]:
    known = {one["row"]: one["reason"] for one in version.profile.get("problems", [])}
    left_out = frozenset(version.profile.get("left_out", ()))
    (folder / IMAGES).mkdir()
    with archives.open_archive(file) as archive:
        archives.unpack(archive, folder / IMAGES, left_out)
        for entry in archives.images(archive)[0]:
            # the folder is the class where pictures are learned from; here it is only where they lie
            line: dict[str, Any] = {"row": entry.number, "file": f"{IMAGES}/{entry.folder}/{entry.name}"}
            if entry.wrong or entry.number in left_out:
                why = entry.wrong or known.get(entry.number, "it could not be read when it was uploaded")
                line["bad"] = f"{entry.folder}/{entry.name}: {why}" if entry.wrong else why
            yield line
