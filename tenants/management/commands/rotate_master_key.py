"""`manage.py rotate_master_key`: wrap every tenant's data key with a new master key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from tenants.actor import SYSTEM
from tenants.crypto import Sealed
from tenants.services.secrets import rotate_master_key


class Command(BaseCommand):
    help = (
        "Wrap every tenant's data key with a new master key, all or none. Data itself is not rewritten. "
        "Keys come from files or from TAUON_OLD_MASTER_KEY and TAUON_NEW_MASTER_KEY, never from the "
        "command line, where other users could read them. Without an old key the present one is taken."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--old-file", type=Path, help="file with the master key used until now")
        parser.add_argument("--new-file", type=Path, help="file with the new master key")

    def handle(self, *args: Any, **options: Any) -> None:
        old = _key(options["old_file"], "TAUON_OLD_MASTER_KEY") or settings.MASTER_KEY
        new = _key(options["new_file"], "TAUON_NEW_MASTER_KEY")
        if not new:
            raise CommandError("No new key: give --new-file FILE or set TAUON_NEW_MASTER_KEY.")
        if len(new) < 32:
            raise CommandError(
                "The new key is shorter than 32 characters. Make one with: "
                "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        if new == old:
            raise CommandError("The new key is the old key; nothing was changed.")
        try:
            count = rotate_master_key(SYSTEM, old=old, new=new)
        except Sealed as error:
            raise CommandError(f"Nothing was changed: {error}") from None
        self.stdout.write(
            f"{count} tenant keys are wrapped with the new master key. Set TAUON_MASTER_KEY (or "
            "TAUON_MASTER_KEY_FILE) to it and restart Tauon now; until then nothing encrypted opens."
        )


def _key(file: Path | None, name: str) -> str:
    if file is None:
        return os.environ.get(name, "").strip()
    try:
        return file.read_text().strip()
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}.") from None
