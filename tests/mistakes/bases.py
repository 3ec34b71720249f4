"""Mistakes with what an image is made of: the base image, and the packages of the model."""

from collections.abc import Callable
from typing import Any

from tests.mistakes.registries import OwnRegistry, sets
from tests.mistakes.remote import RemoteMistake
from tests.stand_ins.faulty import Fault, before


def _index_without(remote: OwnRegistry) -> None:
    """Have pip ask an index that has none of what is pinned."""
    other = remote.project.held.enter_context(before(remote.proxy.upstream.geturl()))
    other.faults.append(Fault(status=404))
    remote.project.variables["PIP_INDEX_URL"] = f"http://{other.host}/simple"


def _make(name: str, breaks: Callable[[Any], object], **more: Any) -> RemoteMistake:
    return RemoteMistake(
        name=name,
        on="prepared",
        at=OwnRegistry,
        breaks=breaks,
        command=("containerize",),
        needs=("registry",),
        **{"code": 4, **more},
    )


BASES = (
    _make(
        "a base image of another architecture",
        lambda remote: remote.base_of("arm64", is_index=False),
        code=2,
        says="linux/arm64",
        hints="image.base",
    ),
    _make(
        "a base image that is not made for this architecture",
        lambda remote: remote.base_of("arm64", is_index=True),
        code=2,
        says="linux/amd64",
        hints="image.platforms",
    ),
    _make(
        "a base image that does not exist",
        sets(MLSHIP_IMAGE__BASE="localhost:5000/library/pyton:3.11-slim"),
        code=2,
        says="base image localhost:5000/library/pyton:3.11-slim does not exist",
        hints="image.base",
    ),
    _make(
        "the base image's registry does not answer",
        sets(MLSHIP_IMAGE__BASE="localhost:1/library/python:3.11-slim"),
        says="localhost:1",
        hints="start it",
    ),
    RemoteMistake(
        name="a requirement that does not resolve",
        on="trained",
        at=OwnRegistry,
        breaks=_index_without,
        command=("containerize",),
        code=2,
        says="has no wheel for Python 3.11 on linux/amd64",
        hints="train with a version that has a wheel",
        leaves=("images",),
        needs=("registry",),
        is_slow=True,
    ),
    RemoteMistake(
        name="the package index is down",
        on="trained",
        at=OwnRegistry,
        breaks=sets(PIP_INDEX_URL="http://127.0.0.1:1/simple"),
        command=("containerize",),
        code=4,
        says="cannot download from the package index: [Errno 111] Connection refused",
        hints="pip config list",
        leaves=("images",),
        needs=("registry",),
        is_slow=True,
    ),
)
