"""Usage of the active tenant over REST."""

from __future__ import annotations

from django.conf import settings
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing import clock, money
from billing.api.serializers import UsageOut
from billing.months import Month
from billing.services import budgets, reports
from tenants.api import actor_of
from tenants.errors import Invalid
from tenants.permissions import require


class Usage(APIView):
    @extend_schema(
        summary="What your tenant spent in a month, by day and by job or endpoint",
        parameters=[OpenApiParameter("month", str, description="YYYY-MM, UTC; without it, this month")],
        responses=UsageOut,
    )
    def get(self, request: Request) -> Response:
        actor = actor_of(request)
        require(actor, "usage.view")
        current = Month.of(clock.now())
        month = _month(request.query_params.get("month")) or current
        standing = (
            budgets.standing(actor.the_tenant) if month == current and actor.may("budgets.view") else None
        )
        found = {
            "month": str(month),
            "currency": settings.CURRENCY,
            "total": reports.month_to_date(actor.the_tenant, month),
            "budget": standing
            and {"amount": standing.budget.amount, "mode": standing.budget.mode, "percent": standing.percent},
            "by_day": [
                {"day": day, "cost": money.total(list(spent.values()))}
                for day, spent in reports.spend_by_day(actor.the_tenant, month).items()
            ],
            "by_subject": reports.spend_by_subject(actor.the_tenant, month),
        }
        return Response(UsageOut(found).data)


def _month(text: str | None) -> Month | None:
    if not text:
        return None
    try:
        return Month.parse(text)
    except ValueError as error:
        raise Invalid.at("/month", "invalid", str(error)) from error
