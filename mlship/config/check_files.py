"""Check files: what decides whether a release passes, without being an input of its training."""

from pathlib import PurePosixPath
from typing import Final

import msgspec

from mlship.config.project import Config
from mlship.config.requirements import REQUIREMENTS

PYTEST_SETTINGS: Final = (
    *("pytest.toml", "pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg"),
)
"""Where pytest looks for settings, in its order."""

CONFTEST: Final = "conftest.py"
_CODE: Final = ".py"


class CheckFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a project that decide on its tests and verifications.

    Attributes:
        settings: paths of single files: mlship.yaml, the requirements, the settings of pytest, the
            workload.
        suites: paths of the tests, folders or files, as mlship.yaml names them.
    """

    settings: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()

    def has(self, path: str) -> bool:
        """Return whether a path in the project is one of them.

        All files below a folder of tests are, such as expected values; of tests that lie in the
        project's own folder, only the code is.
        """
        file = PurePosixPath(path)
        return self._is_setting(file) or any(
            file.is_relative_to(suite) if suite.parts else file.suffix == _CODE
            for suite in map(PurePosixPath, self.suites)
        )

    def decides(self, path: str) -> bool:
        """Return whether a path is a setting or the code of a test, not data beside the tests."""
        file = PurePosixPath(path)
        return self._is_setting(file) or (file.suffix == _CODE and self.has(path))

    def _is_setting(self, file: PurePosixPath) -> bool:
        return file.as_posix() in self.settings or file.name == CONFTEST


def check_files(config: Config) -> CheckFiles:
    """Return the check files that a Config names, and those of fixed names."""
    workload = [config.workload] if config.workload else []
    named = ("mlship.yaml", REQUIREMENTS, *PYTEST_SETTINGS, *workload)
    suites = (*config.tests.paths("unit"), *config.tests.paths("sanity"))
    return CheckFiles(
        settings=tuple(PurePosixPath(path).as_posix() for path in named),
        suites=tuple(dict.fromkeys(PurePosixPath(path).as_posix() for path in suites)),
    )
