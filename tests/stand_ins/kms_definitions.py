"""The definitions of Cloud KMS that the stand-in keeps, recorded from Google's client.

`python -m tests.stand_ins.kms_definitions` records again. Tests read the recording, and one
compares it with the client.
"""

import json
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parents[1] / "recorded" / "kms.json"
METHODS = ("AsymmetricSign", "GetPublicKey")
"""What mlship asks for. The stand-in knows no other method."""
MESSAGES = ("AsymmetricSignRequest", "AsymmetricSignResponse", "PublicKey")
ENUMS = {"algorithm": ("CryptoKeyVersion", "CryptoKeyVersionAlgorithm")}
_KINDS = {8: "bool", 9: "text", 11: "message", 12: "base64", 14: "enum"}


def recorded() -> dict[str, Any]:
    """Return the recording: methods with verb and path, fields of messages, values of enums."""
    found: dict[str, Any] = json.loads(RECORDED.read_text())
    return found


def of_client() -> dict[str, Any]:
    """Return the definitions of the installed client."""
    from google.cloud import kms_v1
    from google.cloud.kms_v1.services.key_management_service.transports import rest_base

    transport = rest_base._BaseKeyManagementServiceRestTransport
    methods = {}
    for name in METHODS:
        option = getattr(transport, f"_Base{name}")._get_http_options()[0]
        methods[name] = {"verb": option["method"].upper(), "path": option["uri"]}
    messages = {}
    for name in MESSAGES:
        fields = getattr(kms_v1, name).pb().DESCRIPTOR.fields
        messages[name] = {
            field.json_name: field.message_type.name
            if field.message_type is not None
            else _KINDS[field.type]
            for field in fields
        }
    values = {
        field: sorted(getattr(getattr(kms_v1, message), enum).__members__)
        for field, (message, enum) in ENUMS.items()
    }
    return {"methods": methods, "messages": messages, "values": values}


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(of_client(), indent=1, sort_keys=True) + "\n")
