"""Git repositories of tests."""

from typing import Final

QUICK: Final = ("-c", "maintenance.auto=false", "-c", "init.templateDir=")
"""Options of git: a commit starts no processes that tidy up, a new one has no sample hooks."""

ADA: Final = (*QUICK, "-c", "user.name=Ada", "-c", "user.email=ada@example.org")
"""The same, as Ada."""
