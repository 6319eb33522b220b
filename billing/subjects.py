"""What money was spent on is a public id and a title. The ledger does not know what stands behind them."""

from __future__ import annotations

# where a page about a subject lives, by the prefix of its public id
PAGES = {"job": "/jobs/", "ep": "/endpoints/", "mdl": "/models/", "ds": "/datasets/"}


def page_of(subject: str) -> str | None:
    """The address of the subject's page, or None where it has none."""
    prefix, _, rest = subject.partition("_")
    if not rest or not rest.isalnum() or prefix not in PAGES:
        return None
    return f"{PAGES[prefix]}{subject}"
