"""What is kept for a while and then forgotten."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from tenants.models import IdempotencyRecord, SignInLink

KEEP_ANSWERS = timedelta(hours=24)


def forget_idempotency() -> int:
    """Delete stored answers older than a day, and dead sign-in links; returns how many answers went."""
    now = timezone.now()
    SignInLink.objects.filter(expires_at__lt=now - KEEP_ANSWERS).delete()
    return IdempotencyRecord.objects.filter(created_at__lt=now - KEEP_ANSWERS).delete()[0]
