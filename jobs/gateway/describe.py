"""What an endpoint says about itself: v2 metadata and configuration, and its OpenAPI document."""

from __future__ import annotations

import json
from typing import Any

from jobs.gateway.snapshot import Route

PLATFORM = "onnxruntime_onnx"
SERVER = json.dumps(
    {
        "name": "tauon",
        "version": "1",
        "extensions": ["binary_tensor_data", "classification", "model_configuration"],
    }
).encode()
_JSON_TYPES = {"BYTES": "string", "BOOL": "boolean"}
_SENTENCES = {
    401: "There is no token, or it is not known any more.",
    403: "This token may not call this endpoint, or not from this address.",
    404: "There is nothing here, or you may not see it.",
    413: "The body is too large.",
    415: "The body is of a type this route does not take.",
    422: "A value the model cannot take; `errors` holds a pointer to it.",
    429: "More requests than this caller may send; `Retry-After` says when to come back.",
    503: "Nobody can answer right now; `Retry-After` says when to come back.",
    504: "No answer within the deadline.",
}


def metadata(route: Route) -> bytes:
    """The v2 model metadata."""
    return _json(
        {
            "name": route.slug,
            "versions": [route.model_version],
            "platform": PLATFORM,
            "inputs": route.inputs,
            "outputs": route.outputs,
        }
    )


def configuration(route: Route) -> bytes:
    """What clients that know the model configuration extension ask for."""

    def port(one: dict[str, Any]) -> dict[str, Any]:
        kind = "TYPE_STRING" if one["datatype"] == "BYTES" else f"TYPE_{one['datatype']}"
        return {"name": one["name"], "data_type": kind, "dims": one["shape"][1:] or [1]}

    return _json(
        {
            "name": route.slug,
            "platform": PLATFORM,
            "backend": "onnxruntime",
            "max_batch_size": 1024,
            "version_policy": {"latest": {"num_versions": 1}},
            "input": [port(one) for one in route.inputs],
            "output": [port(one) for one in route.outputs],
        }
    )


def openapi(route: Route, base: str) -> bytes:
    """OpenAPI 3.1 of this very endpoint, its model's own columns and classes in it."""
    infer = f"/v2/models/{route.slug}/infer"
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": route.name,
            "version": route.model_version or "0",
            "description": "Labels and probabilities from the model behind this endpoint.",
        },
        "servers": [{"url": base}],
        "security": [{}] if route.public else [{"token": []}],
        "paths": {
            "/predict": {
                "post": {
                    "operationId": "predict",
                    "summary": "Send rows, get labels and probabilities",
                    "parameters": [_TIMEOUT],
                    "requestBody": {"required": True, "content": _predict_content(route)},
                    "responses": _responses(_predictions(route)),
                }
            },
            infer: {
                "post": {
                    "operationId": "infer",
                    "summary": "The same in the Open Inference Protocol v2",
                    "description": "JSON, or its binary tensor extension.",
                    "parameters": [_TIMEOUT],
                    "requestBody": {
                        "required": True,
                        "content": {"application/json": {"schema": _infer_request(route)}},
                    },
                    "responses": _responses({"$ref": "#/components/schemas/InferResponse"}),
                }
            },
            f"/v2/models/{route.slug}": {
                "get": {
                    "operationId": "metadata",
                    "summary": "Inputs and outputs of the model",
                    "responses": _responses({"type": "object"}, refused=(401, 403, 404)),
                }
            },
            "/v2/health/ready": {
                "get": {
                    "operationId": "ready",
                    "summary": "Whether a worker is ready to answer",
                    "responses": _responses({"type": "object"}, refused=(401, 403, 404, 503)),
                }
            },
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Problem": _PROBLEM, "InferResponse": _infer_response(route)},
        },
    }
    return _json(document)


_TIMEOUT = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "description": "Milliseconds within which the answer is of use; 504 after that.",
    "schema": {"type": "integer", "minimum": 1},
}
_PROBLEM = {
    "type": "object",
    "required": ["title", "status", "detail", "code", "request_id", "errors"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "code": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}


def _predict_content(route: Route) -> dict[str, Any]:
    is_image = len(route.inputs) == 1 and len(route.inputs[0]["shape"]) == 4
    row: dict[str, Any]
    if is_image:
        many, row = "images", {"type": "string", "contentEncoding": "base64", "description": "An image file."}
    elif [one["datatype"] for one in route.inputs] == ["BYTES"] and not route.recipe.startswith("tabular"):
        many, row = "texts", {"type": "string"}
    else:
        many, row = (
            "rows",
            {
                "type": "object",
                "properties": {one["name"]: _value(one) for one in route.inputs},
                "additionalProperties": False,
            },
        )
    rows = {"type": "array", "items": row, "minItems": 1, "maxItems": 1024}
    schema = {"type": "object", "required": [many], "properties": {many: rows}}
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if is_image:
        file = {"type": "string", "format": "binary"}
        content["multipart/form-data"] = {"schema": {"type": "object", "properties": {"file": file}}}
    return content


def _value(one: dict[str, Any]) -> dict[str, Any]:
    kind = _JSON_TYPES.get(one["datatype"], "number")
    return {"type": [kind, "null"]} if len(one["shape"]) == 1 else {"type": "array"}


def _predictions(route: Route) -> dict[str, Any]:
    label = {"type": "string", "enum": route.classes} if route.classes else {"type": "string"}
    prediction = {
        "type": "object",
        "required": ["label", "probability", "probabilities"],
        "properties": {
            "label": label,
            "probability": {"type": "number", "minimum": 0, "maximum": 1},
            "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
        },
    }
    return {
        "type": "object",
        "required": ["model", "version", "predictions"],
        "properties": {
            "model": {"type": "string"},
            "version": {"type": "string"},
            "predictions": {"type": "array", "items": prediction},
        },
    }


def _tensor(one: dict[str, Any]) -> dict[str, Any]:
    inner = {"type": _JSON_TYPES.get(one["datatype"], "number")}
    return {
        "type": "object",
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"const": one["name"]},
            "datatype": {"const": one["datatype"]},
            "shape": {
                "type": "array",
                "items": {"type": "integer"},
                "description": f"{one['shape']}, -1: rows",
            },
            "data": {"type": "array", "items": inner},
        },
    }


def _infer_request(route: Route) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "inputs": {"type": "array", "items": {"anyOf": [_tensor(one) for one in route.inputs] or [{}]}},
            "outputs": {"type": "array", "items": {"type": "object"}},
            "parameters": {"type": "object"},
        },
    }


def _infer_response(route: Route) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": {"const": route.slug},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": {"anyOf": [_tensor(one) for one in route.outputs] or [{}]}},
        },
    }


def _responses(schema: dict[str, Any], refused: tuple[int, ...] = tuple(_SENTENCES)) -> dict[str, Any]:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    found: dict[str, Any] = {
        "200": {"description": "The answer.", "content": {"application/json": {"schema": schema}}}
    }
    for status in refused:
        found[str(status)] = {"description": _SENTENCES[status], "content": problem}
    return found


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()
