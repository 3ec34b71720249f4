"""The load generator and the picture of what it measured."""

from importlib.util import find_spec
from pathlib import Path

from mlship.domain.load import Generator, LoadResult
from mlship.errors import ConfigError


def generator(api_key: str, certificate: Path | None) -> Generator:
    """Return the load generator.

    Args:
        api_key: sent with each request unless it is empty.
        certificate: the only one that is trusted, if there is one.

    Raises:
        ConfigError: a library that it or the report needs is not installed.
    """
    for library in ("aiohttp", "matplotlib"):
        if find_spec(library) is None:
            message = f"mlship loadtest needs {library}, which is not installed"
            raise ConfigError(message, hint="install mlship with the extra `loadtest`")
    from mlship.adapters.load.generator import ProcessGenerator

    return ProcessGenerator(api_key, certificate)


def draw_load(result: LoadResult, title: str, path: Path) -> None:
    """Draw latencies and requests by second into a PNG file.

    Raises:
        OSError: the file cannot be written.
    """
    from mlship.adapters.load import plot

    plot.draw(result, title, path)
