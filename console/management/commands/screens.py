"""Screenshots of every page, in light, dark and on a phone; fails on anything the browser complains about."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.urls import reverse

from console.context import GROUPS, link
from tenants.models import User
from tenants.services.accounts import make_sign_in_link

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
LOOKS = {"light": (1280, 900, "light"), "dark": (1280, 900, "dark"), "phone": (390, 844, "light")}
# pages that no link of the navigation leads to
MORE = (
    "jobs:job_new", "jobs:dataset_new", "jobs:endpoint_new", "tenants:tenant_new", "tenants:tenant_settings",
    "console:search", "console:style", "mfa_index", "account_email", "account_change_password",
)  # fmt: skip
SIGNED_OUT = ("account_login", "account_signup", "account_reset_password")
# the first of each kind of object is opened, with all its tabs
DETAILS = [
    re.compile(rf"^/{noun}/{prefix}_[0-9a-z]+$")
    for noun, prefix in (
        ("jobs", "job"),
        ("datasets", "ds"),
        ("models", "mdl"),
        ("endpoints", "ep"),
        ("invoices", "inv"),
    )
] + [
    re.compile(r"^/models/mdl_[0-9a-z]+/versions/ver_[0-9a-z]+$"),
    re.compile(r"^/invoices/draft-[-0-9a-z_]+$"),
]
SETTLE_MS = 900  # a socket connects, a chart draws itself


class Command(BaseCommand):
    help = (
        "Save screenshots of every page into var/screens and fail on console errors and sideways scrolling."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--url", default=settings.BASE_URL, help="where the console answers")
        parser.add_argument(
            "--sign-in", default="", help="a one-time sign-in link; made for --email when absent"
        )
        parser.add_argument(
            "--email", default="", help="whom to sign in; the first member of staff when absent"
        )
        parser.add_argument("--out", type=Path, default=settings.VAR_DIR / "screens")
        parser.add_argument("--only", default="", help="only addresses that contain this")
        parser.add_argument("--axe", action="store_true", help="check accessibility with axe-core as well")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            from playwright.sync_api import sync_playwright  # noqa: PLC0415  a tool of developers only
        except ImportError as missing:
            raise CommandError("Playwright is missing: run .venv/bin/pip install -e '.[dev]'") from missing
        base = options["url"].rstrip("/")
        # all rows are read before the browser starts: it brings an event loop, where Django reads none
        entry = options["sign_in"] or self._link(options["email"])
        nav = [reverse(place.view) for _label, group in GROUPS for place in group]
        # the style page is for developers: it answers only while TAUON_DEBUG is on
        nav += [link(view) for view in MORE if settings.DEBUG or view != "console:style"]
        out: Path = options["out"]
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        findings: list[str] = []
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            state = self._sign_in(browser, urljoin(base, entry))
            for look, (width, height, theme) in LOOKS.items():
                shape: dict[str, Any] = {
                    "viewport": {"width": width, "height": height},
                    "reduced_motion": "reduce",
                    "color_scheme": theme,
                }
                inside = browser.new_context(storage_state=state, **shape)
                outside = browser.new_context(**shape)
                for context in (inside, outside):
                    context.add_cookies([{"name": "theme", "value": theme, "url": base}])
                camera = Camera(base, out, look, findings, only=options["only"], axe=options["axe"])
                count = sum(
                    1 for _ in camera.walk(outside, [reverse(view) for view in SIGNED_OUT], crawl=False)
                )
                count += sum(1 for _ in camera.walk(inside, nav, crawl=True))
                inside.close()
                outside.close()
                self.stdout.write(f"{look}: {count} pages")
            browser.close()
        self.stdout.write(f"Screenshots are in {out}")
        if findings:
            for finding in findings:
                self.stdout.write(f"- {finding}")
            raise CommandError(f"{len(findings)} findings; mend them and run this again.")

    def _link(self, email: str) -> str:
        people = User.objects.filter(is_active=True)
        person = (
            people.filter(email__iexact=email)
            if email
            else people.filter(is_staff=True).order_by("date_joined")
        )
        found = person.first()
        if found is None:
            raise CommandError(
                "There is nobody to sign in. Run `make demo` first, or name a person with --email."
            )
        return make_sign_in_link(found)

    def _sign_in(self, browser: Any, address: str) -> Any:
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        if button := page.query_selector("main form button[type=submit], main form button.btn-primary"):
            button.click()  # the link asks once more, so that a mail scanner cannot use it up
            page.wait_for_load_state()
        if "/accounts/login" in page.url or "/welcome/" in page.url:
            raise CommandError(
                f"{address} did not sign anybody in. Make a new link, or leave --sign-in away."
            )
        state = context.storage_state()
        context.close()
        return state


class Camera:
    """Opens pages in one look, photographs them, and notes what is wrong."""

    def __init__(self, base: str, out: Path, look: str, findings: list[str], *, only: str, axe: bool) -> None:
        self.base, self.out, self.look, self.findings, self.only, self.axe = (
            base,
            out,
            look,
            findings,
            only,
            axe,
        )

    def walk(self, context: Any, addresses: list[str], *, crawl: bool) -> Iterator[str]:
        """Each address once; with crawl, the first object of each kind and its tabs as well."""
        waiting, seen, kinds = list(addresses), set(addresses), set()
        while waiting:
            address = waiting.pop(0)
            found = self.photograph(context, address)
            yield address
            for href in (href.split("#")[0] for href in found) if crawl else ():
                kind = next((i for i, pattern in enumerate(DETAILS) if pattern.match(href)), None)
                is_tab = "?" in href and urlsplit(href).path == urlsplit(address).path and "tab=" in href
                if href in seen or (kind is None and not is_tab) or kind in kinds:
                    continue
                seen.add(href)
                if kind is not None:
                    kinds.add(kind)
                waiting.append(href)

    def photograph(self, context: Any, address: str) -> list[str]:
        """One page: its picture, its complaints, its links."""
        page = context.new_page()
        said: list[str] = []
        host = urlsplit(self.base).netloc
        page.on("console", lambda m: said.append(f"console: {m.text}") if m.type == "error" else None)
        page.on("pageerror", lambda e: said.append(f"script: {e}"))
        page.on(
            "request",
            lambda r: said.append(f"leaves the machine: {r.url}") if _foreign(r.url, host) else None,
        )
        response = page.goto(self.base + address)
        page.wait_for_timeout(SETTLE_MS)
        wanted = self.only in address
        if wanted:
            if response is None or response.status >= 400:
                said.append(f"answered {response.status if response else 'nothing'}")
            wide = page.evaluate(
                "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            if wide > 0:
                said.append(f"scrolls sideways by {wide} px")
            if self.axe and "/api/" not in address:
                said += self._axe(page)
            name = re.sub(r"[^0-9a-z]+", "-", address.lower()).strip("-") or "overview"
            name = re.sub(r"([a-z]{2,4})-[0-9a-hjkmnp-tv-z]{26}", r"\1", name)
            page.screenshot(path=self.out / f"{name}.{self.look}.png", full_page=True)
            self.findings += [f"{self.look} {address}: {one}" for one in dict.fromkeys(said)]
        hrefs = page.eval_on_selector_all("main a[href]", "links => links.map(a => a.href)")
        page.close()
        return [href.removeprefix(self.base) for href in hrefs if href.startswith(self.base)]

    def _axe(self, page: Any) -> list[str]:
        from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415  a tool of developers only

        found = Axe().run(page).response["violations"]
        return [f"axe {one['id']}: {one['nodes'][0]['target']} ({len(one['nodes'])})" for one in found]


def _foreign(url: str, host: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in {"http", "https", "ws", "wss"} and parts.netloc != host
