"""A gateway with its routes, as tests of the data plane use it."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import httpx

from tests.jobs import factories_endpoints as make
from tests.jobs.factories_endpoints import infer_body

LAB, ELSEWHERE = "ten_lab", "ten_elsewhere"
INFER = "/t/lab/digits/v2/models/digits/infer"


Json = dict[str, Any]


def token(*, tenant: str = LAB, whole: bool = True, granted: tuple[str, ...] = (), **more: Any) -> Json:
    return {
        "id": f"tok_{tenant}",
        "tenant_id": tenant,
        "expires": None,
        "whole_tenant": whole,
        "granted": list(granted),
        **more,
    }


TOKENS = {
    "ana": token(),
    "viewer": token(id="tok_viewer", whole=False),
    "cy": token(tenant=ELSEWHERE),
    "guest": token(id="tok_guest", tenant=ELSEWHERE, granted=("ep_digits",)),
    "late": token(id="tok_late", expires=time.time() - 1),
}


class House:
    """A gateway, its routes and a client."""

    def __init__(self, bundle: Path) -> None:
        self.interface = json.loads((bundle / "bundle.json").read_text())
        self.endpoints: dict[str, Any] = {}
        self.client = httpx.Client(timeout=20)

    def route(self, key: str = "lab/digits", **fields: Any) -> None:
        one = {"id": "ep_" + key.split("/")[1], "tenant_id": LAB, "name": "Digits", "status": "live",
               "model_version": "3", "public": False, "rpm": 100_000, "workers": [],
               "interface": self.interface, **fields}  # fmt: skip
        self.endpoints[key] = one

    def announce(self, **tokens: dict[str, Any] | None) -> None:
        known = {name: one for name, one in {**TOKENS, **tokens}.items() if one is not None}
        digests = {hashlib.sha256(name.encode()).hexdigest(): one for name, one in known.items()}
        make.announce(self.endpoints, digests)

    def post(
        self, who: str | None = "ana", path: str = INFER, body: Any = None, **options: Any
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {who}"} if who else {}
        headers |= options.pop("headers", {})
        if "content" not in options:
            options["json"] = infer_body(0) if body is None else body
        return self.client.post(self.url + path, headers=headers, **options)

    def get(self, path: str, who: str | None = "ana") -> httpx.Response:
        return self.client.get(self.url + path, headers={"Authorization": f"Bearer {who}"} if who else {})

    url = ""
