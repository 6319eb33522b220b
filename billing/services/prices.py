"""What things cost, now and at any moment before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils.translation import gettext as _

from billing import clock, money, rating, tariffs
from billing.models import Meter, PriceModel, PriceVersion
from billing.services import accounts
from tenants import audit
from tenants.actor import Actor
from tenants.errors import Conflict, Invalid
from tenants.models import Tenant
from tenants.permissions import require

PLAN = "standard"
# asked with every beat and every batch of usage: terms and prices in one statement
_BETWEEN = """
select p.*, a.id is not null as has_account
from billing_priceversion p left join billing_billingaccount a on a.tenant_id = %(tenant)s
where p.meter_id = %(meter)s and p.sku = %(sku)s and p.currency = coalesce(a.currency, %(currency)s)
  and p.plan in (coalesce(a.plan, %(plan)s), %(plan)s)
  and p.valid_from <= %(end)s and (p.valid_to is null or p.valid_to > %(start)s)
order by p.plan = coalesce(a.plan, %(plan)s) desc, p.valid_from
"""


def rate(meter: str, sku: str, at: datetime | None = None, *, tenant: Tenant | None = None) -> Decimal:
    """The price per natural unit in force at a moment (None: now); of a tenant: on its plan, in its currency."""
    return in_force(meter, sku, at or clock.now(), tenant=tenant).unit_price


def in_force(meter: str, sku: str, at: datetime, *, tenant: Tenant | None = None) -> rating.Price:
    """The whole price in force at a moment, or Invalid: what has no price must not be sold."""
    found = rating.price_at(between(meter, sku, at, at, tenant=tenant), at)
    if found is None:
        text = _(
            "There is no %(currency)s price for %(meter)s (%(sku)s) at %(at)s UTC. "
            "Ask the staff of this installation to add one under Prices."
        )
        _plan, currency = _terms(tenant)
        names = {"currency": currency, "meter": meter, "sku": sku, "at": f"{at:%Y-%m-%d %H:%M}"}
        raise Invalid(text % names)
    return found


def between(
    meter: str, sku: str, start: datetime, end: datetime, *, tenant: Tenant | None = None
) -> list[rating.Price]:
    """Every price in force at some moment of [start, end), those of the tenant's own plan first, then by age.

    `rating.price_at` takes the first that covers a moment, so a plan needs prices only where it differs.
    """
    asked = {
        "tenant": tenant.pk if tenant else None, "meter": meter, "sku": sku, "start": start, "end": end,
        "plan": PLAN, "currency": settings.CURRENCY,
    }  # fmt: skip
    found = list(PriceVersion.objects.raw(_BETWEEN, asked))
    if tenant is not None and not (found and found[0].has_account):  # type: ignore[attr-defined]
        accounts.of(tenant)  # made when a price is first asked for, so that its months are closed
    return [version.value for version in found]


def estimate(
    *, items: Iterable[tuple[str, str, int, Decimal | int]], tenant: Tenant | None = None
) -> Decimal:
    """What (meter, sku, units, seconds) items would cost at today's prices, unrounded."""
    now = clock.now()
    return money.total(
        [
            in_force(meter, sku, now, tenant=tenant).amount(Decimal(units) * Decimal(seconds))
            for meter, sku, units, seconds in items
        ]
    )


def set_price(
    actor: Actor,
    *,
    meter: str,
    unit_price: Decimal,
    sku: str = "standard",
    valid_from: datetime | None = None,
    plan: str = PLAN,
    currency: str = "",
    model: str = PriceModel.UNIT,
    tiers: Sequence[Mapping[str, Any]] = (),
    included: Decimal = money.ZERO,
    minimum: Decimal | None = None,
    maximum: Decimal | None = None,
) -> PriceVersion:
    """Put a new price in force from a moment on (None: now). Never backwards: used prices do not change."""
    require(actor, "prices.manage")
    currency = currency or settings.CURRENCY
    known_tiers = _checked(currency, unit_price, model, tiers, included, minimum, maximum)
    with transaction.atomic():
        # one writer at a time; readers go on
        found = Meter.objects.select_for_update().filter(key=meter).first()
        if found is None:
            raise Invalid.at("/meter", "unknown", _("There is no meter %(meter)s.") % {"meter": meter})
        now = clock.now()
        start = valid_from or now
        if start < now:
            raise Invalid.at("/valid_from", "past", _("A price starts now or later; used prices stay."))
        current = PriceVersion.objects.filter(
            plan=plan, meter=found, sku=sku, currency=currency, valid_to=None
        ).first()
        if current is not None:
            if current.valid_from >= start:
                text = _("A price from %(at)s UTC on is already set.")
                raise Conflict(text % {"at": f"{current.valid_from:%Y-%m-%d %H:%M}"})
            current.valid_to = start
            current.save(update_fields=["valid_to"])
        version = PriceVersion.objects.create(
            plan=plan,
            meter=found,
            sku=sku,
            currency=currency,
            unit=found.natural_unit,
            unit_size=found.natural_size,
            unit_price=unit_price,
            model=model,
            tiers=known_tiers,
            included=included,
            minimum=minimum,
            maximum=maximum,
            valid_from=start,
        )
        audit.record(actor, "price.set", version, unit_price=str(unit_price), valid_from=start.isoformat())
    return version


def preview(
    natural_quantities: Iterable[int],
    *,
    natural_size: Decimal,
    unit_price: Decimal,
    currency: str,
    model: str = PriceModel.UNIT,
    tiers: Sequence[Mapping[str, Any]] = (),
    included: Decimal = money.ZERO,
    minimum: Decimal | None = None,
    maximum: Decimal | None = None,
) -> list[tuple[int, Decimal]]:
    """What months of so many natural units would cost at a price that is not in force yet, rounded as a line is."""
    known = _checked(currency, unit_price, model, tiers, included, minimum, maximum)
    found = []
    for quantity in natural_quantities:
        amount = tariffs.charge(
            money.EXACT.multiply(Decimal(quantity), natural_size),
            model=model,
            unit_price=unit_price,
            unit_size=natural_size,
            tiers=tariffs.read_tiers(known) if known else (),
            included=included,
            minimum=minimum,
            maximum=maximum,
        )
        found.append((quantity, money.round_line(amount, currency)))
    return found


def now_and_later() -> list[PriceVersion]:
    """Every price of today, and those that are set for later: by plan, meter, SKU and age."""
    rows = PriceVersion.objects.filter(Q(valid_to=None) | Q(valid_to__gt=clock.now())).select_related("meter")
    return list(rows.order_by("plan", "meter_id", "sku", "currency", "valid_from"))


def _checked(
    currency: str,
    unit_price: Decimal,
    model: str,
    tiers: Sequence[Mapping[str, Any]],
    included: Decimal,
    minimum: Decimal | None,
    maximum: Decimal | None,
) -> list[dict[str, str | None]]:
    """The tiers as they are stored, or Invalid for what is no price."""
    if not unit_price.is_finite() or unit_price < 0:
        raise Invalid.at("/unit_price", "invalid", _("A price is zero or more."))
    known_tiers = _checked_model(model, tiers)
    if not included.is_finite() or included < 0:
        raise Invalid.at("/included", "invalid", _("A quantity is zero or more."))
    for pointer, bound in (("/minimum", minimum), ("/maximum", maximum)):
        if bound is not None and (bound < 0 or bound != money.round_line(bound, currency)):
            raise Invalid.at(
                pointer, "invalid", _("An amount is zero or more, in the currency's own places.")
            )
    if minimum is not None and maximum is not None and maximum < minimum:
        raise Invalid.at("/maximum", "order", _("The greatest amount is not below the least."))
    return known_tiers


def _checked_model(model: str, tiers: Sequence[Mapping[str, Any]]) -> list[dict[str, str | None]]:
    if model not in PriceModel.values:
        text = _("Known ways to price: %(known)s.") % {"known": ", ".join(PriceModel.values)}
        raise Invalid.at("/model", "unknown", text)
    tiered = model in {PriceModel.GRADUATED, PriceModel.VOLUME}
    if not tiered:
        if tiers:
            raise Invalid.at("/tiers", "not_tiered", _("Only graduated and volume prices have tiers."))
        return []
    try:
        return tariffs.written(tariffs.read_tiers(tiers))
    except ValueError as error:
        raise Invalid.at("/tiers", "invalid", error) from error


def _terms(tenant: Tenant | None) -> tuple[str, str]:
    """Plan and currency of a tenant; without one, the installation's."""
    if tenant is None:
        return PLAN, settings.CURRENCY
    account = accounts.of(tenant)
    return account.plan, account.currency
