"""Compare every sum of the books with another source of it, now: what the timetable does every night."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing.services import reconcile
from tenants.models import Tenant


class Command(BaseCommand):
    help = "Checks the books of every tenant, parks accounts whose sums disagree and says which."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--tenant", help="short name of one tenant")

    def handle(self, *args: Any, **options: Any) -> None:
        tenants = None
        if name := options["tenant"]:
            tenants = list(Tenant.objects.filter(slug=name))
            if not tenants:
                raise CommandError(
                    f"There is no tenant {name}. Use its short name, as in its endpoints' addresses."
                )
        found = reconcile.check_all(tenants)
        for tenant, wrong in found.items():
            for one in wrong:
                self.stderr.write(f"{tenant}: {one}")
        if found:
            raise CommandError(f"The books of {len(found)} tenants disagree; their accounts are parked.")
        self.stdout.write("All books agree.")
