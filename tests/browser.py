"""A real Chromium for tests, which complains of what a person would: errors, CSP violations, foreign requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, sync_playwright

from tests import chromium


@contextmanager
def open_browser() -> Iterator[Browser]:
    path = chromium.find()
    assert path, f"the browser tests need Chromium: {chromium.MEND}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=chromium.FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: Browser, url: str, *, expect_offline: bool = False) -> Iterator[Page]:
    """A page of its own context. At the end it fails on console errors and on requests to any other host."""
    context = browser.new_context(
        base_url=url,
        timezone_id="Asia/Shanghai",
        reduced_motion="reduce",
        viewport={"width": 1280, "height": 900},
    )
    page = context.new_page()
    page.set_default_timeout(30_000)
    complaints: list[str] = []
    hosts: set[str] = set()

    def heard(message) -> None:  # type: ignore[no-untyped-def]
        # cutting the network on purpose makes the browser say so
        cut = any(word in message.text for word in ("ERR_INTERNET_DISCONNECTED", "WebSocket connection to"))
        if message.type == "error" and not (expect_offline and cut):
            complaints.append(message.text)

    page.on("console", heard)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    try:
        yield page
    finally:
        context.close()
    assert not complaints, complaints
    assert hosts <= {urlsplit(url).netloc, ""}, f"requests left the machine: {hosts}"
