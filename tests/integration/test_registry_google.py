"""Google's credentials as its own library reads them, exchanged at a server of ours.

It shows that the exchange is well-formed, not that Google accepts it.
"""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from mlship.adapters.images.registry import google_credentials
from mlship.errors import ConfigError, UnavailableError

pytest.importorskip("google.auth", reason="the extra gcp is not installed")
HOST = "europe-west1-docker.pkg.dev"


class Tokens(HTTPServer):
    status, asked = 200, b""


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Tokens)
        self.server.asked = self.rfile.read(int(self.headers["Content-Length"]))
        told = {"access_token": "ya29.token", "expires_in": 3600, "token_type": "Bearer"}
        told["issued_token_type"] = "urn:ietf:params:oauth:token-type:access_token"
        body = json.dumps(told if self.server.status == 200 else {"error": "invalid_grant"})
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name)
        """Say nothing."""


@pytest.fixture
def tokens() -> Iterator[Tokens]:
    server = Tokens(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def logged_in(tokens: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "job-token"
    token.write_text("the job's own token")
    pool = "projects/1/locations/global/workloadIdentityPools/ci/providers/github"
    key = {
        "type": "external_account",
        "audience": f"//iam.googleapis.com/{pool}",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"http://127.0.0.1:{tokens.server_address[1]}/token",
        "credential_source": {"file": str(token)},
    }
    path = tmp_path / "adc.json"
    path.write_text(json.dumps(key))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "iris-project")


def test_a_jobs_identity_becomes_a_password(logged_in: None, tokens: Tokens) -> None:
    found = google_credentials.credential(HOST)
    assert (found.user, found.password) == ("oauth2accesstoken", "ya29.token")
    assert b"subject_token=the+job" in tokens.asked


def test_credentials_that_google_does_not_take_are_named(logged_in: None, tokens: Tokens) -> None:
    tokens.status = 400
    with pytest.raises(UnavailableError, match=f"no token for {HOST}"):
        google_credentials.credential(HOST)


def test_who_has_not_logged_in_is_told_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(ConfigError, match="no Application Default Credentials") as caught:
        google_credentials.credential(HOST)
    assert "gcloud auth application-default login" in caught.value.hint
