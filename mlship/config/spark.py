"""Settings of Spark in mlship.yaml, checked before Java is started."""

import re
from collections.abc import Mapping
from typing import Final

from mlship.errors import ConfigError

MASTER: Final = "spark.master"

_MASTERS: Final = re.compile(
    r"local(\[(\d+|\*)(,\d+)?\])?|local-cluster\[\d+,\d+,\d+\]|yarn|k8s://\S+"
    r"|spark://[^\s/:,]+:\d+(,[^\s/:,]+:\d+)*"
)


def check_spark(settings: Mapping[str, str]) -> None:
    """Check the names of settings, and the form of the master.

    Raises:
        ConfigError: a name is not one of Spark, which Spark would pass over; or the master is
            invalid.
    """
    for name in settings:
        if not name.startswith("spark."):
            message = f"batch.spark has {name}, which is not a setting of Spark"
            raise ConfigError(message, hint="names begin with spark., as spark.executor.memory")
    master = settings.get(MASTER)
    if master is not None and not _MASTERS.fullmatch(master):
        message = f"invalid spark.master in batch.spark: {master}"
        hint = "use local[*], spark://HOST:PORT, k8s://https://HOST:PORT or yarn"
        raise ConfigError(message, hint=hint)
