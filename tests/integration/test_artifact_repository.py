"""Artifact Registry's repositories: a gRPC server made of the client's own types stands in for it.

It shows that calls are well-formed and their answers understood, not that Google accepts them. What
is pushed goes to a real registry, which stands in for Google's host.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import artifactregistry_v1
from google.cloud.artifactregistry_v1 import Repository
from google.longrunning import operations_pb2
from google.protobuf.any_pb2 import Any as Packed
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from mlship import wire
from mlship.adapters.images.registry import google_credentials, google_repository
from mlship.adapters.images.registry.registries import Registries
from mlship.config.data import DataConfig
from mlship.config.project import Config, ImageConfig, ModelConfig
from mlship.domain.digests import Digest
from mlship.domain.image import Image, Reference, reference
from mlship.errors import (
    ConfigError,
    MlshipError,
    NotFoundError,
    TimedOutError,
    UnavailableError,
)
from tests.harness import asking
from tests.harness.images import BASE, Wheels, a_release, oci_images
from tests.harness.places import Notes
from tests.harness.services import require

NAME = "projects/iris-1/locations/europe-west1/repositories/models"
IMAGE = reference("europe-west1-docker.pkg.dev/iris-1/models/iris")
COMMAND = "gcloud artifacts repositories create models --repository-format docker"
COMMAND += " --location europe-west1 --project iris-1"
SERVICE = "/google.devtools.artifactregistry.v1.ArtifactRegistry/"
DOCKER = Repository(name=NAME, format_=Repository.Format.DOCKER)


class Refusal(NamedTuple):
    """What Google says instead of an answer."""

    code: int
    message: str = "no"
    reason: str = ""

    def status(self) -> status_pb2.Status:
        details = Packed()
        details.Pack(error_details_pb2.ErrorInfo(reason=self.reason, domain="googleapis.com"))
        return status_pb2.Status(code=self.code, message=self.message, details=[details])


class Google(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Keeps repositories by their full names. Making one takes as many looks as `looks` says."""

    def __init__(self, known: dict[str, Repository]) -> None:
        self.known = known
        self.looks = 2
        self.asked: list[str] = []
        self.refuses: dict[str, Refusal] = {}
        self.fails: Refusal | None = None

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        made: dict[str, tuple[Callable[[Any, Any], Any], Any, Any]] = {
            f"{SERVICE}GetRepository": (
                self.get,
                artifactregistry_v1.GetRepositoryRequest.deserialize,
                Repository.serialize,
            ),
            f"{SERVICE}CreateRepository": (
                self.create,
                artifactregistry_v1.CreateRepositoryRequest.deserialize,
                operations_pb2.Operation.SerializeToString,
            ),
            "/google.longrunning.Operations/GetOperation": (
                self.operation,
                operations_pb2.GetOperationRequest.FromString,
                operations_pb2.Operation.SerializeToString,
            ),
        }
        if handler_call_details.method not in made:
            return None
        call, read, write = made[handler_call_details.method]
        return grpc.unary_unary_rpc_method_handler(call, read, write)

    def _refuse(self, what: str, context: grpc.ServicerContext) -> None:
        self.asked.append(what)
        if what in self.refuses:
            context.abort_with_status(rpc_status.to_status(self.refuses[what].status()))

    def get(
        self, request: artifactregistry_v1.GetRepositoryRequest, context: grpc.ServicerContext
    ) -> Repository:
        self._refuse("get", context)
        if request.name not in self.known:
            context.abort(grpc.StatusCode.NOT_FOUND, f"{request.name} was not found")
        return self.known[request.name]

    def create(
        self, request: artifactregistry_v1.CreateRepositoryRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        self._refuse("create", context)
        name = f"{request.parent}/repositories/{request.repository_id}"
        if name in self.known:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, "the repository already exists")
        self.making = Repository(request.repository, name=name)
        return operations_pb2.Operation(name="operations/1")

    def operation(
        self, request: operations_pb2.GetOperationRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        self.asked.append("operation")
        assert request.name == "operations/1"
        self.looks -= 1
        if self.looks > 0:
            return operations_pb2.Operation(name=request.name)
        if self.fails:
            return operations_pb2.Operation(name=request.name, done=True, error=self.fails.status())
        self.known[self.making.name] = self.making
        packed = Packed()
        packed.Pack(Repository.pb(self.making))
        return operations_pb2.Operation(name=request.name, done=True, response=packed)


class World:
    """The stand-in and who talks to it."""

    def __init__(self, google: Google, address: str) -> None:
        self.google = google
        self.address = address
        self.notes = Notes()
        self.waits: list[float] = []

    def client(self, _: Any) -> artifactregistry_v1.ArtifactRegistryClient:
        transport = artifactregistry_v1.ArtifactRegistryClient.get_transport_class("grpc")
        channel = grpc.insecure_channel(self.address)
        return artifactregistry_v1.ArtifactRegistryClient(transport=transport(channel=channel))

    def prepare(self, image: Reference = IMAGE, *, create: bool = False) -> None:
        google_repository.prepare(
            image,
            create=create,
            progress=self.notes,
            client=self.client,
            pause=self.waits.append,
        )


@pytest.fixture(autouse=True)
def _logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        google_credentials,
        "application_default",
        lambda host: AnonymousCredentials(),  # type: ignore[no-untyped-call]
    )


@pytest.fixture
def world() -> Iterator[World]:
    google = Google({})
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((google,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield World(google, f"127.0.0.1:{port}")
    server.stop(0).wait()


def test_a_repository_that_is_there_is_looked_at_once_and_nothing_is_made(world: World) -> None:
    world.google.known[NAME] = DOCKER
    world.prepare(create=True)
    assert world.google.asked == ["get"]


def test_a_missing_repository_is_named_with_the_command_that_makes_it(world: World) -> None:
    with pytest.raises(NotFoundError, match=f"no repository {NAME}") as caught:
        world.prepare()
    assert COMMAND in caught.value.hint
    assert "image.create: true" in caught.value.hint
    assert world.google.asked == ["get"]


def test_a_missing_repository_is_made_when_told_to(world: World) -> None:
    world.prepare(create=True)
    assert world.google.known[NAME].format_ == Repository.Format.DOCKER
    assert world.google.asked == ["get", "create", "operation", "operation"]
    assert world.waits == [1.0]
    assert world.notes.lines == [f"creating {NAME}: 0 s", f"created {NAME}"]
    world.prepare(create=True)
    assert world.google.asked.count("create") == 1


def test_a_repository_that_somebody_else_made_meanwhile_is_taken(world: World) -> None:
    world.google.refuses["create"] = Refusal(code_pb2.ALREADY_EXISTS)
    world.prepare(create=True)
    assert world.google.asked == ["get", "create", "get"]


def test_one_that_is_made_while_ours_is_under_way_is_taken_too(world: World) -> None:
    world.google.fails = Refusal(code_pb2.ALREADY_EXISTS)
    world.prepare(create=True)
    assert world.google.asked[-1] == "get"


def test_a_creation_that_fails_or_does_not_end_is_told(world: World) -> None:
    world.google.fails = Refusal(code_pb2.INTERNAL, "no room in europe-west1")
    with pytest.raises(UnavailableError, match="no room in europe-west1"):
        world.prepare(create=True)
    world.google.looks = 1000
    with pytest.raises(TimedOutError, match="not created after 120 s"):
        world.prepare(create=True)
    assert sum(world.waits) == pytest.approx(121)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Repository(format_=Repository.Format.PYTHON), "has format PYTHON"),
        (Repository(DOCKER, mode=Repository.Mode.REMOTE_REPOSITORY), "REMOTE_REPOSITORY"),
        (Repository(DOCKER, mode=Repository.Mode.VIRTUAL_REPOSITORY), "VIRTUAL_REPOSITORY"),
    ],
)
def test_a_repository_that_takes_no_images_is_refused(
    world: World, found: Repository, words: str
) -> None:
    world.google.known[NAME] = found
    with pytest.raises(ConfigError, match=words) as caught:
        world.prepare(create=True)
    assert "image.repository" in caught.value.hint


def test_who_may_not_look_may_still_push(world: World) -> None:
    world.google.refuses["get"] = Refusal(code_pb2.PERMISSION_DENIED)
    world.prepare()
    assert world.notes.lines == [f"no permission to look up {NAME}"]
    assert world.google.asked == ["get"]


DENIED = Refusal(code_pb2.PERMISSION_DENIED, "Permission 'x' denied", "IAM_PERMISSION_DENIED")
DISABLED = Refusal(code_pb2.PERMISSION_DENIED, "has not been used before", "SERVICE_DISABLED")


@pytest.mark.parametrize(
    ("step", "refusal", "kind", "words", "hint"),
    [
        (
            "create",
            DENIED,
            UnavailableError,
            "denied the creation of",
            "roles/artifactregistry.admin",
        ),
        ("create", DISABLED, UnavailableError, "not enabled", "services enable artifactregistry"),
        ("get", DISABLED, UnavailableError, "not enabled in project iris-1", "--project iris-1"),
        (
            "get",
            Refusal(code_pb2.UNAUTHENTICATED),
            UnavailableError,
            "rejected the credentials",
            "auth",
        ),
        (
            "get",
            Refusal(code_pb2.INVALID_ARGUMENT),
            ConfigError,
            "not a valid repository",
            "image.repository",
        ),
        ("get", Refusal(code_pb2.DATA_LOSS), UnavailableError, "does not answer", "push again"),
    ],
)
def test_a_refusal_of_googles_is_told(
    world: World, step: str, refusal: Refusal, kind: type[MlshipError], words: str, hint: str
) -> None:
    world.google.refuses[step] = refusal
    with pytest.raises(kind, match=f"{words}.*{refusal.message}") as caught:
        world.prepare(create=True)
    assert hint in caught.value.hint


def test_an_api_that_is_down_is_given_up(world: World) -> None:
    world.address = "127.0.0.1:9"
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="does not answer"):
        world.prepare()
    assert time.monotonic() - started < 15


def test_without_credentials_only_what_must_be_made_is_an_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(host: str) -> Any:
        raise ConfigError(f"no Application Default Credentials for {host}")

    monkeypatch.setattr(google_credentials, "application_default", none)
    world.prepare()
    assert "is not looked up: no Application" in world.notes.lines[0]
    with pytest.raises(ConfigError, match="no Application Default Credentials"):
        world.prepare(create=True)
    assert world.google.asked == []


def test_the_key_of_the_configuration_decides(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(google_repository, "_client", lambda: world.client)
    image = Image(
        name=IMAGE.name, tag="1", digest=Digest("sha256:" + "0" * 64), base=IMAGE, platforms=()
    )

    def push(**given: Any) -> None:
        config = Config(
            name="iris",
            data=DataConfig(train="data/train.csv"),
            model=ModelConfig(train="pipeline:train"),
            image=ImageConfig(repository=IMAGE.name, **given),
        )
        wire.assemble(config, tmp_path, world.notes, {}).images().push(image)

    with pytest.raises(NotFoundError, match="no repository"):
        push()
    world.google.refuses["create"] = DENIED
    with pytest.raises(UnavailableError, match="denied the creation"):
        push(create=True)


class ForGoogle(httpx.BaseTransport):
    """Brings what is meant for Google's host to the tests' registry, as a proxy with TLS would."""

    def __init__(self) -> None:
        self.inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(scheme="http", host="localhost", port=5000)
        response = self.inner.handle_request(request)
        if place := response.headers.get("Location"):
            response.headers["Location"] = place.replace("http://", "https://", 1)
        return response

    def close(self) -> None:
        self.inner.close()


@pytest.mark.service("registry")
def test_a_repository_is_made_and_an_image_is_in_it(world: World, tmp_path: Path) -> None:
    try:
        answers = asking.get("http://localhost:5000/v2/", timeout=5).status_code == 200
    except httpx.HTTPError:
        answers = False
    require("registry at localhost:5000", answers, "run a registry there, with library/python")
    release, bundle = a_release(tmp_path / "bundle")
    name = f"iris-1/models/{uuid.uuid4().hex}"
    config = ImageConfig(repository=f"{IMAGE.registry}/{name}", base=BASE, create=True)
    images = oci_images(
        config,
        tmp_path / "images",
        Registries(config, {}, transport=ForGoogle()),
        world.notes,
        Wheels(),
        lambda target: world.prepare(target, create=config.create),
    )
    image = images.build(release, bundle, base=None)
    pushed = images.push(image)
    assert world.google.asked[:2] == ["get", "create"]
    assert pushed.reference == f"{IMAGE.registry}/{name}@{image.digest}"
    assert pushed.sent > 0
    there = asking.get(
        f"http://localhost:5000/v2/{name}/manifests/{image.digest}",
        headers={"Accept": "application/vnd.oci.image.manifest.v1+json"},
    )
    assert there.status_code == 200
