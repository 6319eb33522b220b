"""The recipes and what each asks of the data: one table, read by the engine, the form and the API alike.

Standard library only. `trainer.contract` hands these names on; the web reads them there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

TABLES = ("csv", "jsonl")


class Recipe(StrEnum):
    """The use cases the engine knows; one file each in `trainer/recipes`."""

    IMAGE = "image-classification"
    TEXT = "text-classification"
    READER = "text-transformer"
    TABULAR = "tabular-classification"
    REGRESSION = "tabular-regression"
    INTENT = "intent-retrieval"
    SENTIMENT = "sentiment-topic"
    RECOMMEND = "recommendation"
    LANGUAGE = "language-model"


class Learns(StrEnum):
    """What the model says of a row."""

    CLASS = "class"  # one of the values of the label column
    NUMBER = "number"
    RANKING = "ranking"  # the best of many items, in order
    TEXT = "text"  # how a text goes on


class Quality(StrEnum):
    """What VariantReport.accuracy holds: a mean over the held-out rows, 1 is perfect."""

    ACCURACY = "accuracy"  # share of rows answered right
    BOTH = "both right"  # share of rows of which both answers are right
    R2 = "R²"  # share of the target's variance explained; guessing the mean scores 0
    RECALL = "recall@10"  # share of held-out choices among the ten items offered
    SAVED = "code length saved"  # share of the bits a character costs when nothing is known


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a recipe asks for. `columns` must be named, `optional` ones may be; both are fields of DataSpec."""

    formats: tuple[str, ...] = TABLES
    columns: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    learns: Learns = Learns.CLASS
    quality: Quality = Quality.ACCURACY
    usual: Mapping[str, int | float | str] = field(
        default_factory=dict
    )  # hyper-parameters unlike the common ones


NEEDS: dict[Recipe, Needs] = {
    Recipe.IMAGE: Needs(formats=("images",)),
    Recipe.TEXT: Needs(columns=("text", "label")),
    Recipe.READER: Needs(columns=("text", "label"), usual={"epochs": 6, "learning_rate": 1e-3}),
    Recipe.TABULAR: Needs(columns=("label",), optional=("features",)),
    Recipe.REGRESSION: Needs(
        columns=("label",),
        optional=("features",),
        learns=Learns.NUMBER,
        quality=Quality.R2,
        usual={"epochs": 40, "learning_rate": 1e-3, "weight_decay": 1.0},
    ),
    Recipe.INTENT: Needs(
        columns=("text", "label", "answer"), usual={"epochs": 30, "batch_size": 32, "learning_rate": 5e-3}
    ),
    Recipe.SENTIMENT: Needs(
        columns=("text", "label", "topic"),
        quality=Quality.BOTH,
        usual={"epochs": 30, "batch_size": 32, "learning_rate": 5e-3},
    ),
    Recipe.RECOMMEND: Needs(
        columns=("user", "item"),
        optional=("rating", "time", "text"),
        learns=Learns.RANKING,
        quality=Quality.RECALL,
        usual={"epochs": 5, "batch_size": 512, "learning_rate": 1e-2, "weight_decay": 1.0, "holdout": 0.1},
    ),
    Recipe.LANGUAGE: Needs(
        columns=("text",),
        learns=Learns.TEXT,
        quality=Quality.SAVED,
        usual={"epochs": 3, "batch_size": 32, "learning_rate": 3e-3, "holdout": 0.1},
    ),
}
COLUMNS = (
    "label",
    "text",
    "topic",
    "answer",
    "user",
    "item",
    "rating",
    "time",
)  # fields that name one column
