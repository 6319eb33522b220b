"""The same call in other words: what a person copies from the page of an endpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jobs.models import Endpoint


def curl(endpoint: Endpoint, body: Mapping[str, Any]) -> str:
    lines = [f"curl -s {infer_url(endpoint)}", '-H "Content-Type: application/json"']
    if not endpoint.is_public:
        lines.insert(1, '-H "Authorization: Bearer $TAUON_TOKEN"')
    # inside single quotes a shell reads everything literally but the quote itself
    quoted = json.dumps(body, ensure_ascii=False).replace("'", "'\\''")
    return " \\\n  ".join([*lines, f"-d '{quoted}'"])


def python(endpoint: Endpoint, body: Mapping[str, Any]) -> str:
    headers = (
        ""
        if endpoint.is_public
        else '\n    headers={"Authorization": f"Bearer {os.environ[\'TAUON_TOKEN\']}"},'
    )
    imports = "import httpx" if endpoint.is_public else "import os\n\nimport httpx"
    return (
        f"{imports}\n\nanswer = httpx.post(\n    {json.dumps(infer_url(endpoint))},{headers}\n"
        f"    json={_literal(body)},\n)\nanswer.raise_for_status()\nprint(answer.json())\n"
    )


def infer_url(endpoint: Endpoint) -> str:
    return f"{endpoint.base_url}/v2/models/{endpoint.slug}/infer"


def _literal(value: Any) -> str:
    """As Python writes it: None and True instead of null and true."""
    return repr(json.loads(json.dumps(value)))
