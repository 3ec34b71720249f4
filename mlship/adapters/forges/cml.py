"""The comment of a pull request posted by CML's own program: `ports.Comments`.

It begins with the mark by which `GitHubForge` finds it, so that either may update it.

Source: https://cml.dev/doc/ref/comment and the code of CML 0.20.6.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from mlship.domain.pullrequest import Posted, PullRequest, comment_mark, comment_title
from mlship.errors import ConfigError, TimedOutError, UnavailableError

_SECONDS: Final = 120.0
_KEPT = ("PATH", "HOME", "CI", "LANG", "TMPDIR", "NODE_EXTRA_CA_CERTS", "NODE_OPTIONS")
_KEPT_PREFIXES = ("GITHUB_", "RUNNER_", "http_proxy", "https_proxy", "no_proxy", "HTTP", "NO_PROXY")


class CmlComments:
    """Runs `cml comment update`. It learns of the environment no more than it needs.

    Args:
        name: the project; its comments are told from those of another in the same repository.
        environment: where the program is, which repository and which token.
        get: returns a pull request; asked where the program was denied, whether it is a fork's.
    """

    def __init__(
        self, name: str, environment: Mapping[str, str], get: Callable[[int], PullRequest]
    ) -> None:
        self._mark, self._title = comment_mark(name), comment_title(name)
        self._environment = environment
        self._get = get

    def comment(self, number: int, body: str) -> Posted:
        """Post the comment, or replace the text of the one that was posted before.

        Raises:
            ConfigError: there is no such program, no token, or the token may not write.
            TimedOutError: the program did not come to an end.
            UnavailableError: it failed; the message has its last line.
        """
        program = shutil.which("cml", path=self._environment.get("PATH", ""))
        if program is None:
            raise ConfigError(
                "the program cml is not on PATH",
                hint="add the action iterative/setup-cml, or use `--publish github`",
            )
        if not self._environment.get("GITHUB_TOKEN"):
            raise ConfigError(
                "GITHUB_TOKEN is not set, and cml needs it",
                hint="add `GITHUB_TOKEN: ${{ secrets.GITHUB_TOKEN }}` to the env of the step",
            )
        with tempfile.TemporaryDirectory(prefix="mlship-cml-") as folder:
            report = Path(folder) / "report.md"
            report.write_text(f"{self._mark}\n{body}", encoding="utf-8")
            done = self._run([program, *self._arguments(number), str(report)], Path(folder))
        if done.returncode == 0:
            return Posted(url=_last(done.stdout), change="updated")
        return self._failed(done, number)

    def _arguments(self, number: int) -> list[str]:
        arguments = ["comment", "update", "--target", f"pr/{number}"]
        # Left to itself it would send pictures to a server of its makers.
        arguments += ["--publish=false", "--watermark-title", self._title]
        repository = self._environment.get("GITHUB_REPOSITORY")
        if repository:
            server = self._environment.get("GITHUB_SERVER_URL", "https://github.com")
            arguments += ["--driver", "github", "--repo", f"{server.rstrip('/')}/{repository}"]
        return arguments

    def _run(self, argv: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
        kept = {
            name: value
            for name, value in self._environment.items()
            if name in _KEPT or name.startswith(_KEPT_PREFIXES)
        }
        kept |= {
            "REPO_TOKEN": self._environment["GITHUB_TOKEN"],
            "ITERATIVE_DO_NOT_TRACK": "1",
            # It makes every folder of the machine safe for git, in the user's own settings.
            "GIT_CONFIG_GLOBAL": str(folder / "gitconfig"),
        }
        try:
            return subprocess.run(
                argv,
                env=kept,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TimedOutError(
                f"cml did not end within {_SECONDS:g} s",
                hint="run the command again, or use `--publish github`",
            ) from error

    def _failed(self, done: subprocess.CompletedProcess[str], number: int) -> Posted:
        output = f"{done.stderr}\n{done.stdout}"
        if "Resource not accessible" in output:
            if self._get(number).from_fork:
                return Posted(url="", change=None)
            raise ConfigError(
                f"GITHUB_TOKEN may not comment on pull request {number}: cml reports "
                f"{_last(output)}",
                hint="add `pull-requests: write` to the permissions of the job",
            )
        raise UnavailableError(
            f"cml failed with exit code {done.returncode}: {_last(output) or 'no output'}",
            hint="run the command again, or use `--publish github`",
        )


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
