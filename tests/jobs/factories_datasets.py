"""Uploads and datasets for tests, through the real services."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from PIL import Image

from jobs.models import DatasetVersion
from jobs.services import datasets
from tenants.actor import Actor

CSV = b"text,stars,label\n" + b"".join(
    f"good thing {n},{n % 5},yes\nbad thing {n},{n % 7},no\n".encode() for n in range(20)
)


def upload(content: bytes | str, name: str = "table.csv") -> SimpleUploadedFile:
    raw = content.encode() if isinstance(content, str) else content
    return SimpleUploadedFile(name, raw)


def make_dataset(
    actor: Actor, name: str = "Reviews", content: bytes | str = CSV, file_name: str = "table.csv"
) -> DatasetVersion:
    return datasets.create_dataset(actor, name=name, file=upload(content, file_name))


def png(colour: tuple[int, int, int] = (200, 30, 30), side: int = 12, format: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(out, format)
    return out.getvalue()


def zip_of(files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return out.getvalue()


def images_zip(per_class: int = 3, classes: tuple[str, ...] = ("cat", "dog"), top: str = "") -> bytes:
    return zip_of(
        {
            f"{top}{name}/{n}.png": png((40 * place, 10 * n, 90))
            for place, name in enumerate(classes)
            for n in range(per_class)
        }
    )


def stored_files() -> list[str]:
    """Everything in storage, so that a test can see what stayed."""
    root = Path(settings.STORAGES["default"]["OPTIONS"]["location"])
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
