"""CSV that streams, keeps every digit, and never becomes a formula in somebody's spreadsheet."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse

from billing import money

# a cell that begins like this is run as a formula by spreadsheets; so are their full-width twins
_DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_ROWS_AT_ONCE = 500


def cell(value: Any) -> str:
    """One value as text: exact decimals, UTC ISO times, and words that cannot be formulas."""
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return money.plain(money.kept(value))
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, date | int):
        return str(value)
    text = str(value)
    return f"'{text}" if text.startswith(_DANGEROUS) else text


class _Line:
    """A file that hands back what is written to it."""

    def write(self, text: str) -> str:
        return text


def lines(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """The file in pieces."""
    writer = csv.writer(_Line())
    held = [writer.writerow(header)]
    for row in rows:
        held.append(writer.writerow([cell(value) for value in row]))
        if len(held) >= _ROWS_AT_ONCE:
            yield "".join(held)
            held = []
    yield "".join(held)


def response(
    request: HttpRequest, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]
) -> StreamingHttpResponse:
    """A download that is written while it is sent."""
    pieces = lines(header, rows)
    # an ASGI server gathers a plain iterator in memory first; an asynchronous one really streams
    content = _slowly(pieces) if isinstance(request, ASGIRequest) else pieces
    return StreamingHttpResponse(
        content,
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"},
    )


async def _slowly(pieces: Iterator[str]) -> AsyncIterator[str]:
    for piece in pieces:
        yield piece
