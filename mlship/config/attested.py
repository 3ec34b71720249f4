"""`trust.attested`: the statements that an image must have, and the keys of those who make them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mlship import files
from mlship.domain.public_keys import of_pem
from mlship.errors import ConfigError

_MOST: Final = 10_000
"""Bytes of a file with a public key."""


def keys(attested: Mapping[str, str], root: Path) -> dict[str, str]:
    """Return the public key of each type of statement, from files of the project.

    Args:
        attested: the file by the type, from the project's folder.
        root: the project's folder.

    Raises:
        ConfigError: a file cannot be read, is outside of the project, or has no such key.
    """
    found = {}
    for kind, path in attested.items():
        setting, place = f"trust.attested: {path}", (root / path).resolve()
        if not place.is_relative_to(root.resolve()):
            message = f"{setting} is outside of the project"
            raise ConfigError(message, hint="name a file of the project")
        try:
            text = files.read_regular(place, _MOST).decode()
        except OSError as error:
            message = f"cannot read {setting}: {error.strerror}"
            raise ConfigError(message, hint="name a file of the project") from error
        except UnicodeDecodeError:
            text = ""
        found[kind] = of_pem(text, setting)
    return found
