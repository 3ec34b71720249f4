"""Variables of a process that must be those of the process that it is forked from."""

from collections.abc import Mapping

from mlship.domain.environment import WAITING

AT_IMPORT = ("PYTHON", "LC_", "LANG", "OMP_", "GOMP_", "OPENBLAS_", "MKL_")
"""What begins so is read when Python starts or a library is imported."""
PASSED = (
    *("PYTHONPATH", "PYTHONIOENCODING", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"),
    *WAITING,
)
"""The first two of them a fork obeys, the others change nothing that a test sees."""
UTF_8 = ("UTF-8", "utf8")


def at_import(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that must be those of the warm process, for a command to be a fork.

    Any locale in UTF-8 is as good as none, for which Python takes UTF-8 as well.
    """
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(AT_IMPORT) and name not in PASSED and not value.endswith(UTF_8)
    }
