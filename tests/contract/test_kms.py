"""What mlship sends to Cloud KMS is what Google's own client would send, and reads its answers."""

import json

import httpx
import pytest

from mlship.adapters.http.clients import Reach, open_client
from mlship.adapters.keys.kms import URL, KmsKey, door_of
from tests.stand_ins.google_kms import KEY, GoogleKms
from tests.stand_ins.kms_definitions import MESSAGES, METHODS, of_client, recorded

VERSION = f"{KEY}/cryptoKeyVersions/1"


def exchanged() -> list[tuple[httpx.Request, httpx.Response]]:
    """Return each request of a signature, with its answer."""
    api, found = GoogleKms(), []

    def answer(request: httpx.Request) -> httpx.Response:
        response = api(request)
        found.append((request, response))
        return response

    client = open_client(Reach(transport=httpx.MockTransport(answer)), base_url=URL)
    KmsKey(f"gcpkms://{VERSION}", lambda: door_of(client)).sign(b"DSSEv1 1 a 1 b")
    return found


def test_the_recording_is_that_of_the_client() -> None:
    assert recorded() == of_client()
    assert set(recorded()["methods"]) == set(METHODS)


def test_requests_and_answers_are_read_by_the_types_of_the_client() -> None:
    from google.cloud import kms_v1
    from google.protobuf import json_format

    (asked, key), (sent, signed) = exchanged()
    assert asked.content == b""
    body = {"name": VERSION, **json.loads(sent.content)}
    types = ("AsymmetricSignRequest", body), ("PublicKey", key.json())
    for name, fields in (*types, ("AsymmetricSignResponse", signed.json())):
        assert name in MESSAGES
        message = getattr(kms_v1, name).pb()()
        json_format.ParseDict(fields, message, ignore_unknown_fields=False)
        assert json_format.MessageToDict(message) == fields


def test_the_client_itself_would_send_the_same() -> None:
    from google.api_core import path_template
    from google.cloud import kms_v1
    from google.cloud.kms_v1.services.key_management_service.transports import rest_base
    from google.protobuf import json_format

    base = rest_base._BaseKeyManagementServiceRestTransport._BaseAsymmetricSign
    _, (sent, _) = exchanged()
    body = json.loads(sent.content)
    request = kms_v1.AsymmetricSignRequest(
        name=VERSION, data=b"DSSEv1 1 a 1 b", data_crc32c=int(body["dataCrc32c"])
    )
    options = base._get_http_options()  # type: ignore[no-untyped-call]
    message = type(request).pb(request)
    transcoded = path_template.transcode(options, message)  # type: ignore[no-untyped-call]
    assert transcoded["uri"] == sent.url.path
    assert transcoded["method"].upper() == sent.method
    assert json_format.MessageToDict(transcoded["body"]) == body


@pytest.mark.parametrize("field", ["dta", "name"])
def test_the_stand_in_refuses_what_google_refuses(field: str) -> None:
    client = open_client(Reach(transport=httpx.MockTransport(GoogleKms())), base_url=URL)
    response = client.post(f"/v1/{VERSION}:asymmetricSign", json={field: ""})
    assert response.status_code == 400
    assert response.json()["error"]["status"] == "INVALID_ARGUMENT"
