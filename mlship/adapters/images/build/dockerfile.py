"""The Dockerfile of a release's image, as text that anybody can read and Docker can build.

What changes least comes first: a release with another model finds all layers but its own in
Docker's cache. Only what the user adds may need a network.
"""

import json
import string
from collections.abc import Mapping
from typing import Final

from mlship.adapters.images.build import entry_point
from mlship.domain.image import Reference, Role
from mlship.domain.release import Release
from mlship.errors import ConfigError

NAME: Final = "Dockerfile"
ARCHIVES: Final[tuple[Role, ...]] = ("dependencies", "runtime", "bundle")
"""The archives beside the Dockerfile that become layers, in their order."""
OWN_STEPS: Final = 12
"""Instructions after the user's."""
_HEAD = "# Made by `mlship containerize`, which writes it anew: what you change here is lost."
_PLAIN: Final = frozenset(f"{string.ascii_letters}{string.digits}._-/:@+")
_NO_EXTENSION = "# image.extend in mlship.yaml may name a file of instructions, which come in here."


def archive(role: Role) -> str:
    """Return the file name of an archive; ADD unpacks it by its first bytes."""
    return f"{role}.tar.gz"


def text(base: Reference, release: Release, labels: Mapping[str, str], extension: str) -> str:
    """Return the Dockerfile of a release's image.

    Args:
        base: what it is built on, by digest.
        release: what it serves.
        labels: any text without control characters.
        extension: the user's own instructions, checked by `checked`; may be empty.

    Raises:
        ConfigError: a label cannot be written.
    """
    variables = entry_point.environment(release)
    own = {name: variables.pop(name) for name in ("MLSHIP_SLOT",)}
    lines = [
        _HEAD,
        f"FROM {base.name}@{base.digest}",
        "",
        extension.strip() or _NO_EXTENSION,
        "",
        "# How the server runs: as nobody, on one port, told to stop by a signal.",
        f"ENV {_pairs(variables)}",
        f"EXPOSE {entry_point.PORT}/tcp",
        f"STOPSIGNAL {entry_point.STOP_SIGNAL}",
        f"USER {entry_point.USER}",
        "WORKDIR /",
        "CMD []",
        "",
        "# Wheels of the lock, unpacked outside; mlship's runtime; the model. Nothing is fetched.",
        *(f"ADD {archive(role)} /" for role in ARCHIVES),
        "",
        f"# {release}",
        f"ENV {_pairs(own)}",
        f"LABEL {_pairs(labels)}",
        f"ENTRYPOINT {json.dumps(entry_point.entry_point(release))}",
    ]
    return "\n".join(lines) + "\n"


def checked(data: bytes, name: str) -> str:
    """Return the user's instructions from the bytes of the file that `image.extend` names.

    Raises:
        ConfigError: it is no text, or its last instruction would go on in ours.
    """
    try:
        found = data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        message = f"image.extend: {name!r} is no text"
        raise ConfigError(message, hint="save it as UTF-8, with Dockerfile instructions") from error
    lines = [line.strip() for line in found.split("\n")]
    last = next((one for one in reversed(lines) if one and not one.startswith("#")), "")
    if last.endswith("\\"):
        message = f"image.extend: the last instruction of {name!r} ends in a backslash"
        raise ConfigError(message, hint="finish it, or take the backslash away")
    return found


def _pairs(values: Mapping[str, str]) -> str:
    return " ".join(f"{_quoted(name)}={_quoted(value)}" for name, value in sorted(values.items()))


def _quoted(value: str) -> str:
    """Return a value as Docker reads it back, with no variable and no instruction in it.

    https://docs.docker.com/reference/dockerfile/#environment-replacement
    """
    if not value.isprintable():
        message = f"{value!r} cannot be written into a Dockerfile"
        raise ConfigError(message, hint="take line breaks and control characters out of it")
    if value and set(value) <= _PLAIN:
        return value
    escaped = value.replace("\\", r"\\").replace('"', r"\"").replace("$", r"\$")
    return f'"{escaped}"'
