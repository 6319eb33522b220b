"""Datasets: upload, freeze, archive, and lay out for the engine."""

from __future__ import annotations

import csv
import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.core.files.base import File
from django.core.files.uploadedfile import UploadedFile
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from jobs import archives, storage
from jobs.models import Dataset, DatasetVersion
from jobs.models.datasets import DatasetFormat
from jobs.services import profiling
from tenants import audit
from tenants.actor import Actor
from tenants.errors import Conflict, Hidden, Invalid
from tenants.models.base import new_public_id
from tenants.permissions import require
from trainer.contract import DATA_DIR

MAX_NAME = 120
MAX_DESCRIPTION = 2000
IMAGES_DIR = "images"


def create_dataset(
    actor: Actor, *, name: str, file: UploadedFile | File, description: str = ""
) -> DatasetVersion:
    """Keep an upload as a new dataset with its first version. All of it, or nothing."""
    require(actor, "datasets.upload")
    dataset = Dataset(
        tenant=actor.tenant,
        name=_checked_name(actor, name),
        description=_checked_description(description),
        created_by=actor.user,
    )
    inspected = profiling.inspect(file, _file_name(file))

    def add_rows(version: DatasetVersion) -> None:
        try:
            with transaction.atomic():
                dataset.save(force_insert=True)
        except IntegrityError:
            raise _name_taken(dataset.name) from None
        audit.record(actor, "dataset.created", dataset)
        version.dataset, version.number = dataset, 1

    return _keep(actor, dataset, file, inspected, add_rows)


def add_version(actor: Actor, dataset: Dataset, *, file: UploadedFile | File) -> DatasetVersion:
    """Keep an upload as the next version of a dataset. The same bytes again are refused."""
    require(actor, "datasets.upload", dataset)
    _refuse_archived(dataset)
    inspected = profiling.inspect(file, _file_name(file))
    _refuse_known(dataset, inspected.sha256)

    def add_rows(version: DatasetVersion) -> None:
        # the row's lock puts two uploads at once in order, so that numbers have no double and no gap
        locked = Dataset.objects.select_for_update(of=("self",)).get(pk=dataset.pk)
        _refuse_archived(locked)
        _refuse_known(locked, inspected.sha256)
        version.dataset, version.number = locked, (locked.latest.number if locked.latest else 0) + 1

    return _keep(actor, dataset, file, inspected, add_rows)


def archive_dataset(actor: Actor, dataset: Dataset) -> None:
    """Take a dataset out of lists and new jobs. What was made from it stays; its files go after a grace."""
    require(actor, "datasets.archive", dataset)
    with transaction.atomic():
        now = timezone.now()
        if Dataset.objects.filter(pk=dataset.pk, archived_at=None).update(archived_at=now):
            dataset.archived_at = now
            audit.record(actor, "dataset.archived", dataset)


def restore_dataset(actor: Actor, dataset: Dataset) -> None:
    """Bring an archived dataset back while its files are there. Twice is as good as once."""
    require(actor, "datasets.archive", dataset)
    with transaction.atomic():
        # the row's lock: the sweep that deletes its files takes it too
        locked = Dataset.objects.select_for_update(of=("self",)).get(pk=dataset.pk)
        if locked.archived_at is None:
            return
        if locked.versions.exclude(files_deleted_at=None).exists():
            text = _("The files of “%(name)s” are deleted, so it cannot come back. Upload them again.")
            raise Conflict(text % {"name": locked.name})
        try:
            with transaction.atomic():
                Dataset.objects.filter(pk=locked.pk).update(archived_at=None)
        except IntegrityError:
            text = _("“%(name)s” is the name of another dataset now. Archive that one first.")
            raise Conflict(text % {"name": locked.name}) from None
        dataset.archived_at = None
        audit.record(actor, "dataset.restored", dataset)


def materialize(version: DatasetVersion, folder: Path) -> dict[str, str]:
    """Write the good rows in clear below `folder`; returns {"path": "data/table.csv", "format": "csv"}."""
    data = folder / DATA_DIR
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (
        storage.naming_full_disk(),
        tempfile.TemporaryDirectory(prefix=".upload-", dir=folder) as aside,
    ):
        upload = Path(aside) / "upload"
        storage.fetch_to(version.tenant, version.storage_key, upload)
        if version.format == DatasetFormat.IMAGES:
            _lay_out_images(version, upload, data / IMAGES_DIR)
            return {"path": f"{DATA_DIR}/{IMAGES_DIR}", "format": "images"}
        name = f"table.{version.format}"
        _lay_out_table(version, upload, data / name)
        return {"path": f"{DATA_DIR}/{name}", "format": str(version.format)}


def thumbnail(version: DatasetVersion, number: int) -> bytes:
    """One preview image as PNG made by us; Hidden if there is none."""
    key = thumbnails_key(version)
    with tempfile.SpooledTemporaryFile(max_size=4 * 1024**2) as file:
        try:
            for chunk in storage.open_chunks(version.tenant, key):
                file.write(chunk)
        except FileNotFoundError:
            raise Hidden from None
        with zipfile.ZipFile(file) as archive:
            try:
                return archive.read(f"{number}.png")
            except KeyError:
                raise Hidden from None


def _keep(
    actor: Actor,
    dataset: Dataset,
    file: UploadedFile | File,
    inspected: profiling.Inspected,
    add_rows: Callable[[DatasetVersion], None],
) -> DatasetVersion:
    """Files first, rows after: a row never names a file that is not there; a failure takes the files back."""
    tenant = dataset.tenant
    storage.ensure_room(tenant, inspected.size_bytes)  # before the work; counted again under the lock
    version = DatasetVersion(
        public_id=new_public_id("dsv"),
        tenant=tenant,
        format=inspected.format,
        file_name=_file_name(file),
        sha256=inspected.sha256,
        size_bytes=inspected.size_bytes,
        row_count=inspected.row_count,
        profile=inspected.profile,
        created_by=actor.user,
    )
    folder = f"tenants/{tenant.public_id}/datasets/{version.public_id}"
    version.storage_key = f"{folder}/data"
    try:
        storage.put(tenant, version.storage_key, storage.file_chunks(file))
        if inspected.thumbnails:
            small = profiling.thumbnails_zip(inspected.thumbnails)
            storage.put(tenant, thumbnails_key(version), [small])
        with transaction.atomic():
            storage.ensure_room(tenant, inspected.size_bytes, lock=True)
            add_rows(version)
            version.save(force_insert=True)
            audit.record(
                actor, "dataset.uploaded", version.dataset,
                version=version.number, rows=version.row_count, sha256=version.sha256,
            )  # fmt: skip
    except BaseException:
        storage.delete(version.storage_key)
        storage.delete(thumbnails_key(version))
        raise
    return version


def thumbnails_key(version: DatasetVersion) -> str:
    """Where the preview images of a version are kept."""
    return version.storage_key.removesuffix("data") + "thumbnails"


def _lay_out_images(version: DatasetVersion, upload: Path, target: Path) -> None:
    target.mkdir()
    with upload.open("rb") as file, archives.open_archive(file) as archive:
        archives.unpack(archive, target, frozenset(version.profile.get("left_out", ())))


def _lay_out_table(version: DatasetVersion, upload: Path, target: Path) -> None:
    with upload.open("rb") as file, target.open("w", encoding="utf-8", newline="") as out:
        rows = profiling.good_rows(file, version.format, version.profile["source"])
        if version.format == DatasetFormat.JSONL:
            for row in rows:
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
            return
        names = [column["name"] for column in version.profile["columns"]]
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(names)
        for row in rows:
            writer.writerow([row[name] for name in names])


def _checked_name(actor: Actor, name: Any) -> str:
    text = str(name or "").strip()
    if not text:
        raise Invalid.at("/name", "required", _("Give the dataset a name."))
    if len(text) > MAX_NAME or "\0" in text:
        raise Invalid.at(
            "/name", "too_long", _("A name has at most %(most)s characters.") % {"most": MAX_NAME}
        )
    if Dataset.objects.filter(tenant=actor.tenant, name__iexact=text, archived_at=None).exists():
        raise _name_taken(text)
    return text


def _checked_description(description: Any) -> str:
    text = str(description or "").strip().replace("\0", "")
    if len(text) > MAX_DESCRIPTION:
        text = _("A description has at most %(most)s characters.") % {"most": MAX_DESCRIPTION}
        raise Invalid.at("/description", "too_long", text)
    return text


def _name_taken(name: str) -> Invalid:
    text = _("“%(name)s” is taken by another dataset. Upload a new version of it, or choose another name.")
    return Invalid.at("/name", "taken", text % {"name": name})


def _refuse_known(dataset: Dataset, sha256: str) -> None:
    known = dataset.versions.filter(sha256=sha256).order_by("number").first()
    if known is not None:
        text = _("These are the very bytes of version %(number)s; there is nothing new to keep.")
        raise Conflict(text % {"number": known.number})


def _refuse_archived(dataset: Dataset) -> None:
    if dataset.archived_at is not None:
        raise Conflict(_("This dataset is archived. Make a new one for new data."))


def _file_name(file: Any) -> str:
    name = str(getattr(file, "name", "") or "upload").replace("\\", "/").rpartition("/")[2]
    return "".join(sign for sign in name if sign.isprintable())[-200:] or "upload"
