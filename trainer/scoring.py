"""From the scores of the held-out rows to what the gate asks: a mean, its interval, and how sure a drop is.

Where every score is 0 or 1 the rows are counted, and the gate's intervals for shares apply. Other scores, such
as those of numbers and of texts, are compared row by row too: the spread of the differences says how sure the
mean difference is.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]
_TWO_SIDED_95, _ONE_SIDED_95 = 1.959964, 1.644854


def summary(scores: Scores, yardstick: Scores, guess: Scores | None) -> dict[str, Any]:
    """Plain numbers about one variant's scores beside the yardstick's and those of the simplest guess."""
    found: dict[str, Any] = {"accuracy": float(scores.mean()), "counted": _counted(scores, yardstick, guess)}
    if found["counted"]:
        right, before = scores > 0.5, yardstick > 0.5
        found |= {
            "right_rows": int(right.sum()),
            "lost_rows": int((before & ~right).sum()),
            "gained_rows": int((right & ~before).sum()),
        }
        if guess is not None:
            known = guess > 0.5
            found |= {
                "lost_to_guess": int((known & ~right).sum()),
                "gained_on_guess": int((right & ~known).sum()),
            }
        return found
    half = _TWO_SIDED_95 * _error(scores)
    found |= {"low": found["accuracy"] - half, "high": min(1.0, found["accuracy"] + half)}
    found["drop_high"] = _bound(yardstick - scores)
    found["behind_guess"] = None if guess is None else _bound(guess - scores)
    return found


def _counted(*all_scores: Scores | None) -> bool:
    return all(one is None or bool(np.isin(one, (0.0, 1.0)).all()) for one in all_scores)


def _bound(differences: Scores) -> float:
    """With 95 % confidence the mean difference is no larger than this."""
    return float(differences.mean()) + _ONE_SIDED_95 * _error(differences)


def _error(values: Scores) -> float:
    """The standard error of the mean."""
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
