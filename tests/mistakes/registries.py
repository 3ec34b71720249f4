"""Mistakes with registries: the project's own, and the one that the base image is in."""

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.harness.sockets import self_signed
from tests.mistakes.project import Project
from tests.mistakes.remote import Remote, RemoteMistake
from tests.mistakes.starts import BASE, Starts
from tests.stand_ins.faulty import Fault, before
from tests.stand_ins.private_registry import private_registry

OTHER = "127.0.0.2"
LOGIN = ("ada", "secret")
_REPOSITORY = "MLSHIP_IMAGE__REPOSITORY"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_WRITES = "^(POST|PUT|PATCH)"


class OwnRegistry(Remote):
    """A repository of one's own in a real registry that asks for a password, behind a proxy."""

    def __init__(self, project: Project, starts: Starts) -> None:
        super().__init__(project)
        self._real = starts.share(private_registry)
        self.proxy = project.held.enter_context(before(f"http://{self._real}"))
        self.repository = f"team/{uuid.uuid4().hex}"
        self.names |= {self.proxy.host: "HOST", self.repository: "REPOSITORY"}
        self._own(f"{self.proxy.host}/{self.repository}")
        self.settle()

    def _own(self, repository: str) -> None:
        """Have the project push there, as if it had been so when the image was made."""
        user, password = LOGIN
        before = self.project.variables.get(_REPOSITORY, "")
        index = ".mlship/images/index.json"
        if before and (self.project.folder / index).is_file():
            self.project.write(index, self.project.read(index).replace(before, repository))
        self.project.variables.update(
            {
                "MLSHIP_IMAGE__BASE": BASE,
                _REPOSITORY: repository,
                "MLSHIP_REGISTRY_USER": user,
                "MLSHIP_REGISTRY_PASSWORD": password,
            }
        )

    def elsewhere(self, identity: Path | None) -> None:
        """Have it answer at an address that is not this machine's by its name."""
        upstream = f"http://{self._real}"
        other = before(upstream, address=OTHER, identity=identity)
        host = self.project.held.enter_context(other).host
        self.project.variables[_REPOSITORY] = f"{host}/{self.repository}"

    def left(self) -> dict[str, str]:
        """Return the digest of each tag, and how many documents are attached to images."""
        with httpx.Client(
            base_url=f"http://{self._real}/v2/{self.repository}", auth=LOGIN
        ) as client:
            tags = client.get("/tags/list").json().get("tags") or ()
            kinds = {"Accept": f"{_MANIFEST}, {_INDEX}"}
            found = {tag: client.head(f"/manifests/{tag}", headers=kinds) for tag in tags}
        attached = {tag for tag in found if tag.startswith("sha256-")}
        told = {
            f"tag {tag}": one.headers["Docker-Content-Digest"]
            for tag, one in found.items()
            if tag not in attached
        }
        documents = sum(".mlship-" in tag for tag in attached)
        return told | ({"documents attached": str(documents)} if attached else {})

    def mend(self) -> None:
        super().mend()
        self.proxy.faults.clear()
        self.proxy.up()

    def base_of(self, machine: str, *, is_index: bool) -> None:
        """Name a base image for another machine."""
        with httpx.Client(
            base_url=f"http://{self._real}/v2/{self.repository}/base", auth=LOGIN
        ) as client:
            config = {
                "architecture": machine,
                "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": []},
            }
            described = _put(client, json.dumps(config).encode())
            manifest = {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": described,
                "layers": [],
            }
            data = json.dumps(manifest).encode()
            client.put("/manifests/one", content=data, headers={"Content-Type": _MANIFEST})
            entry = {
                **_described(data, _MANIFEST),
                "platform": {"os": "linux", "architecture": machine},
            }
            index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [entry]}
            client.put("/manifests/many", json=index, headers={"Content-Type": _INDEX})
        tag = "many" if is_index else "one"
        self.project.variables["MLSHIP_IMAGE__BASE"] = (
            f"{self.proxy.host}/{self.repository}/base:{tag}"
        )


def _described(data: bytes, kind: str) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return {"mediaType": kind, "digest": digest, "size": len(data)}


def _put(client: httpx.Client, data: bytes) -> dict[str, Any]:
    described = _described(data, "application/vnd.oci.image.config.v1+json")
    place = client.post("/blobs/uploads/").headers["Location"]
    digest = {"digest": described["digest"]}
    client.put(httpx.URL(place).copy_merge_params(digest), content=data).raise_for_status()
    return described


def sets(**variables: str) -> Callable[[Remote], None]:
    return lambda remote: remote.project.variables.update(variables)


def _answers(
    status: int, code: str = "", message: str = "", at: str = _WRITES, **headers: str
) -> Callable[[OwnRegistry], None]:
    """Have the registry answer otherwise: as its kind documents, in the API's form."""
    body = json.dumps({"errors": [{"code": code, "message": message}]}) if code else ""
    fields: Mapping[str, str] = {name.replace("_", "-"): value for name, value in headers.items()}

    def breaks(remote: OwnRegistry) -> None:
        remote.proxy.faults.append(Fault(status=status, body=body, headers=fields, at=at))

    return breaks


def _silent(remote: OwnRegistry) -> None:
    remote.proxy.faults.append(Fault(status=0))


def _without_login(remote: OwnRegistry) -> None:
    del remote.project.variables["MLSHIP_REGISTRY_USER"]
    del remote.project.variables["MLSHIP_REGISTRY_PASSWORD"]
    remote.project.variables["DOCKER_CONFIG"] = str(remote.project.folder)


def _speaks_no_tls(remote: OwnRegistry) -> None:
    """Name the registry by an address that TLS is spoken to."""
    remote.elsewhere(None)


def _of_no_authority(remote: OwnRegistry) -> None:
    remote.elsewhere(self_signed(remote.project.folder / ".git" / "identity", OTHER))


def _push(name: str, breaks: Callable[[Any], object], **more: Any) -> RemoteMistake:
    return RemoteMistake(
        name=name,
        on="imaged",
        at=OwnRegistry,
        breaks=breaks,
        command=("push-to-registry",),
        needs=("registry",),
        **{"code": 4, **more},
    )


PUSHES = (
    _push(
        "the registry is down",
        lambda remote: remote.proxy.down(),
        says="does not answer",
        hints="start it",
    ),
    _push(
        "the registry is silent",
        _silent,
        says="does not answer",
        is_slow=True,
        hints="check its address",
    ),
    _push(
        "the registry's name is not known",
        sets(**{_REPOSITORY: "registry.invalid/team/iris"}),
        says="registry.invalid",
        hints="check its address",
    ),
    _push(
        "nobody is logged in at the registry",
        _without_login,
        says="denied the pull from team/",
        hints="docker login",
    ),
    _push(
        "a wrong password for the registry",
        sets(MLSHIP_REGISTRY_PASSWORD="wrong"),
        says="denied the pull from team/",
        hints="MLSHIP_REGISTRY_PASSWORD",
    ),
    _push(
        "no permission to push",
        _answers(403, "DENIED", "permission_denied: write_package"),
        says="denied the push to team/",
        hints="docker login",
    ),
    _push(
        "the registry does not take the repository's name",
        _answers(404, "NAME_UNKNOWN", "The repository does not exist"),
        code=5,
        says="has no repository",
        hints="create the repository",
    ),
    _push(
        "a tag that must not change",
        _answers(
            400,
            "TAG_INVALID",
            "The image tag already exists and the repository is immutable",
            at="^PUT .*/manifests/",
        ),
        code=8,
        says="the repository is immutable",
        hints="set another image.repository",
    ),
    _push(
        "the registry's disk is full",
        _answers(500, "UNKNOWN", "no space left on device", at="^(PATCH|PUT) .*/uploads/"),
        says="no space left on device",
        hints="the registry's disk",
    ),
    _push(
        "the registry wants fewer requests",
        _answers(
            429, "TOOMANYREQUESTS", "You have reached your rate limit", at="", Retry_After="3600"
        ),
        says="You have reached your rate limit",
        hints="3600 s",
    ),
    _push(
        "the registry answers 503",
        _answers(503, at="", Retry_After="0"),
        says="is busy",
        is_slow=True,
        hints="retry after 0 s",
    ),
    _push(
        "a registry without TLS, and not on this machine",
        _speaks_no_tls,
        says="no trusted connection to registry 127.0.0.2",
        is_slow=True,
        hints="image.insecure",
    ),
    _push(
        "a registry whose certificate nobody vouches for",
        _of_no_authority,
        says="no trusted connection to registry 127.0.0.2",
        is_slow=True,
        hints="SSL_CERT_FILE",
    ),
    _push(
        "no registry but a page",
        _answers(200, at=""),
        code=7,
        says="is not a valid image",
        is_slow=True,
        hints="OCI",
    ),
)
