"""The newcomer's way through the browser: sign in, upload, launch, watch, report, endpoint, usage, token, revoke."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, TimeoutError, expect

from console.demo_data import digits_zip
from tests.browser import open_browser, open_page
from tests.stack import Stack

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.xdist_group("stack")]
FINAL = re.compile("succeeded|failed|cancelled")


@pytest.fixture(scope="module")
def chrome():
    with open_browser() as browser:
        yield browser


@pytest.fixture
def daphne(stack):
    """A second web server of the same installation, which may be killed without stopping the first."""
    server = WebServer(stack)
    server.start()
    yield server
    server.kill()


class WebServer:
    def __init__(self, stack) -> None:
        self.stack = stack
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        environment = {**self.stack.environment, "TAUON_EMBEDDED": "running", "TAUON_URL": self.url}
        command = [
            sys.executable,
            "-m",
            "daphne",
            "-b",
            "127.0.0.1",
            "-p",
            str(self.port),
            "console.asgi:application",
        ]
        self.process = subprocess.Popen(
            command, cwd=Path(__file__).resolve().parents[2], env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"{self.url}/health/ready", trust_env=False).status_code == 200:
                    return
            except httpx.HTTPError:
                assert time.monotonic() < deadline, "the second web server did not start"
                assert self.process.poll() is None, "its port was taken"
                time.sleep(0.1)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def test_a_newcomer_goes_from_sign_in_to_invoice(stack, chrome, daphne, tmp_path):
    (tmp_path / "digits.zip").write_bytes(digits_zip().read())
    with open_page(chrome, daphne.url, expect_offline=True) as page:
        page.goto(stack.sign_in)
        expect(page.get_by_role("heading", level=1)).to_be_visible()

        # upload
        page.goto("/datasets/new")
        page.set_input_files("input[type=file]", tmp_path / "digits.zip")
        page.get_by_label("Name").fill("Browser digits")
        page.get_by_role("button", name="Upload", exact=True).click()
        expect(page.get_by_role("heading", name="Browser digits", level=1)).to_be_visible()
        expect(page.get_by_text("1,797").first).to_be_visible()

        # launch with two processes, seeing the price first
        page.get_by_role("link", name=re.compile("Train")).first.click()
        page.locator("#id_name").fill("browser-digits")
        page.locator("#id_epochs").fill("40")
        page.locator("#id_processes").fill("2")
        page.locator("#id_processes").blur()
        expect(page.locator("#job-summary .price")).to_contain_text("–")
        page.get_by_role("button", name="Launch job").click()
        live = page.locator("live-job")
        expect(live).to_be_visible()
        job = page.url.rstrip("/").split("/")[-1]

        # live points arrive, the socket is cut, the web server dies and comes back; no gap and no double
        points_above(page, stack, 20)
        page.evaluate("() => document.querySelector('live-job').socket.close()")
        points_above(page, stack, 60)
        daphne.kill()
        time.sleep(1)
        daphne.start()
        points_above(page, stack, int(live.get_attribute("data-points")) + 20)
        expect(live).to_have_attribute("data-status", FINAL, timeout=120_000)
        expect(live).to_have_attribute("data-status", "succeeded")
        said = events(page, job)
        assert [event["seq"] for event in said] == list(range(1, len(said) + 1))
        expect(live).to_have_attribute("data-last-seq", str(said[-1]["seq"]))
        metrics = sum(event["kind"] == "metric" for event in said)
        assert int(live.get_attribute("data-points")) == metrics > 500
        page.reload()
        assert int(live.get_attribute("data-points")) == metrics

        # the report, and publishing
        page.get_by_role("link", name="Open the report").first.click()
        expect(page.get_by_text("prune").first).to_be_visible()
        page.get_by_role("link", name=re.compile("Publish")).first.click()
        page.locator("#id_name").fill("Browser digits")
        page.get_by_role("button", name="Publish").click()
        expect(page.get_by_text("Live", exact=True).first).to_be_visible(timeout=60_000)
        endpoint = httpx_session(page).get(f"{daphne.url}/api/v1/endpoints").json()["data"][0]

        # the endpoint answers in the playground
        page.reload()
        page.get_by_role("button", name="Send").click()
        expect(page.locator("#answer .verdict")).to_have_text(re.compile(r"^\d$"))

        # usage shows
        page.goto("/usage/")
        expect(page.get_by_text("browser-digits").first).to_be_visible()

        # a token is made, used with curl, revoked
        page.goto("/tokens/new")
        page.get_by_label("Name").fill("curl")
        for box in page.locator("#id_scopes input[type=checkbox]").all():
            box.check()
        page.get_by_role("button", name="Make token").click()
        token = page.locator(".secret code").inner_text()
        version = json.loads(curl(f"{daphne.url}/api/v1/jobs/{job}", token)[1])["model_version"]["id"]
        interface = json.loads(curl(f"{daphne.url}/api/v1/versions/{version}", token)[1])["interface"]
        inputs = [
            {**one, "shape": [1, *one["shape"][1:]], "data": interface["sample"][one["name"]]}
            for one in interface["inputs"]
        ]
        call = endpoint["infer_url"]
        within_a_second(
            lambda: curl(call, token, json.dumps({"inputs": inputs}))[0] == 200, "a new token is not known"
        )
        page.goto("/tokens/")
        row = page.get_by_role("row").filter(has_text="curl")
        row.get_by_role("button", name=re.compile("Revoke")).first.click()
        dialog = page.get_by_role("dialog")
        if dialog.count():
            dialog.get_by_role("button", name=re.compile("Revoke")).click()
        expect(page.get_by_text("revoked").first).to_be_visible()
        assert curl(f"{daphne.url}/api/v1/jobs", token)[0] == 401
        within_a_second(
            lambda: curl(call, token, json.dumps({"inputs": inputs}))[0] == 401, "a revoked token still works"
        )


def within_a_second(holds: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 1.0
    while not holds():
        assert time.monotonic() < deadline, f"{otherwise} after a second"


def points_above(page: Page, stack: Stack, number: int) -> None:
    """Wait for the live page to show more points; else say what the job, its stream and the log say."""
    try:
        page.wait_for_function(
            "number => Number(document.querySelector('live-job').dataset.points) > number",
            arg=number,
            polling=250,  # a headless page may draw no frames for a while, and the default waits for frames
            timeout=180_000,
        )
    except TimeoutError as late:
        live = page.locator("live-job").evaluate("element => ({...element.dataset})")
        job = page.url.rstrip("/").split("/")[-1]
        said = "\n".join(str(event) for event in events(page, job)[-20:])
        raise AssertionError(
            f"not more than {number} points\n{live}\n{said}\n{stack.log()[-6000:]}"
        ) from late


def events(page: Page, job: str) -> list[dict]:
    """The whole stream by API, with the browser's own session."""
    found, after = [], 0
    while True:
        body = page.request.get(f"/api/v1/jobs/{job}/events?after={after}&limit=1000").json()
        found += body["data"]
        if not body["has_more"]:
            return found
        after = found[-1]["seq"]


def httpx_session(page: Page) -> httpx.Client:
    cookies = {cookie["name"]: cookie["value"] for cookie in page.context.cookies()}
    return httpx.Client(cookies=cookies, trust_env=False)


def curl(url: str, token: str, body: str | None = None) -> tuple[int, str]:
    command = ["curl", "-sS", "-w", "\n%{http_code}", "-H", f"Authorization: Bearer {token}", url]
    if body is not None:
        command += ["-H", "Content-Type: application/json", "-d", body]
    text, _, status = subprocess.run(command, capture_output=True, text=True, check=True).stdout.rpartition(
        "\n"
    )
    return int(status), text


def _free_port() -> int:
    from console.management.commands.up import free_port

    return free_port("127.0.0.1", 0)
