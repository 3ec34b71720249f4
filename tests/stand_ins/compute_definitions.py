"""The definitions of the Compute Engine API that the stand-in keeps, recorded from Google's client.

`python -m tests.stand_ins.compute_definitions` records again. The client takes seconds to import
and 160 MB, so tests read the recording, and one compares it with the client.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parents[1] / "recorded" / "compute.json"
METHODS = {
    "UrlMaps": ("Get", "Update", "TestIamPermissions"),
    "BackendServices": ("Get", "Insert", "Update", "Delete", "GetHealth"),
    "HealthChecks": ("Get", "Insert", "Update", "Delete"),
    "GlobalOperations": ("Get",),
}
"""What mlship asks for. The stand-in knows no other method."""
ROOTS = (
    "UrlMap",
    "BackendService",
    "HealthCheck",
    "Operation",
    "ResourceGroupReference",
    "BackendServiceGroupHealth",
    "TestPermissionsRequest",
    "TestPermissionsResponse",
)


def recorded() -> dict[str, Any]:
    """Return the recording: methods with verb, path and body, and the fields of messages."""
    found: dict[str, Any] = json.loads(RECORDED.read_text())
    return found


def of_client() -> dict[str, Any]:
    """Return the definitions of the installed client."""
    return {"methods": dict(sorted(_methods())), "messages": dict(sorted(_messages()))}


def _methods() -> Iterator[tuple[str, Any]]:
    from importlib import import_module

    from google.cloud import compute_v1

    for service, names in METHODS.items():
        module = re.sub(r"(?<!^)([A-Z])", r"_\1", service).lower()
        base = import_module(f"google.cloud.compute_v1.services.{module}.transports.rest_base")
        transport = getattr(base, f"_Base{service}RestTransport")
        for name in names:
            (option,) = getattr(transport, f"_Base{name}")._get_http_options()
            request = getattr(compute_v1, _request_of(service, name)).pb().DESCRIPTOR
            body = option.get("body", "")
            in_path = set(re.findall(r"{(\w+)}", option["uri"]))
            fields = {field.name: field for field in request.fields}
            yield (
                f"{service}.{name}",
                {
                    "verb": option["method"].upper(),
                    "path": option["uri"],
                    "body": fields[body].message_type.name if body else "",
                    "parameters": sorted(
                        field.json_name
                        for name, field in fields.items()
                        if name != body and name not in in_path
                    ),
                },
            )


def _request_of(service: str, method: str) -> str:
    singular = {"UrlMaps": "UrlMap", "GlobalOperations": "GlobalOperation"}
    return f"{method}{singular.get(service, service.removesuffix('s'))}Request"


def _messages() -> Iterator[tuple[str, Any]]:
    from google.cloud import compute_v1

    pending = [getattr(compute_v1, name).pb().DESCRIPTOR for name in ROOTS]
    seen = set()
    while pending:
        message = pending.pop()
        if message.full_name in seen:
            continue
        seen.add(message.full_name)
        enums = {enum.name: sorted(enum.values_by_name) for enum in message.enum_types}
        fields = {}
        for field in message.fields:
            below = field.message_type
            is_map = below is not None and below.GetOptions().map_entry
            if below is not None and not is_map:
                pending.append(below)
            kind = _KINDS.get(field.type, "string") if below is None else below.name
            fields[field.json_name] = {
                "type": "map" if is_map else kind,
                **({"repeated": True} if field.is_repeated and not is_map else {}),
                **({"enum": enums[_camel(field.name)]} if _camel(field.name) in enums else {}),
            }
        yield message.name, dict(sorted(fields.items()))


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


_KINDS = {1: "number", 2: "number", 3: "int64", 4: "int64", 5: "integer", 8: "bool", 13: "integer"}
"""Types of descriptors by their number; int64 is text in JSON."""


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(of_client(), indent=1, sort_keys=True) + "\n")
