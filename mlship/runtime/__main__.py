"""`python -m mlship.runtime serve|predict`: serve a bundle, or predict offline."""

import argparse
import contextlib
import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from mlship.domain import digests, private
from mlship.domain.batch_work import BeamOption
from mlship.domain.bundle import CODE
from mlship.domain.private import Rule
from mlship.errors import ConfigError, MlshipError, RowError

_MOST_WORKERS = 256
_LONGEST = 86_400.0
_MOST_CACHED = 1_000_000


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command; return its exit code. The last line on stderr is the error.

    The environment has the options that differ between the places where an image runs.
    """
    options = _parser(environment).parse_args(arguments)
    _enter(options)
    match options.command:
        case "predict":
            return _predict(options)
        case "work":
            return _work(options)
        case "batch":
            return _batch(options)
        case _:
            return _serve(options)


def _enter(options: argparse.Namespace) -> None:
    """Work in the bundle's own code, so that a relative path is that of a file of the bundle.

    Wherever a bundle runs, it sees the same files: not what lies in the folder that it was started
    in, which is no part of the release.
    """
    options.bundle = options.bundle.absolute()
    if options.command == "serve" and "://" not in options.log:
        options.log = str(Path(options.log).absolute())
    if options.command == "serve" and options.spool is not None:
        options.spool = options.spool.absolute()
    if options.command == "serve" and options.api_keys is not None:
        options.api_keys = options.api_keys.absolute()
    folders = (options.bundle / CODE, options.bundle)
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is not None:
        os.chdir(folder)


def _serve(options: argparse.Namespace) -> int:
    from mlship.runtime.options import Identity, Options
    from mlship.runtime.serve import serve

    try:
        release = digests.parse(options.release)
        identity = Identity(
            release=release,
            name=options.name_of_release or f"model@{digests.short(release)}",
            slot=options.slot,
        )
        serve(
            Options(
                bundle=options.bundle,
                identity=identity,
                expected=digests.parse(options.digest) if options.digest else None,
                host=options.host,
                port=options.port,
                grpc_port=options.grpc_port,
                api_keys=options.api_keys,
                metrics_port=options.metrics_port,
                log=options.log,
                spool=options.spool,
                spool_mb=options.spool_mb,
                shutdown_seconds=options.shutdown_seconds,
                columns=_columns(options.log_columns),
                hash_key=os.environ.get(private.KEY, ""),
                access_log=options.access_log == "json",
                workers=options.workers,
                timeout=options.timeout,
                cache_rows=options.cache_rows,
            )
        )
    except MlshipError as error:
        hint = f" next: {error.hint}\n" if error.hint else ""
        sys.stderr.write(f"error: {error.message}\n{hint}")
        return error.exit_code
    return 0


def _work(options: argparse.Namespace) -> int:
    from mlship.runtime.worker import work

    expected = digests.parse(options.digest) if options.digest else None
    work(options.bundle, expected, options.link, options.server)
    return 0


def _batch(options: argparse.Namespace) -> int:
    if options.spark is not None:
        from mlship.runtime.batches import spark

        spark.work(options.bundle, msgspec.json.decode(options.spark, type=dict[str, str]))
        return 0
    if options.beam is not None:
        from mlship.runtime.batches import beam

        beam.work(options.bundle, msgspec.json.decode(options.beam, type=dict[str, BeamOption]))
        return 0
    from mlship.runtime.batches.work import work

    work()
    return 0


def _predict(options: argparse.Namespace) -> int:
    from mlship.runtime.predict import predict

    try:
        expected = digests.parse(options.digest) if options.digest else None
        if options.apart:
            _stay_apart(options.apart.absolute(), options.bundle)
        predict(options.bundle, expected, each=options.each)
    except MlshipError as error:
        report: dict[str, str | int] = {
            "error": type(error).__name__,
            "message": error.message,
            "hint": error.hint,
        }
        if isinstance(error, RowError):
            report |= {"row": error.row, "reason": error.reason}
        sys.stderr.write(f"{msgspec.json.encode(report).decode()}\n")
        return error.exit_code
    return 0


def _stay_apart(project: Path, bundle: Path) -> None:
    """Open no file of a project that is not in the bundle: a replica would not have it."""
    projects = {str(project), os.path.realpath(project)}
    known = {str(bundle), os.path.realpath(bundle), sys.prefix, sys.base_prefix, *sys.path}
    known.add(str(Path(__file__).parents[1]))
    allowed = [folder for folder in known if folder and folder not in projects]

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if event != "open" or not isinstance(arguments[0], str | bytes):
            return
        if isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE == os.O_WRONLY:
            return
        path = os.path.abspath(os.fsdecode(arguments[0]))  # noqa: PTH100 (links stay what they are)
        if any(map(Path(path).is_relative_to, allowed)):
            return
        if any(map(Path(path).is_relative_to, projects)):
            message = f"{path} is not in the bundle: name it in model.include"
            raise FileNotFoundError(errno.ENOENT, message)

    sys.addaudithook(hear)


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mlship.runtime", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="answer requests over HTTP")
    serve.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    serve.add_argument("--release", required=True, help="id of the release, sha256:...")
    serve.add_argument("--name-of-release", default="", help="its name, such as iris@3f9a...")
    slot, log = environment.get("MLSHIP_SLOT"), environment.get("MLSHIP_LOG")
    serve.add_argument(
        "--slot",
        default=slot,
        required=slot is None,
        help="slot for the log and the metrics; default: $MLSHIP_SLOT",
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on")
    serve.add_argument("--port", type=int, required=True, help="port to listen on")
    serve.add_argument(
        "--grpc-port",
        type=int,
        default=environment.get("MLSHIP_GRPC_PORT"),
        help="port for gRPC (Open Inference Protocol); default: $MLSHIP_GRPC_PORT, else none",
    )
    serve.add_argument(
        "--log",
        default=log,
        required=log is None,
        help="folder of the prediction log, or postgresql://user@host/database; default: "
        "$MLSHIP_LOG",
    )
    _log_options(serve, environment)
    _access_options(serve, environment)
    serve.add_argument(
        "--shutdown-seconds", type=float, default=10.0, help="time limit to finish open requests"
    )
    serve.add_argument("--digest", default="", help="expected digest of the bundle")
    worker = commands.add_parser("work", help="compute for a server, its parent")
    _worker_options(serve, worker, environment)
    _batch_options(
        commands.add_parser("batch", help="score parts of a batch, as requests on stdin say")
    )
    offline = commands.add_parser(
        "predict", help="read rows from stdin and write outputs to stdout, as JSON"
    )
    offline.add_argument("bundle", type=Path, help="folder of the bundle")
    offline.add_argument("--digest", default="", help="expected digest of the bundle")
    offline.add_argument(
        "--apart", type=Path, help="a project of whose files only those in the bundle may be read"
    )
    offline.add_argument("--each", action="store_true", help="write refusals beside outputs")
    return parser


def _batch_options(batch: argparse.ArgumentParser) -> None:
    batch.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    batch.add_argument("--spark", help="settings of Spark as JSON: requests are its tasks")
    batch.add_argument("--beam", help="options of Beam as JSON: requests are its elements")


def _columns(text: str) -> dict[str, Rule]:
    try:
        return msgspec.json.decode(text, type=dict[str, Rule])
    except msgspec.DecodeError as error:
        message = f"invalid --log-columns or MLSHIP_LOG_COLUMNS: {error}"
        raise ConfigError(message, hint='use such as {"email": "never"}') from error


def _log_options(serve: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    serve.add_argument(
        "--log-columns",
        default=environment.get("MLSHIP_LOG_COLUMNS", "{}"),
        help='columns that are not logged, or only as a hash, as JSON: {"email": "never", '
        f'"customer": "hash"}}; a hash needs a key in ${private.KEY}; default: '
        "$MLSHIP_LOG_COLUMNS",
    )
    serve.add_argument(
        "--access-log",
        type=_access_log,
        default=environment.get("MLSHIP_ACCESS_LOG") or "off",
        help="json for a line of JSON a request on stdout, or off; default: $MLSHIP_ACCESS_LOG, "
        "else off",
    )
    spool = environment.get("MLSHIP_SPOOL")
    serve.add_argument(
        "--spool",
        type=Path,
        default=Path(spool) if spool else None,
        help="folder for predictions while the database of --log is away; by default, requests "
        "are refused then; default: $MLSHIP_SPOOL",
    )
    serve.add_argument(
        "--spool-mb",
        type=int,
        default=environment.get("MLSHIP_SPOOL_MB", "256"),
        help="size in MB at which a spool is full and requests are refused; default: "
        "$MLSHIP_SPOOL_MB, else 256",
    )


def _access_options(serve: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    keys = environment.get("MLSHIP_API_KEYS")
    serve.add_argument(
        "--api-keys",
        type=Path,
        default=Path(keys) if keys else None,
        help="file that `mlship api-keys` writes: only requests with one of its keys are answered, "
        "except probes; default: $MLSHIP_API_KEYS, else all are",
    )
    serve.add_argument(
        "--metrics-port",
        type=int,
        default=environment.get("MLSHIP_METRICS_PORT"),
        help="port for /metrics; default: $MLSHIP_METRICS_PORT, else that of requests",
    )


def _worker_options(
    serve: argparse.ArgumentParser,
    worker: argparse.ArgumentParser,
    environment: Mapping[str, str],
) -> None:
    serve.add_argument(
        "--workers",
        type=_number(1, _MOST_WORKERS),
        default=environment.get("MLSHIP_WORKERS", "1"),
        help="number of processes that compute; default: $MLSHIP_WORKERS, else 1",
    )
    serve.add_argument(
        "--timeout",
        type=_seconds,
        default=environment.get("MLSHIP_TIMEOUT", "30"),
        help="seconds until a request must be computed; the header mlship-timeout may shorten it; "
        "default: $MLSHIP_TIMEOUT, else 30",
    )
    serve.add_argument(
        "--cache-rows",
        type=_number(0, _MOST_CACHED),
        default=environment.get("MLSHIP_CACHE_ROWS", "0"),
        help="number of rows whose outputs are kept in memory, to answer them again without the "
        "model; default: $MLSHIP_CACHE_ROWS, else 0",
    )
    worker.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    worker.add_argument("--digest", default="", help="expected digest of the bundle")
    worker.add_argument("--link", type=int, required=True, help="file descriptor of the link")
    worker.add_argument("--server", type=int, required=True, help="process id of the server")


def _access_log(text: str) -> str:
    if text not in ("json", "off"):
        message = f"{text[:40]!r} is neither json nor off (--access-log or MLSHIP_ACCESS_LOG)"
        raise argparse.ArgumentTypeError(message)
    return text


def _number(least: int, most: int) -> Callable[[str], int]:
    """Return what reads a whole number within bounds, of which none is below 0."""

    def read(text: str) -> int:
        number = int(text) if text.isdecimal() else -1
        if not least <= number <= most:
            message = f"{text} is not a number from {least} to {most}"
            raise argparse.ArgumentTypeError(message)
        return number

    return read


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) <= _LONGEST:
            return float(text)
    message = f"{text} is not a number of seconds up to {_LONGEST:g}"
    raise argparse.ArgumentTypeError(message)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
