"""Delta tables as data: a folder of the project, or an address such as delta+s3://bucket/table.

A table is told by its id and its version: what was read is a snapshot, whatever is written later.
"""

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.errors import ConfigError, ProjectError, UnavailableError

_ADDRESS: Final = "delta+"
_LOG: Final = "_delta_log"


def is_table(root: Path, text: str) -> bool:
    """Tell whether data of this name are a Delta table."""
    return text.startswith(_ADDRESS) or ("://" not in text and (root / text / _LOG).is_dir())


def digest_of(root: Path, text: str) -> Digest:
    """Return the digest of a table's id and its latest version; no rows are read.

    Raises:
        ProjectError: there is no table.
        ConfigError: its library is not installed.
        UnavailableError: its store cannot be used.
    """
    with _opened(root, text) as table:
        return digests.of_value({"table": str(table.metadata().id), "version": table.version()})


def rows_of(root: Path, text: str) -> Any:
    """Return the rows of a table's latest version as a DataFrame of pandas.

    Raises:
        ProjectError, ConfigError, UnavailableError: as `digest_of`.
    """
    with _opened(root, text) as table:
        return table.to_pandas()


@contextmanager
def _opened(root: Path, text: str) -> Iterator[Any]:
    if importlib.util.find_spec("deltalake") is None:
        message = f"the Delta table {text} needs the library deltalake"
        raise ConfigError(message, hint="pip install deltalake pyarrow")
    deltalake: Any = importlib.import_module("deltalake")
    faults: Any = importlib.import_module("deltalake.exceptions")
    address = text.removeprefix(_ADDRESS)
    try:
        yield deltalake.DeltaTable(address if "://" in address else str(root / address))
    except faults.TableNotFoundError as error:
        message = f"there is no Delta table {text}"
        raise ProjectError(message, hint="correct data.train or data.test") from error
    except ImportError as error:
        message = f"the Delta table {text} needs a library: {error}"
        raise ConfigError(message, hint="pip install pyarrow") from error
    except (faults.DeltaError, OSError) as error:
        message = f"the Delta table {text} cannot be read: {str(error).splitlines()[0]}"
        raise UnavailableError(message, hint="check the network and the credentials") from error
