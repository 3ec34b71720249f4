"""The environment as pinned lines: which distributions, and which version of each."""

import functools
import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from email.parser import HeaderParser
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mlship.adapters.checkout import code
from mlship.config import commands, distributions, installation, packages, requirements
from mlship.config.installation import DISTRIBUTION
from mlship.config.project import ModelConfig
from mlship.config.requirements import REQUIREMENTS
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.errors import ProjectError

TRAINING = (DISTRIBUTION, "numpy", "onnxruntime", "pandas", "scikit-learn", "skl2onnx", "skops")
"""What shapes a model whatever the project is."""


_SHOWN = 5


class _Required(NamedTuple):
    """A requirement, or a constraint, with its file and line."""

    place: str
    requirement: Requirement
    is_constraint: bool


@dataclass(frozen=True)
class _Installed:
    """A distribution that is installed: its version, and what it requires."""

    version: str
    requires: tuple[Requirement, ...]


def closure(roots: Iterable[str]) -> tuple[str, ...]:
    """Return `name==version` of the roots and all that they need here, sorted by name.

    Roots are requirements (`numpy`, `uvicorn[standard]`); their versions are what is installed.
    A dependency that is not installed is left out, a root that is not is an error.

    Raises:
        ProjectError: a root is not installed.
    """
    waiting = [Requirement(root) for root in roots]
    asked = {canonicalize_name(root.name) for root in waiting}
    seen: set[tuple[str, str]] = set()
    pins: dict[str, str] = {}
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        try:
            installed = _installed(name)
        except metadata.PackageNotFoundError as error:
            if name not in asked:
                continue
            message = f"{requirement.name} is not installed"
            add = f"pip install {requirement.name}"
            hint = installation.hint("train") if name == DISTRIBUTION else add
            raise ProjectError(message, hint=hint) from error
        pins[name] = f"{name}=={installed.version}"
        for extra in ("", *requirement.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting.extend(_needs(installed, extra))
    return tuple(pins[name] for name in sorted(pins))


def training_environment(root: Path, model: ModelConfig) -> tuple[str, ...]:
    """Return the pinned lines of all that a training of this project runs on.

    These are mlship's own libraries for training, what `requirements.txt` and the files that it
    includes name, what the project's modules import, and all that these need.

    Raises:
        ConfigError: a requirements file is missing or cannot be decoded.
        ProjectError: a distribution is not installed, or not in the version that is required.
    """
    hooks = (model.train, model.preprocess, model.postprocess)
    modules = [hook.partition(":")[0] for hook in hooks if hook]
    sources = commands.sources_of(model.command or "")
    found = [packages.source_of(root, source) for source in sources]
    modules += [source.removesuffix(".py").replace("/", ".") for source in found]
    imported = code.third_party(root, code.closure(root, modules))
    required = _required(root)
    pins = closure([*TRAINING, *_names(required), *sorted(imported)])
    _check_versions(required, pins)
    return pins


def read_ahead() -> None:
    """Read what is installed, for the forks of this process, which look it up several times.

    What is missing is told by whoever needs it.
    """
    distributions.installed()
    with suppress(ProjectError):
        closure(TRAINING)


def digest_of(pins: tuple[str, ...]) -> Digest:
    """Return the digest of pinned lines and of Python's minor version."""
    return digests.of_value({"python": python_version(), "pins": pins})


def python_version() -> str:
    """Return the minor version of the Python that runs: `3.11`."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def roots_of(root: Path) -> list[str]:
    """Return the requirements that a project's `requirements.txt` and the files in it name.

    Raises:
        ConfigError: a file is missing or cannot be decoded.
        ProjectError: a line is no requirement, or names `mlship`, which is another program.
    """
    return _names(_required(root))


def _names(required: Iterable[_Required]) -> list[str]:
    return [
        requirement.name
        + (f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else "")
        for _, requirement, is_constraint in required
        if not is_constraint
    ]


def _required(root: Path) -> list[_Required]:
    """Return the requirements and constraints that apply here.

    Paths and bare addresses are passed over: they have no name to look up.
    """
    required = []
    for line in requirements.read(root / REQUIREMENTS):
        text = re.split(r"\s--", line.text)[0].strip()
        if line.is_editable or text.startswith((".", "/")) or _is_address(text):
            continue
        place = f"{line.file}:{line.number}"
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            message = f"{place}: {text[:80]!r} is not a requirement"
            raise ProjectError(message, hint="write one as name or name==1.2.3") from error
        if canonicalize_name(requirement.name) == installation.MODULE:
            message = f"{place}: {installation.refusal(requirement.name)}"
            raise ProjectError(message, hint=f"delete the line; {installation.INSTALLS_ITSELF}")
        if requirement.marker is None or requirement.marker.evaluate():
            required.append(_Required(place, requirement, line.is_constraint))
    return required


def _check_versions(required: Iterable[_Required], pins: Iterable[str]) -> None:
    """Refuse installed versions that `requirements.txt` excludes.

    Raises:
        ProjectError: there are some; the message names the first ones.
    """
    installed = dict(pin.split("==", 1) for pin in pins)
    differences = [
        f"{place}: {requirement.name}{requirement.specifier} is required, "
        f"but {installed[name]} is installed"
        for place, requirement, _ in required
        if (name := canonicalize_name(requirement.name)) in installed
        and not requirement.specifier.contains(installed[name], prereleases=True)
    ]
    if differences:
        more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        message = "; ".join(differences[:_SHOWN]) + more
        raise ProjectError(message, hint=f"pip install -r {REQUIREMENTS}")


def _is_address(text: str) -> bool:
    return "://" in text.partition("@")[0]


def _installed(name: str) -> _Installed:
    """Return what is installed of a distribution: the first that Python finds."""
    for folder in sys.path:
        found = _in_folder(name, os.path.abspath(folder))  # noqa: PTH100 (quick)
        if found is not None:
            return found
    raise metadata.PackageNotFoundError(name)


@functools.cache
def _in_folder(name: str, folder: str) -> _Installed | None:
    """Return what a folder of the search path has of a distribution, read once.

    Each attribute of `metadata.Distribution` parses the file of metadata anew, with the whole
    description of the distribution.
    """
    distribution = next(iter(metadata.distributions(name=name, path=[folder])), None)
    if distribution is None:
        return None
    text = distribution.read_text("METADATA")
    if text is None:  # of another form, such as the folder of an egg
        version, lines = distribution.version, distribution.requires or ()
    else:
        headers = HeaderParser().parsestr(text.partition("\n\n")[0])
        version, lines = headers["Version"], headers.get_all("Requires-Dist", ())
    return _Installed(version=version, requires=tuple(map(Requirement, lines)))


def _needs(distribution: _Installed, extra: str) -> list[Requirement]:
    return [
        need
        for need in distribution.requires
        if need.marker is None
        or (need.marker.evaluate({"extra": extra}) and (not extra or _is_of_extra(need)))
    ]


def _is_of_extra(need: Requirement) -> bool:
    return need.marker is not None and not need.marker.evaluate({"extra": ""})
