"""Columns of money and quantity: wide enough that nothing is lost."""

from __future__ import annotations

from typing import Any

from django.db import models


class QuantityField(models.DecimalField):
    """An exact quantity or unrounded amount: numeric(38,12)."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options.update(max_digits=38, decimal_places=12)
        super().__init__(*args, **options)


class AmountField(models.DecimalField):
    """A rounded amount of money: numeric(20,4); no currency has more than four places."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options.update(max_digits=20, decimal_places=4)
        super().__init__(*args, **options)
