"""Keys of endpoints: tokens that open one endpoint, with limits of their own."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from jobs.models.endpoints import Endpoint
from tenants.models import ApiToken, PublicIdField, TenantOwned


class EndpointKey(TenantOwned):
    """What a token that was made for one endpoint may do beyond what tokens know: rates and addresses.

    Name, secret, expiry and revocation are the token's; the grant on the endpoint lets it call.
    """

    SEEN_THROUGH: ClassVar[str | None] = "endpoint"

    public_id = PublicIdField("key")
    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="keys")
    token = models.OneToOneField(ApiToken, on_delete=models.CASCADE, related_name="endpoint_key")
    per_minute = models.PositiveIntegerField(
        _("requests a minute"), null=True, blank=True
    )  # None: the endpoint's
    per_day = models.PositiveIntegerField(_("requests a day"), null=True, blank=True)  # None: no such limit
    networks = ArrayField(models.CharField(max_length=49), default=list, blank=True)  # empty: from anywhere

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=(Q(per_minute=None) | Q(per_minute__gt=0)) & (Q(per_day=None) | Q(per_day__gt=0)),
                name="endpoint_key_limits_are_positive",
            )
        ]

    def __str__(self) -> str:
        return self.token.name

    @property
    def addresses(self) -> list[str]:
        """The networks as people write them: one address without its length."""
        return [one.removesuffix("/32").removesuffix("/128") for one in self.networks]
