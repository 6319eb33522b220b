"""What recipes are called where people read, beside the names that specs and the API use."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext_lazy as _

from trainer.contract import Recipe

RECIPES: dict[str, Any] = {
    Recipe.IMAGE: _("Images"),
    Recipe.TEXT: _("Text"),
    Recipe.TABULAR: _("Table"),
}


def recipe_label(recipe: Any) -> str:
    """`image-classification` -> `Images`; what is not known is shown as it is."""
    return str(RECIPES.get(str(recipe), recipe))
