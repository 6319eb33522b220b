"""What may be asked of an endpoint: one validation for the form and for JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from django.utils.text import slugify
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobs.models import Endpoint, ModelVersion
from jobs.scaling import WarmHours
from tenants.actor import Actor
from tenants.errors import Fault, Invalid

NAME_LENGTH = 80
SLUG_LENGTH = 40
MOST_PER_MINUTE = 1_000_000
USUAL_PER_MINUTE = 600
# settings of operation: kind, least, most
OPERATION: dict[str, tuple[type, float, float]] = {
    "deadline_ms": (int, 10, 600_000),
    "most_at_once": (int, 0, 100_000),
    "min_replicas": (int, 0, 50),
    "max_replicas": (int, 1, 50),
    "target_concurrency": (int, 1, 1_000),
    "scale_up_after_s": (int, 0, 3_600),
    "scale_down_after_s": (int, 0, 86_400),
    "zero_after_s": (int, 10, 604_800),
    "guard_error_share": (float, 0, 1),
    "guard_p95_ratio": (float, 1, 100),
    "guard_min_requests": (int, 1, 1_000_000),
    "log_percent": (float, 0, 100),
    "log_days": (int, 1, 90),
}
MOST_MASKS = 200
MOST_WARM_HOURS = 20
_LISTED = {"warm_hours", "log_masks", "log_mask_texts"}  # settings of operation that are no numbers
_SLUG = re.compile(r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$")
_TYPES = {bool: gettext_lazy("a yes or no"), int: gettext_lazy("a whole number"), str: gettext_lazy("text")}


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSpec:
    """A new endpoint, checked: free address, servable version."""

    name: str
    slug: str
    version: ModelVersion
    is_public: bool
    requests_per_minute: int

    @classmethod
    def parse(cls, actor: Actor, data: Any) -> EndpointSpec:
        """Check everything at once and name every fault, or give the spec."""
        found = _Faults(data, known={field.name for field in fields(cls)})
        name = found.name(required=True)
        slug = found.take("slug", str, "").strip().lower() or slug_for(name)
        public = found.take("is_public", bool, False)
        rate = found.rate(USUAL_PER_MINUTE)
        version = found.version(actor)
        if name and not _SLUG.match(slug):
            found.add("slug", "format", slug_rule())
        elif name and Endpoint.objects.filter(tenant=actor.tenant, slug=slug).exists():
            found.add("slug", "taken", slug_taken(slug))
        found.raise_if_any()
        assert version is not None
        return cls(name=name, slug=slug, version=version, is_public=public, requests_per_minute=rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointChange:
    """Settings to change; None, or a name that is not in `operation`, leaves one as it is."""

    name: str | None
    is_public: bool | None
    requests_per_minute: int | None
    operation: Mapping[str, Any]  # how many workers, and when a canary goes; see OPERATION

    @classmethod
    def parse(cls, data: Any) -> EndpointChange:
        known = {field.name for field in fields(cls)} - {"operation"} | OPERATION.keys() | _LISTED
        found = _Faults(data, known=known)
        operation = {name: value for name in OPERATION if (value := found.number(name)) is not None}
        if "warm_hours" in data:
            operation["warm_hours"] = found.warm_hours()
        if "log_masks" in data:
            operation["log_masks"] = found.masks()
        if (texts := found.take("log_mask_texts", bool, None)) is not None:
            operation["log_mask_texts"] = texts
        change = cls(
            name=found.name(required=False) if "name" in data else None,
            is_public=found.take("is_public", bool, None) if "is_public" in data else None,
            requests_per_minute=found.rate(None) if "requests_per_minute" in data else None,
            operation=operation,
        )
        found.raise_if_any()
        return change


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSpec:
    """A version and its share of the requests, in basis points: what a canary or a shadow is made of."""

    version: ModelVersion
    share: int

    @classmethod
    def parse(cls, actor: Actor, data: Any, *, usual_percent: float) -> RolloutSpec:
        """From {"version": "ver_...", "percent": 5}."""
        found = _Faults(data, known={"version", "percent"})
        version, share = found.version(actor), found.share(usual_percent)
        found.raise_if_any()
        assert version is not None
        return cls(version=version, share=share)


def parse_share(data: Any) -> int:
    """The body {"percent": 25} as basis points."""
    found = _Faults(data, known={"percent"})
    share = found.share(None)
    found.raise_if_any()
    return share


def parse_version(actor: Actor, data: Any) -> ModelVersion:
    """The body of a new revision: {"version": "ver_..."}."""
    found = _Faults(data, known={"version"})
    version = found.version(actor)
    found.raise_if_any()
    assert version is not None
    return version


def slug_for(name: str) -> str:
    """An address made from a name."""
    return slugify(name)[:SLUG_LENGTH].strip("-_").replace("_", "-") or "endpoint"


def check_slug(slug: str) -> None:
    """Refuse what cannot be an address."""
    if not _SLUG.match(slug):
        raise Invalid.at("/slug", "format", slug_rule())


def check_servable(version: ModelVersion) -> None:
    """Refuse an archived version, and one without a graph that a worker could load."""
    if version.shelved_at is not None:
        raise Invalid.at("/version", "archived", archived(version))
    if not version.artifacts.filter(name="model.onnx").exists():
        raise Invalid.at("/version", "not_servable", not_servable(version))


def slug_rule() -> str:
    return _("An address has 1 to 40 small letters, digits and hyphens, and no hyphen at either end.")


def slug_taken(slug: str) -> str:
    text = _("%(slug)s is the address of another endpoint. Choose another, or publish a revision there.")
    return text % {"slug": slug}


def archived(version: ModelVersion) -> str:
    return _("%(version)s is archived, so it cannot answer. Restore it, or choose another version.") % {
        "version": version
    }


def not_servable(version: ModelVersion) -> str:
    return _("%(version)s has no model.onnx, so it cannot answer. Choose another version.") % {
        "version": version
    }


class _Faults:
    """Reads fields and collects what is wrong with them."""

    def __init__(self, data: Any, *, known: set[str]) -> None:
        if not isinstance(data, Mapping):
            raise Invalid.at("", "not_an_object", _("The body must be a JSON object."))
        self.data: Mapping[str, Any] = data
        self.faults: list[Fault] = []
        for field in data:
            if field not in known:
                text = _("%(field)s is not known here. Known: %(known)s.")
                self.add(field, "unknown_field", text % {"field": field, "known": ", ".join(sorted(known))})

    def add(self, field: str, code: str, detail: str) -> None:
        self.faults.append(Fault(f"/{field}", code, detail))

    def raise_if_any(self) -> None:
        if self.faults:
            one = self.faults[0].detail if len(self.faults) == 1 else ""
            raise Invalid(one, faults=self.faults)

    def take(self, field: str, kind: type, default: Any) -> Any:
        """The value if it is of the kind; a fault and the default if it is of another."""
        value = self.data.get(field)
        if value is None:
            return default
        # True is an int for Python, not for people
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.add(field, "type", _("This must be %(kind)s.") % {"kind": _TYPES[kind]})
            return default
        return value

    def name(self, *, required: bool) -> str:
        before = len(self.faults)
        name = str(self.take("name", str, "")).strip()
        if len(self.faults) == before and not 1 <= len(name) <= NAME_LENGTH:
            code = "required" if not name and required else "length"
            self.add("name", code, _("Give the endpoint a name of 1 to 80 characters."))
        return name

    def rate(self, default: int | None) -> Any:
        rate = self.take("requests_per_minute", int, default)
        if rate is not None and not 1 <= rate <= MOST_PER_MINUTE:
            text = _("Allow between 1 and %(most)s requests a minute.")
            self.add("requests_per_minute", "range", text % {"most": f"{MOST_PER_MINUTE:,}"})
        return rate

    def number(self, field: str) -> Any:
        """A setting of operation within its bounds; None if it is not given."""
        kind, least, most = OPERATION[field]
        value = self.data.get(field)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or (kind is int and value % 1):
            self.add(field, "type", _("This must be a number."))
        elif not least <= value <= most:
            text = _("This must lie between %(least)s and %(most)s.")
            self.add(field, "range", text % {"least": f"{least:g}", "most": f"{most:,g}"})
        return kind(value) if isinstance(value, int | float) else None

    def warm_hours(self) -> list[dict[str, object]]:
        said = self.data["warm_hours"]
        try:
            if not isinstance(said, list) or len(said) > MOST_WARM_HOURS:
                raise ValueError
            return [WarmHours.from_json(one).to_json() for one in said]
        except (ValueError, KeyError, TypeError):
            text = _(
                'Give a list of {"days": [0, 1], "from": "08:00", "to": "18:00", "replicas": 1}; '
                "0 is Monday, and times are UTC."
            )
            self.add("warm_hours", "format", text)
            return []

    def masks(self) -> list[str]:
        """Names of inputs, columns and outputs that the request log hides."""
        said = self.data["log_masks"]
        if (
            not isinstance(said, list)
            or len(said) > MOST_MASKS
            or not all(isinstance(one, str) for one in said)
        ):
            self.add("log_masks", "format", _("Give a list of at most %(n)s names.") % {"n": MOST_MASKS})
            return []
        names = [one.replace("\0", "").strip()[:200] for one in said]
        return [one for one in dict.fromkeys(names) if one]

    def share(self, usual_percent: float | None) -> int:
        percent = self.data.get("percent", usual_percent)
        if isinstance(percent, bool) or not isinstance(percent, int | float) or not 0 <= percent <= 100:
            self.add("percent", "range", _("A share lies between 0 and 100 %."))
            return 0
        return round(percent * 100)

    def version(self, actor: Actor) -> ModelVersion | None:
        given = self.data.get("version")
        if not isinstance(given, str) or not given or "\0" in given:
            self.add("version", "required", _("Name the model version to publish, such as ver_01…."))
            return None
        rows = ModelVersion.objects.visible_to(actor).filter(tenant=actor.tenant)
        version = rows.select_related("model", "tenant").filter(public_id=given).first()
        if version is None:
            text = _("Your tenant has no model version %(id)s.")
            self.add("version", "unknown", text % {"id": given})
        elif version.shelved_at is not None:
            self.add("version", "archived", archived(version))
        elif not version.artifacts.filter(name="model.onnx").exists():
            self.add("version", "not_servable", not_servable(version))
        return version
