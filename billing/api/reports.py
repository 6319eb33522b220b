"""Reports over REST: everybody's for staff under reports/, the same for the active tenant under usage/."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing import clock
from billing.api.serializers import DecimalText
from billing.services import explorer, finance, overview, scopes
from billing.services.explorer import GROUPS, Question, Report
from billing.services.scopes import Scope
from tenants.api import actor_of

_GROUPS = [(name, name) for name in GROUPS]


class ScopeIn(serializers.Serializer):
    tenant = serializers.CharField(
        required=False, default="", allow_blank=True, help_text="For staff: this tenant alone."
    )
    currency = serializers.CharField(
        required=False, default="", allow_blank=True, help_text="Amounts of different currencies never mix."
    )


class CostsIn(ScopeIn):
    vars()["from"] = serializers.DateField(source="start", required=False, help_text="First day, UTC.")
    to = serializers.DateField(
        source="end", required=False, help_text="The day after the last; both: this month."
    )
    by = serializers.ChoiceField(_GROUPS, default="day")
    then = serializers.ChoiceField(_GROUPS, required=False, default="", allow_blank=True)
    vars()["label"] = serializers.CharField(
        required=False, default="", allow_blank=True, help_text="The name of the label to group by."
    )
    where = serializers.CharField(
        required=False, default="", allow_blank=True, help_text="Only usage with this label: team=vision."
    )
    meter = serializers.CharField(required=False, default="", allow_blank=True)
    sku = serializers.CharField(required=False, default="", allow_blank=True)
    user = serializers.CharField(required=False, default="", allow_blank=True)
    subject = serializers.CharField(required=False, default="", allow_blank=True)


class WindowIn(ScopeIn):
    vars()["from"] = serializers.DateField(source="start", required=False, help_text="First day, UTC.")
    to = serializers.DateField(
        source="end", required=False, help_text="The day after the last; both: this year."
    )


class AmountsOut(serializers.Serializer):
    list = DecimalText(help_text="At the prices of the standard plan.")
    net = DecimalText(help_text="At the tenant's own prices.")
    credits = DecimalText(help_text="Paid from credit, as far as it is invoiced.")
    tax = DecimalText()


class GroupKeyOut(serializers.Serializer):
    key = serializers.CharField()
    vars()["label"] = serializers.CharField()


class CostRowOut(AmountsOut):
    groups = GroupKeyOut(many=True)
    quantity = DecimalText(allow_null=True, help_text="In the natural unit, where there is one unit.")
    unit = serializers.CharField(allow_null=True)


class CompletenessOut(serializers.Serializer):
    complete = serializers.BooleanField(help_text="False: the amounts are the least they can be.")
    through = serializers.DateTimeField()
    gaps = serializers.ListField(child=serializers.CharField())
    other_currencies = serializers.ListField(child=serializers.CharField(), source="elsewhere")


class CostsOut(serializers.Serializer):
    vars()["from"] = serializers.DateField()
    to = serializers.DateField()
    by = serializers.ListField(child=serializers.CharField())
    currency = serializers.CharField()
    total = AmountsOut()
    completeness = CompletenessOut()
    rows = CostRowOut(many=True)


class OverviewOut(serializers.Serializer):
    month = serializers.CharField()
    currency = serializers.CharField()
    spent = DecimalText(help_text="This month so far, with what runs.")
    same_days_before = DecimalText(source="before")
    forecast = DecimalText(allow_null=True)
    last_24_hours = DecimalText(source="per_day")
    per_hour_now = DecimalText()
    owed = DecimalText(allow_null=True)
    overdue = DecimalText(allow_null=True)
    credit = DecimalText(allow_null=True)
    unbilled_unit_seconds = serializers.IntegerField(source="completeness.unbilled_s")
    parked_tenants = serializers.ListField(child=serializers.CharField())
    completeness = CompletenessOut()


class BucketOut(serializers.Serializer):
    bucket = serializers.CharField()
    count = serializers.IntegerField()
    amount = DecimalText()


class TaxOut(serializers.Serializer):
    title = serializers.CharField()
    percent = DecimalText()
    taxable = DecimalText()
    amount = DecimalText()


class CreditOut(serializers.Serializer):
    opening = DecimalText()
    bought = DecimalText()
    given = DecimalText()
    returned = DecimalText()
    used = DecimalText()
    expired = DecimalText()
    closing = DecimalText()


class StreamOut(serializers.Serializer):
    stream = serializers.CharField(source="key")
    revenue = DecimalText(source="net")
    cost = DecimalText(allow_null=True, help_text="For staff; null where a cost rate is missing.")


class FinanceOut(serializers.Serializer):
    vars()["from"] = serializers.DateField(source="start")
    to = serializers.DateField(source="end")
    currency = serializers.CharField()
    invoiced = DecimalText(source="net")
    owed = DecimalText()
    overdue = DecimalText()
    aging = BucketOut(many=True)
    taxes = TaxOut(many=True)
    credit = CreditOut()
    streams = StreamOut(many=True)


class _ReportView(APIView):
    platform = False

    def scope(self, request: Request, given: dict[str, Any], permission: str = "usage.view") -> Scope:
        actor = actor_of(request)
        currency = given.pop("currency")
        tenant = given.pop("tenant")
        if self.platform:
            return scopes.everybody(actor, tenant=tenant, currency=currency)
        return scopes.own(actor, permission=permission, currency=currency)

    def door(self, request: Request, permission: str = "usage.view") -> None:
        """Refuse before the query is read: who may not look learns nothing of what it should be."""
        self.scope(request, {"currency": "", "tenant": ""}, permission)


class Costs(_ReportView):
    @extend_schema(
        summary="Costs over [from, to), grouped one or two ways", parameters=[CostsIn], responses=CostsOut
    )
    def get(self, request: Request) -> Response:
        self.door(request)
        today = clock.now().date()
        said = {"from": today.replace(day=1), "to": today + timedelta(days=1)}
        given = CostsIn(data={**said, **request.query_params.dict()})
        given.is_valid(raise_exception=True)
        asked = dict(given.validated_data)
        scope = self.scope(request, asked)
        return Response(CostsOut(_costs(explorer.explore(scope, Question(**asked)))).data)


class Overview(_ReportView):
    @extend_schema(
        summary="Where this month stands, where it goes, and what is owed",
        parameters=[ScopeIn],
        responses=OverviewOut,
    )
    def get(self, request: Request) -> Response:
        self.door(request)
        given = ScopeIn(data=request.query_params)
        given.is_valid(raise_exception=True)
        scope = self.scope(request, dict(given.validated_data))
        sees_invoices = self.platform or actor_of(request).may("invoices.view")
        found = overview.overview(scope, with_invoices=sees_invoices)
        parked = [account.tenant.public_id for account in found.parked]
        names = ("month", "currency", "spent", "before", "forecast", "per_day", "per_hour_now", "owed", "overdue",
                 "credit", "completeness")  # fmt: skip
        shown = {name: getattr(found, name) for name in names}
        return Response(OverviewOut({**shown, "parked_tenants": parked}).data)


class Finance(_ReportView):
    @extend_schema(
        summary="Invoiced, owed by age, tax by rate, credit and revenue by stream over [from, to)",
        parameters=[WindowIn],
        responses=FinanceOut,
    )
    def get(self, request: Request) -> Response:
        self.door(request, "invoices.view")
        today = clock.now().date()
        said = {"from": today.replace(month=1, day=1), "to": today + timedelta(days=1)}
        given = WindowIn(data={**said, **request.query_params.dict()})
        given.is_valid(raise_exception=True)
        asked = dict(given.validated_data)
        scope = self.scope(request, asked, "invoices.view")
        found = finance.finance(scope, asked["start"], asked["end"])
        names = ("start", "end", "currency", "net", "owed", "overdue", "taxes", "credit")
        body = {name: getattr(found, name) for name in names}
        body["aging"] = [
            {"bucket": name, "count": count, "amount": amount}
            for name, (count, amount) in found.aging.items()
        ]
        # what the house pays itself is not the tenant's business
        body["streams"] = [
            {"key": one.key, "net": one.net, "cost": one.cost if self.platform else None}
            for one in found.streams
        ]
        return Response(FinanceOut(body).data)


def _costs(found: Report) -> dict[str, Any]:
    question = found.question
    return {
        "from": question.start,
        "to": question.end,
        "by": list(question.groups),
        "currency": found.currency,
        "total": found.total,
        "completeness": found.completeness,
        "rows": [
            {
                "groups": row.parts,
                "list": row.amounts.list,
                "net": row.amounts.net,
                "credits": row.amounts.credits,
                "tax": row.amounts.tax,
                "quantity": row.quantity[0] if row.quantity else None,
                "unit": row.quantity[1] if row.quantity else None,
            }
            for row in found.rows
        ],
    }
