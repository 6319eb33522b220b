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
    # further figures of a report, by the names the engine gives them
    "MAE": _("Mean error (MAE)"),
    "RMSE": _("Root mean square error (RMSE)"),
    "best answer right": _("Best answer right"),
    "answer among 3": _("Right answer among three"),
    "sentiment right": _("Sentiment right"),
    "topic right": _("Topic right"),
    "NDCG@10": "NDCG@10",
    "items offered": _("Share of items ever offered"),
    "perplexity": _("Perplexity"),
    "bits a character": _("Bits a character"),
    "next right": _("Next character right"),
}


def quality_label(recipe: Any) -> str:
    """What the share a model of this recipe is judged by is called."""
    return str(QUALITIES[quality_of(recipe)])


def quality_of(recipe: Any) -> Quality:
    """The measure of a recipe; of one that is not known, as good as any."""
    known = {str(one): needs.quality for one, needs in NEEDS.items()}
    return known.get(str(recipe), Quality.ACCURACY)


def recipe_label(recipe: Any) -> str:
    """`image-classification` -> `Images`; what is not known is shown as it is."""
    return str(RECIPES.get(str(recipe), recipe))
