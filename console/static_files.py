"""Static files: hashed names, compressed where a person waits for them, collected only when something changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from importlib.metadata import distributions
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from whitenoise.storage import CompressedManifestStaticFilesStorage

OWN = ("css/", "js/", "vendor/", "img/", "django_htmx/")


class Storage(CompressedManifestStaticFilesStorage):
    """Compresses only what our own pages load: brotli over the admin and Swagger took a minute of every first start."""

    def compress_files(self, paths: Iterable[str]) -> Iterator[tuple[str, str]]:
        yield from super().compress_files([path for path in paths if path.startswith(OWN)])


def collect() -> None:
    """Collect static files if our sources or the installed packages changed since the last time."""
    stamp = Path(settings.STATIC_ROOT) / ".collected"
    state = _state()
    if stamp.exists() and stamp.read_text() == state:
        return
    # Redoc asks another host for fonts and is never shown
    call_command("collectstatic", verbosity=0, interactive=False, ignore_patterns=["*redoc*"])
    stamp.write_text(state)


def _state() -> str:
    digest = hashlib.sha256()
    for folder in settings.STATICFILES_DIRS:
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                digest.update(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    digest.update(" ".join(sorted(f"{found.name}={found.version}" for found in distributions())).encode())
    return digest.hexdigest()
