"""What leaves the house as files: the explorer's rows, and usage in the shape of FOCUS 1.2."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db.models import Q, Sum
from django.db.models.functions import TruncDate

from billing import money
from billing.models import Invoice, LineKind, Meter, UsageDay, UsageEvent, UsageHour
from billing.months import Month
from billing.services import completeness
from billing.services.completeness import Completeness
from billing.services.explorer import Question, Report
from billing.services.extras import Extras, midnight, price_facts, price_values
from billing.services.scopes import Scope
from billing.streams import stream_of
from tenants.models import Tenant

# https://focus.finops.org: columns with their names and order there; ours are the last, with its x_
FOCUS = [
    "BilledCost", "EffectiveCost", "ListCost", "ContractedCost", "BillingCurrency", "BillingAccountId",
    "BillingAccountName", "SubAccountId", "SubAccountName", "BillingPeriodStart", "BillingPeriodEnd",
    "ChargePeriodStart", "ChargePeriodEnd", "ChargeCategory", "ChargeClass", "ChargeDescription",
    "ConsumedQuantity", "ConsumedUnit", "PricingQuantity", "PricingUnit", "ListUnitPrice", "ContractedUnitPrice",
    "SkuId", "SkuMeter", "ServiceCategory", "ServiceName", "ProviderName", "PublisherName", "InvoiceIssuerName",
    "ResourceId", "ResourceName", "Tags", "x_User", "x_CompleteThrough", "x_Complete",
]  # fmt: skip
_CATEGORIES = {
    "training": "AI and Machine Learning",
    "inference": "AI and Machine Learning",
    "storage": "Storage",
}


def cost_columns(found: Report) -> list[str]:
    """The head of the explorer's CSV: a key and its words per group, then money."""
    heads: list[str] = []
    for group in found.question.groups:
        heads += [group, f"{group}_label"]
    return [
        *heads, "quantity", "unit", "list", "cost", "credits", "tax", "currency", "from", "to",
        "complete_through", "complete",
    ]  # fmt: skip


def cost_rows(found: Report) -> Iterator[list[Any]]:
    """The explorer's rows, exact."""
    question, whole = found.question, found.completeness
    for row in found.rows:
        quantity, unit = row.quantity or (None, "")
        yield [
            *(text for part in row.parts for text in (part.key, part.label)),
            quantity, unit, row.amounts.list, row.amounts.net, row.amounts.credits, row.amounts.tax, found.currency,
            question.start, question.end, whole.through, "yes" if whole.complete else "no",
        ]  # fmt: skip


def focus_rows(scope: Scope, question: Question) -> Iterator[list[Any]]:
    """Usage by the hour, price, subject, user and labels, then tax, credit and rounding of whole invoices within.

    Read from the database as it is sent. Usage costs are exact, before the one rounding of an invoice's line, so
    that usage and adjustments of a month together are its invoice. Usage that came after its period was invoiced
    is a Correction. A step price is known by the month: an hour has its share of the month by quantity.
    """
    start, end = midnight(question.start), midnight(question.end)
    whole = completeness.of(scope, start, end)
    rows = scope.rows(UsageHour.objects.between(start, end)).filter(price__currency=scope.currency)
    wanted = {
        "price__meter": question.meter, "price__sku": question.sku, "user_label": question.user,
        "subject": question.subject,
    }  # fmt: skip
    wanted = {name: value for name, value in wanted.items() if value}
    writer = _Focus(scope, question, rows.filter(**wanted), whole)
    yield from writer.usage()
    if not wanted:
        yield from writer.documents(start, end)


class _Focus:
    """Writes the rows of one file; what is the same for many is read once."""

    def __init__(self, scope: Scope, question: Question, rows: Any, whole: Completeness) -> None:
        self.scope, self.rows, self.whole = scope, rows, whole
        self.extras = Extras(scope, question.start, question.end)
        ids = set(rows.order_by().values_list("price_id", flat=True).distinct())
        self.facts, self.prices = price_facts(ids), price_values(ids)
        self.tenants = {one.pk: one for one in Tenant.objects.all()}
        self.meters = {meter.key: meter for meter in Meter.objects.all()}
        self.wholes = self._wholes()
        self.invoices: dict[int, list[tuple[datetime, int]]] = {}
        for one in scope.rows(Invoice.objects.holding()).order_by("period_end"):
            self.invoices.setdefault(one.tenant_id, []).append((one.period_end, one.through_id))

    def usage(self) -> Iterator[list[Any]]:
        columns = self.rows.annotate(day=TruncDate("hour", tzinfo=UTC)).order_by("hour", "id").values(
            "tenant_id", "hour", "day", "price_id", "subject", "subject_title", "user_label", "labels", "quantity",
            "through_id",
        )  # fmt: skip
        for row in columns.iterator(chunk_size=2000):
            late = self._late(row)
            if row["quantity"] > late or not late:
                yield self._usage({**row, "quantity": row["quantity"] - late}, late=False)
            if late:
                yield self._usage({**row, "quantity": late}, late=True)

    def documents(self, start: datetime, end: datetime) -> Iterator[list[Any]]:
        """What an invoice has beside usage: tax, credit that paid it, its agreed minimum and its rounding."""
        invoices = self.scope.rows(Invoice.objects.holding()).filter(
            currency=self.scope.currency, period_start__gte=start, period_end__lte=end
        )
        for invoice in (
            invoices.order_by("finalized_at").prefetch_related("taxes", "lines").iterator(chunk_size=200)
        ):
            lines = list(invoice.lines.all())
            agreed = money.total([line.amount for line in lines if line.kind == LineKind.COMMITMENT])
            exact = money.total([line.exact for line in lines if line.kind != LineKind.COMMITMENT])
            if agreed:
                yield self._document(invoice, "Purchase", "Up to the agreed minimum", agreed)
            if rest := money.EXACT.subtract(invoice.net - agreed, exact):
                yield self._document(invoice, "Adjustment", "Rounding", rest)
            for tax in invoice.taxes.all():
                yield self._document(invoice, "Tax", str(tax), tax.amount)
            if invoice.credit_total:
                yield self._document(invoice, "Credit", "Paid from credit", -invoice.credit_total)

    def _usage(self, row: dict[str, Any], *, late: bool) -> list[Any]:
        fact = self.facts[row["price_id"]]
        meter, tenant = self.meters[fact["meter"]], self.tenants[row["tenant_id"]]
        cost = self._cost(row)
        listed = self.extras.of({**row, "sum": row["quantity"]}, fact, cost)["list"]
        natural = money.EXACT.divide(row["quantity"], fact["unit_size"])
        month = Month.of(row["day"])
        seller = settings.SELLER_NAME
        return [
            cost, cost, listed, cost, fact["currency"], tenant.public_id, tenant.name, tenant.public_id,
            tenant.name, month.start, month.end, row["hour"], row["hour"] + timedelta(hours=1), "Usage",
            "Correction" if late else None, meter.title, row["quantity"], meter.unit, natural, fact["unit"],
            money.EXACT.divide(listed, natural) if natural else fact["unit_price"],
            money.EXACT.divide(cost, natural) if natural else fact["unit_price"],
            f"{meter.key}/{fact['sku']}", meter.title, _CATEGORIES.get(stream_of(meter.key), "Other"),
            meter.title, seller, seller, seller, row["subject"], row["subject_title"],
            json.dumps(row["labels"], sort_keys=True, ensure_ascii=False), row["user_label"], self.whole.through,
            "yes" if self.whole.complete else "no",
        ]  # fmt: skip

    def _document(self, invoice: Invoice, category: str, text: str, amount: Decimal) -> list[Any]:
        row: dict[str, Any] = dict.fromkeys(FOCUS)
        seller = invoice.seller_name
        row |= {
            "BilledCost": amount, "EffectiveCost": amount, "ListCost": amount, "ContractedCost": amount,
            "BillingCurrency": invoice.currency, "BillingAccountId": invoice.buyer_id,
            "BillingAccountName": invoice.buyer_name, "SubAccountId": invoice.buyer_id,
            "SubAccountName": invoice.buyer_name, "BillingPeriodStart": invoice.period_start,
            "BillingPeriodEnd": invoice.period_end, "ChargePeriodStart": invoice.period_start,
            "ChargePeriodEnd": invoice.period_end, "ChargeCategory": category,
            "ChargeDescription": f"{text}, {invoice.number}", "ServiceCategory": "Other", "ServiceName": "Billing",
            "ProviderName": seller, "PublisherName": seller, "InvoiceIssuerName": seller, "Tags": "{}",
            "x_CompleteThrough": self.whole.through, "x_Complete": "yes" if self.whole.complete else "no",
        }  # fmt: skip
        return list(row.values())

    def _cost(self, row: dict[str, Any]) -> Decimal:
        price = self.prices[row["price_id"]]
        if price.linear:
            return price.amount(row["quantity"])
        whole = self.wholes[row["tenant_id"], Month.of(row["day"]), price.id]
        if not whole:
            return money.ZERO
        return money.price_of(row["quantity"], unit_price=price.amount(whole), unit_size=whole)

    def _wholes(self) -> dict[tuple[int, Month, int], Decimal]:
        """Each tenant's quantity of a month, of prices that are known by the month only."""
        found: dict[tuple[int, Month, int], Decimal] = {}
        stepped = [pk for pk, price in self.prices.items() if not price.linear]
        if stepped:
            days = self.scope.rows(UsageDay.objects.filter(price__in=stepped)).order_by()
            for one in days.values("tenant_id", "day", "price_id").annotate(sum=Sum("quantity")):
                key = (one["tenant_id"], Month.of(one["day"]), one["price_id"])
                found[key] = money.EXACT.add(found.get(key, money.ZERO), one["sum"])
        return found

    def _late(self, row: dict[str, Any]) -> Decimal:
        """How much of an hour was stored after the invoice over it was frozen; read from the events themselves."""
        over = [last for ended, last in self.invoices.get(row["tenant_id"], []) if row["hour"] < ended]
        if not over or row["through_id"] <= over[0]:
            return money.ZERO
        events = UsageEvent.objects.filter(
            tenant=row["tenant_id"], price=row["price_id"], subject=row["subject"], user_label=row["user_label"],
            event_time__gte=row["hour"], event_time__lt=row["hour"] + timedelta(hours=1), id__gt=over[0],
        )  # fmt: skip
        same = events.filter(dims__labels=row["labels"]) if row["labels"] else events.filter(
            Q(dims__labels={}) | Q(dims__labels__isnull=True)
        )  # fmt: skip
        found: Decimal | None = same.aggregate(sum=Sum("quantity"))["sum"]
        return found or money.ZERO
