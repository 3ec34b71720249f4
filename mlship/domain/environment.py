"""The environment of processes that run a model or the user's code: an exact list of variables.

A command holds credentials: of a registry, a cluster, a tracking server, GitHub. What it starts
gets none of them, only what programs need to run, and what the project names.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from mlship.domain import private


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SYSTEM: Final = _names(
    "PATH HOME USER LOGNAME SHELL TMPDIR TEMP TMP TZ TZDIR LANG LANGUAGE TERM COLUMNS CI "
    "LC_ALL LC_COLLATE LC_CTYPE LC_MESSAGES LC_MONETARY LC_NUMERIC LC_TIME LC_ADDRESS "
    "LC_IDENTIFICATION LC_MEASUREMENT LC_NAME LC_PAPER LC_TELEPHONE "
    "XDG_CACHE_HOME XDG_CONFIG_HOME XDG_DATA_HOME XDG_RUNTIME_DIR "
    "LD_LIBRARY_PATH DYLD_LIBRARY_PATH DYLD_FALLBACK_LIBRARY_PATH "
    "SYSTEMROOT SYSTEMDRIVE WINDIR COMSPEC PATHEXT USERPROFILE APPDATA LOCALAPPDATA "
    "PROGRAMDATA NUMBER_OF_PROCESSORS PROCESSOR_ARCHITECTURE"
)
_PYTHON: Final = _names(
    "PYTHONHOME PYTHONPATH PYTHONUSERBASE PYTHONNOUSERSITE PYTHONUTF8 "
    "PYTHONWARNINGS PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX "
    "PYTHONFAULTHANDLER PYTHONHASHSEED PYTHONDEVMODE PYTHONTRACEMALLOC PYTHONMALLOC "
    "PYTHONCOERCECLOCALE PYTHONSAFEPATH VIRTUAL_ENV CONDA_PREFIX CONDA_DEFAULT_ENV "
    "COVERAGE_PROCESS_START COVERAGE_PROCESS_CONFIG "
    "PYTEST_ADDOPTS PYTEST_PLUGINS PYTEST_DISABLE_PLUGIN_AUTOLOAD HYPOTHESIS_PROFILE "
    "MPLBACKEND MPLCONFIGDIR"
)
_COMPUTING: Final = _names(
    "OMP_NUM_THREADS OMP_THREAD_LIMIT OMP_DYNAMIC OMP_PROC_BIND OMP_PLACES OMP_SCHEDULE "
    "OMP_WAIT_POLICY KMP_AFFINITY KMP_BLOCKTIME KMP_DUPLICATE_LIB_OK GOMP_CPU_AFFINITY "
    "GOMP_SPINCOUNT "
    "OPENBLAS_NUM_THREADS OPENBLAS_THREAD_TIMEOUT OPENBLAS_CORETYPE MKL_NUM_THREADS MKL_DYNAMIC "
    "BLIS_NUM_THREADS VECLIB_MAXIMUM_THREADS NUMEXPR_NUM_THREADS NUMEXPR_MAX_THREADS "
    "NUMBA_NUM_THREADS LOKY_MAX_CPU_COUNT JOBLIB_TEMP_FOLDER MALLOC_ARENA_MAX "
    "MALLOC_TRIM_THRESHOLD_ "
    "CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER CUDA_HOME CUDA_PATH NVIDIA_VISIBLE_DEVICES "
    "NVIDIA_DRIVER_CAPABILITIES HIP_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES "
    "TF_CPP_MIN_LOG_LEVEL TOKENIZERS_PARALLELISM KERAS_BACKEND"
)
_NETWORK: Final = _names(
    "SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE "
    "HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY"
)
_CACHES: Final = _names(
    "HF_HOME HF_HUB_CACHE HF_HUB_OFFLINE TRANSFORMERS_OFFLINE TORCH_HOME KERAS_HOME "
    "NLTK_DATA SCIKIT_LEARN_DATA JAVA_HOME"
)
_POSTGRES: Final = _names(
    "PGPASSWORD PGPASSFILE PGUSER PGSSLMODE PGSSLROOTCERT PGSSLCERT PGSSLKEY PGSERVICE "
    "PGSERVICEFILE PGCONNECT_TIMEOUT PGAPPNAME PGOPTIONS PGTZ PGHOST PGPORT PGDATABASE "
    "PGHOSTADDR PGSYSCONFDIR PGTARGETSESSIONATTRS PGGSSENCMODE PGREQUIREAUTH "
    "PGCHANNELBINDING"
)
_TRACES: Final = _names(
    "OTEL_SDK_DISABLED OTEL_SERVICE_NAME OTEL_RESOURCE_ATTRIBUTES OTEL_TRACES_EXPORTER "
    "OTEL_TRACES_SAMPLER OTEL_TRACES_SAMPLER_ARG "
    "OTEL_BSP_SCHEDULE_DELAY OTEL_BSP_MAX_QUEUE_SIZE OTEL_BSP_MAX_EXPORT_BATCH_SIZE "
    "OTEL_EXPORTER_OTLP_ENDPOINT OTEL_EXPORTER_OTLP_TRACES_ENDPOINT "
    "OTEL_EXPORTER_OTLP_PROTOCOL OTEL_EXPORTER_OTLP_TRACES_PROTOCOL "
    "OTEL_EXPORTER_OTLP_HEADERS OTEL_EXPORTER_OTLP_TRACES_HEADERS "
    "OTEL_EXPORTER_OTLP_TIMEOUT OTEL_EXPORTER_OTLP_TRACES_TIMEOUT "
    "OTEL_EXPORTER_OTLP_COMPRESSION OTEL_EXPORTER_OTLP_TRACES_COMPRESSION "
    "OTEL_EXPORTER_OTLP_CERTIFICATE OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE"
)
_HASHES: Final = frozenset({private.KEY})
_OUTPUT: Final = {"PYTHONIOENCODING": "utf-8:backslashreplace"}
"""What such a process writes is read as UTF-8, and print() in a hook must not fail a request."""

WAITING: Final = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "400",
    "OPENBLAS_THREAD_TIMEOUT": "16",
}
"""Unless somebody sets them: threads of OpenMP and OpenBLAS soon sleep while they wait for work.

By default they spin (GNU's OpenMP 300,000 times, OpenBLAS for 2**26 cycles), which takes the
processor from other threads where processes share few cores, or a container has a limit. Threads
that sleep at once make a gradient boosting a third slower on an idle machine; 400 turns do not, and
take little from others (`benchmarks/waiting.py`).
"""

_SPARK: Final = frozenset(
    {
        *("HADOOP_CONF_DIR", "JAVA_HOME", "PYSPARK_DRIVER_PYTHON", "PYSPARK_PYTHON"),
        *("SPARK_CONF_DIR", "SPARK_HOME", "YARN_CONF_DIR"),
        # Of a command that spark-submit started: the JVM with the driver.
        *("PYSPARK_GATEWAY_PORT", "PYSPARK_GATEWAY_SECRET", "PYSPARK_PIN_THREAD"),
    }
)
_SERVING: Final = _SYSTEM | _PYTHON | _COMPUTING
_WORKING: Final = _SERVING | _NETWORK | _CACHES


def of_user_code(environment: Mapping[str, str], named: Iterable[str] = ()) -> dict[str, str]:
    """Return the variables for training, scoring and tests, which may fetch what they need.

    Args:
        environment: of the command.
        named: what `model.environment` adds, by exact name.
    """
    return _kept(environment, _WORKING | frozenset(named))


def of_spark(environment: Mapping[str, str], named: Iterable[str] = ()) -> dict[str, str]:
    """Return the variables for a session of Spark: those of user code, and where Spark is."""
    return _kept(environment, _WORKING | _SPARK | frozenset(named))


def of_serving(
    environment: Mapping[str, str], log: str = "", *, hashes: bool = False
) -> dict[str, str]:
    """Return the variables for a process that serves a bundle, and for its proxy.

    Args:
        environment: of the command.
        log: where predictions are logged; for PostgreSQL its own variables are added.
        hashes: whether columns are logged as a hash, which needs the key.
    """
    is_database = log.startswith(("postgresql://", "postgres://"))
    names = _SERVING | (_POSTGRES if is_database else frozenset())
    return _kept(environment, names | (_HASHES if hashes else frozenset()))


def of_supervisor(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for what starts replicas later, wherever these will log."""
    return _kept(environment, _SERVING | _POSTGRES | _HASHES | _TRACES)


def of_traces(environment: Mapping[str, str]) -> dict[str, str]:
    """Return OpenTelemetry's variables, for a replica and no other process that serves."""
    return {name: value for name, value in environment.items() if name in _TRACES}


def _kept(environment: Mapping[str, str], names: frozenset[str]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in environment.items()
        # Proxies are written in small letters, too; on Windows case means nothing.
        if name in names or name.upper() in names
    }
    return waiting(kept) | kept | _OUTPUT


def waiting(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what to set beside an environment so that waiting threads sleep, unless it says.

    A count of turns would undo a policy that somebody chose, which it goes before.
    """
    has_policy = "OMP_WAIT_POLICY" in environment
    return {
        name: value
        for name, value in WAITING.items()
        if name not in environment and not (has_policy and name == "GOMP_SPINCOUNT")
    }
