"""How virtual machines of Java run that live for seconds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

QUICK: Final = (
    *("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"),
    *("-XX:+UnlockDiagnosticVMOptions", "-XX:-BytecodeVerificationRemote"),
)
"""Threads that compile what runs long take most of the time of a short life, and the check that the
code of each class is well-formed a seventh."""
ARCHIVE: Final = "classes.jsa"
"""The classes that a program loads, as the machine has them in memory; see `.ci/kafka`."""


def options(folder: Path) -> Sequence[str]:
    """Return the options of `java` for a program whose archive of classes is in a folder.

    An archive of another Java or of other jars is not used, and nothing is said of it: what is
    started may read the output of `java`.
    """
    archive = folder / ARCHIVE
    return (*QUICK, f"-XX:SharedArchiveFile={archive}", "-Xlog:cds*=off")
