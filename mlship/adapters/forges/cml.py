"""Comments on pull requests, posted by the program of CML: `publishing.Comments`.

A comment begins with the mark by which `GitHubForge` finds it, so that both can update it.

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
    """Runs `cml comment update` with only the environment variables that it needs.

    Args:
        name: the project, which distinguishes its comments from those of other projects.
        environment: names the PATH of the program, the repository and the token.
        get: returns a pull request; called if access is denied, to find out if it is from a fork.
    """

    def __init__(
        self, name: str, environment: Mapping[str, str], get: Callable[[int], PullRequest]
    ) -> None:
        self._mark, self._title = comment_mark(name), comment_title(name)
        self._environment = environment
        self._get = get

    def comment(self, number: int, body: str) -> Posted:
        """Post the comment, or update it if it was posted before.

        Raises:
            ConfigError: there is no such program, no token, or the token may not write.
            TimedOutError: the program did not exit in time.
            UnavailableError: it failed; the message has its last line of output.
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
            result = self._run([program, *self._arguments(number), str(report)], Path(folder))
        if result.returncode == 0:
            return Posted(url=_last(result.stdout), change="updated")
        return self._failed(result, number)

    def _arguments(self, number: int) -> list[str]:
        arguments = ["comment", "update", "--target", f"pr/{number}"]
        # By default, CML would upload images to a server of its vendor.
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
            # CML marks every folder as safe for git in the global settings; keep the user's clean.
            "GIT_CONFIG_GLOBAL": str(folder / "gitconfig"),
        }
        try:
            return subprocess.run(
                argv,
                env=kept,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TimedOutError(
                f"cml timed out after {_SECONDS:g} s",
                hint="run the command again, or use `--publish github`",
            ) from error

    def _failed(self, result: subprocess.CompletedProcess[str], number: int) -> Posted:
        output = f"{result.stderr}\n{result.stdout}"
        if "Resource not accessible" in output:
            if self._get(number).from_fork:
                return Posted(url="", change=None)
            raise ConfigError(
                f"GITHUB_TOKEN may not comment on pull request {number}: cml reports "
                f"{_last(output)}",
                hint="add `pull-requests: write` to the permissions of the job",
            )
        raise UnavailableError(
            f"cml failed with exit code {result.returncode}: {_last(output) or 'no output'}",
            hint="run the command again, or use `--publish github`",
        )


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
