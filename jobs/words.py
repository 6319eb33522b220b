"""What recipes are called where people read, beside the names that specs and the API use."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext_lazy as _

from trainer.contract import NEEDS, Quality, Recipe

RECIPES: dict[str, Any] = {
    Recipe.IMAGE: _("Images"),
    Recipe.TEXT: _("Text"),
    Recipe.READER: _("Text, by a transformer"),
    Recipe.TABULAR: _("Table"),
    Recipe.REGRESSION: _("Table, a number"),
    Recipe.INTENT: _("Support answers"),
    Recipe.SENTIMENT: _("Sentiment and topic"),
    Recipe.RECOMMEND: _("Recommendation"),
    Recipe.LANGUAGE: _("Language model"),
}
QUALITIES: dict[str, Any] = {
    Quality.ACCURACY: _("Accuracy"),
    Quality.BOTH: _("Both right"),
    Quality.R2: "R²",
    Quality.RECALL: _("Recall at 10"),
    Quality.SAVED: _("Code length saved"),
}


def quality_label(recipe: Any) -> str:
    """What the share a model of this recipe is judged by is called."""
    known = {str(one): needs.quality for one, needs in NEEDS.items()}
    return str(QUALITIES[known.get(str(recipe), Quality.ACCURACY)])


def recipe_label(recipe: Any) -> str:
    """`image-classification` -> `Images`; what is not known is shown as it is."""
    return str(RECIPES.get(str(recipe), recipe))
