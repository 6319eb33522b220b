"""Makes the sums of usage by hour and day again from the events, or says where they differ."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing import clock
from billing.months import Month
from billing.services import rollups
from tenants.models import Tenant


class Command(BaseCommand):
    help = "Compare the sums of usage with the events of a month; with --write, make the sums again where they differ."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--month", default="", help="YYYY-MM, UTC; without it, this month")
        parser.add_argument("--tenant", default="", help="the slug of one tenant; without it, all of them")
        parser.add_argument("--write", action="store_true", help="make the sums again where they differ")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            month = Month.parse(options["month"]) if options["month"] else Month.of(clock.now())
        except ValueError as error:
            raise CommandError(str(error)) from error
        tenants = Tenant.objects.order_by("slug")
        if options["tenant"]:
            tenants = tenants.filter(slug=options["tenant"])
            if not tenants.exists():
                raise CommandError(f"There is no tenant with the slug {options['tenant']!r}.")
        different = 0
        for tenant in tenants:
            found = rollups.differences(tenant, month.start, month.end)
            different += len(found)
            for line in found:
                self.stdout.write(f"{tenant.slug}: {line}")
            if found and options["write"]:
                hours = rollups.rebuild(tenant, month.start, month.end)
                self.stdout.write(f"{tenant.slug}: {hours} hours made again")
        self.stdout.write(
            f"{month}: {different} hours differ" + (" no more" if different and options["write"] else "")
        )
