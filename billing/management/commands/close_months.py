"""Close months that are over, now: what the timetable does every ten minutes. Safe to run again at any time."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing.months import Month
from billing.services import closing
from tenants.models import Tenant


class Command(BaseCommand):
    help = "Finalizes every month that is over, grace included; --tenant and --month narrow it down."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--tenant", help="short name of one tenant")
        parser.add_argument("--month", help="only this month, such as 2026-11")

    def handle(self, *args: Any, **options: Any) -> None:
        tenant = None
        if name := options["tenant"]:
            tenant = Tenant.objects.filter(slug=name).first()
            if tenant is None:
                raise CommandError(
                    f"There is no tenant {name}. Use its short name, as in its endpoints' addresses."
                )
        try:
            month = Month.parse(options["month"]) if options["month"] else None
        except ValueError as error:
            raise CommandError(str(error)) from error
        done = closing.close_due(tenant=tenant, month=month)
        self.stdout.write(f"{done.invoiced} invoiced, {done.waiting} waiting, {done.failed} failed")
        if done.failed:
            raise CommandError("Some months could not be closed; Reports, Accounts says why.")
