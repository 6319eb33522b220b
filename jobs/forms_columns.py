"""Which column plays which part: the fields of a new job that depend on recipe and dataset."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from trainer.contract import COLUMNS, NEEDS, Recipe

RECIPES = [
    (Recipe.IMAGE, _("Images"), _("A picture in, its class out. From a zip of class folders."), "image"),
    (
        Recipe.TEXT,
        _("Text"),
        _("A sentence or article in, its topic out. English, Chinese and others."),
        "file-text",
    ),
    (
        Recipe.READER,
        _("Text, by a transformer"),
        _("The same with a small network that reads in order: slower, for texts where order matters."),
        "scroll-text",
    ),
    (Recipe.TABULAR, _("Table"), _("Columns in, one of them predicted. Missing values are fine."), "table"),
    (
        Recipe.REGRESSION,
        _("Table, a number"),
        _("Columns in, a number out: a price, a demand, a duration."),
        "chart-line",
    ),
    (
        Recipe.INTENT,
        _("Support answers"),
        _("A question in, its intent and the best ready answers out."),
        "book-open",
    ),
    (
        Recipe.SENTIMENT,
        _("Sentiment and topic"),
        _("A sentence in, its mood and what it is about out. As for finance news."),
        "scale",
    ),
    (
        Recipe.RECOMMEND,
        _("Recommendation"),
        _("Who chose what in, a ranked list for each user out. Texts of items help."),
        "star",
    ),
    (
        Recipe.LANGUAGE,
        _("Language model"),
        _("Texts in, a small model that goes on writing out. Trained from nothing."),
        "languages",
    ),
]
# what a column is called where its part is not the usual one
WORDS: dict[tuple[Recipe, str], tuple[Any, Any]] = {
    (Recipe.REGRESSION, "label"): (_("Target column"), _("The number the model learns to predict.")),
    (Recipe.INTENT, "label"): (_("Intent column"), _("What the question wants, such as track_order.")),
    (Recipe.INTENT, "text"): (_("Question column"), ""),
    (Recipe.SENTIMENT, "label"): (_("Sentiment column"), ""),
    (Recipe.RECOMMEND, "text"): (
        _("Item text column"),
        _("Such as the title: it places items nobody chose yet."),
    ),
}
LIKELY = {
    "label": ("label", "class", "target", "intent", "sentiment", "category", "kind", "species", "topic", "y"),
    "text": ("text", "sentence", "question", "title", "content", "review"),
    "topic": ("topic", "theme", "subject"),
    "answer": ("answer", "reply", "response"),
    "user": ("user", "user_id", "userid", "customer", "customer_id"),
    "item": ("item", "item_id", "itemid", "product", "product_id", "movie_id", "movieid"),
    "rating": ("rating", "stars", "score"),
    "time": ("time", "timestamp", "date", "at"),
}  # fmt: skip


class ColumnFields(forms.Form):
    """One field a part a column may play; `offer_columns` shows those the recipe asks for."""

    label = forms.CharField(
        label=_("Label column"),
        required=False,
        widget=forms.Select,
        help_text=_("What the model learns to say."),
    )
    text = forms.CharField(label=_("Text column"), required=False, widget=forms.Select)
    topic = forms.CharField(label=_("Topic column"), required=False, widget=forms.Select)
    answer = forms.CharField(
        label=_("Answer column"),
        required=False,
        widget=forms.Select,
        help_text=_("The ready answer to the question. The same words are the same answer."),
    )
    user = forms.CharField(label=_("User column"), required=False, widget=forms.Select)
    item = forms.CharField(label=_("Item column"), required=False, widget=forms.Select)
    rating = forms.CharField(
        label=_("Rating column"),
        required=False,
        widget=forms.Select,
        help_text=_("Choices rated below the mean are not learned from."),
    )
    time = forms.CharField(
        label=_("Time column"),
        required=False,
        widget=forms.Select,
        help_text=_("A number; the newest choices are held out. None: the last rows are."),
    )
    features = forms.MultipleChoiceField(
        label=_("Feature columns"),
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text=_("None ticked: every column but the label."),
    )
    chosen_recipe: Recipe

    def offer_columns(self, columns: list[dict[str, Any]]) -> None:
        """Choices, wording and a first guess for the columns of a dataset."""
        names = [(column["name"], column["name"]) for column in columns]
        needs = NEEDS[self.chosen_recipe]
        for role in COLUMNS:
            field = self.fields[role]
            empty = [("", _("None"))] if role in needs.optional else []
            field.widget.choices = [*empty, *names]  # type: ignore[attr-defined]
            label, notes = WORDS.get((self.chosen_recipe, role), (field.label, field.help_text))
            field.label, field.help_text = label, notes
        posted = self["features"].value() or []
        others = [(one, one) for one in posted if (one, one) not in names]
        self.fields["features"].choices = names + others  # type: ignore[attr-defined]
        taken: list[str] = []
        for role in sorted(self.roles, key=COLUMNS.index):  # the label first, the text is what remains
            if not self.is_bound or not self[role].value():
                self.initial.setdefault(role, likely(role, columns, taken, self.chosen_recipe))
            taken.append(str(self[role].value() or self.initial.get(role) or ""))
            if not taken[-1] and role in needs.columns:
                # without this a browser shows, and sends, the first column as if it had been chosen
                self.fields[role].widget.choices = [("", _("Choose a column")), *names]  # type: ignore[attr-defined]

    @property
    def roles(self) -> list[str]:
        needs = NEEDS[self.chosen_recipe]
        return [role for role in (*needs.columns, *needs.optional) if role in COLUMNS]

    @property
    def column_fields(self) -> list[forms.BoundField]:
        return [self[role] for role in self.roles]

    @property
    def takes_features(self) -> bool:
        return "features" in NEEDS[self.chosen_recipe].optional

    def columns_data(self, said: dict[str, Any]) -> dict[str, Any]:
        """What the API calls `columns`."""
        needs = NEEDS[self.chosen_recipe]
        found = {role: said[role] for role in self.roles if role in needs.columns or said[role]}
        return {**found, "features": said["features"]} if self.takes_features else found


def likely(role: str, columns: list[dict[str, Any]], taken: list[str], recipe: Recipe) -> str:
    """A guess that saves a click: a column named like one; for labels and texts, else one that looks like it."""
    free = [column for column in columns if column["name"] not in taken]
    if role in ("rating", "time") or (role == "label" and recipe is Recipe.REGRESSION):
        free = [column for column in free if column.get("type") == "number"]
    for name in LIKELY[role]:
        for column in free:
            if column["name"].strip().lower() == name:
                return str(column["name"])
    if role == "label":
        if recipe is Recipe.REGRESSION:
            return str(free[-1]["name"]) if free else ""
        few = [one["name"] for one in free if 2 <= (one.get("distinct") or 0) <= 50]
        return str(few[-1]) if few else ""
    if role == "text" and recipe is not Recipe.RECOMMEND:
        texts = [one for one in free if one.get("type") == "text"]
        return str(max(texts, key=lambda one: one.get("distinct") or 10**9)["name"]) if texts else ""
    return ""
