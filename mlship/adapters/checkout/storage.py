"""Data that DVC keeps, fetched from its storage by a job that holds the credentials.

The program `dvc` runs in a repository of its own, which is made here from MD5s alone. So nothing
that a branch can change has a say in it: neither `.dvc/config`, where the address of the storage
is, nor `dvc.yaml`, imports of other repositories, or the paths in a manifest.
"""

import configparser
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from mlship.adapters.checkout import dvc, git
from mlship.adapters.checkout.dvc import Pointer
from mlship.config.project import Config
from mlship.domain.environment import of_user_code
from mlship.domain.storage import GOOGLE, NOTHING, Kept, Storage, storage
from mlship.errors import (
    ConfigError,
    IntegrityError,
    NotFoundError,
    ProjectError,
    UnavailableError,
)

_HOME: Final = ".dvc"
_TAIL: Final = 400


def kept_by_dvc(root: Path, top: Path, config: Config) -> Kept:
    """Return which data of a project DVC keeps, and where.

    Args:
        root: the project's folder.
        top: of its repository.
        config: of the project.

    Raises:
        ProjectError: a pointer or a lock file of DVC cannot be read.
        ConfigError: `workflows.dvc` names a path that DVC does not keep.
    """
    pointers = pointers_of(root, config)
    if not pointers:
        return NOTHING
    files = tuple(dict.fromkeys(os.path.relpath(pointer.file, root) for _, pointer in pointers))
    kept = Kept(files=tuple(name for name, _ in pointers), pointers=files)
    try:
        return Kept(files=kept.files, pointers=kept.pointers, storage=_configured(root, top))
    except ConfigError as error:
        reason = f"{error.message}; {error.hint}"
        return Kept(files=kept.files, pointers=kept.pointers, reason=reason)


def pointers_of(root: Path, config: Config) -> list[tuple[str, Pointer]]:
    """Return the paths that mlship.yaml names and DVC keeps, each with what stands for it.

    Raises:
        ProjectError: a pointer or a lock file of DVC cannot be read.
        ConfigError: `workflows.dvc` names a path that DVC does not keep.
    """
    more = config.workflows.dvc if isinstance(config.workflows.dvc, tuple) else ()
    named = [config.data.train, config.data.test, config.workload]
    found: list[tuple[str, Pointer]] = []
    for name in dict.fromkeys([*(name for name in named if name and "://" not in name), *more]):
        pointer = _pointer(root, name)
        if pointer is not None:
            found.append((name, pointer))
        elif name in more:
            message = f"mlship.yaml: workflows.dvc: {name} is not kept by DVC"
            raise ConfigError(
                message, hint=f"dvc add {shlex.quote(name)}, or remove it from the list"
            )
    return found


def _pointer(root: Path, name: str) -> Pointer | None:
    path = root / name
    if path.suffix == dvc.SUFFIX:
        return dvc.read(path, name) if path.is_file() else None
    pointer = dvc.pointer_to(root, path)
    if pointer is None:
        pointer = dvc.output_of(root, path)
        # An output with `cache: false` is a file of the commit.
        if pointer and git.run(root, "ls-files", "--", f":(literal){name}", check=False):
            return None
    return pointer


def fetch(
    root: Path,
    top: Path,
    config: Config,
    remote: Storage,
    into: Path,
    environment: Mapping[str, str],
) -> tuple[str, ...]:
    """Fetch the data of a project that DVC keeps, and return their paths.

    Args:
        root: the project's folder.
        top: of its repository; the paths in `into` are those from there.
        config: of the project.
        remote: the storage.
        into: a new folder for the files.
        environment: the variables of the command, with the storage's secrets.

    Raises:
        ConfigError: there are no credentials, the folder exists, or DVC is not installed.
        ProjectError: a pointer cannot be read, or is outside of the repository.
        NotFoundError: DVC keeps nothing that mlship.yaml names, or the storage does not have it.
        IntegrityError: what came is not what the pointer stands for.
        UnavailableError: the storage does not answer, or its folder is not on this machine.
    """
    _check(remote, into, environment)
    pointers = [pointer for _, pointer in pointers_of(root, config)]
    if not pointers:
        raise NotFoundError(
            NOTHING.reason, hint="run `mlship init` anew: no job needs to fetch data"
        )
    places = [_place(pointer, top) for pointer in pointers]
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".dvc-", dir=into.parent) as name:
        home = Path(name)
        _write(home, pointers, remote, environment)
        (home / "files").mkdir()
        _run(home, remote, environment)
        for pointer, place in zip(pointers, places, strict=True):
            _take(home / _HOME / "cache", pointer, home / "files" / place, remote)
        (home / "files").rename(into)
    return tuple(dict.fromkeys(map(str, places)))


def _check(remote: Storage, into: Path, environment: Mapping[str, str]) -> None:
    if into.exists():
        raise ConfigError(f"{into} exists", hint="name a new folder for the data")
    if remote.kind == "local" and not Path(remote.url).is_dir():
        message = f"the storage of DVC, the folder {remote.url}, is not on this machine"
        hint = "mount it on the runner, or use a remote of DVC that jobs reach"
        raise UnavailableError(message, hint=hint)
    if remote.kind == "gs" and environment.get(GOOGLE):
        return
    missing = [name for name in remote.secrets if not environment.get(name, "").strip()]
    if missing:
        message = f"no credentials for {remote.url}: {', '.join(missing)} not set"
        hint = "set the secrets in the environment `data` of the repository. A fork's pull request "
        hint += "gets none; there, whoever may read the storage runs `dvc pull`"
        raise ConfigError(message, hint=hint)


def _place(pointer: Pointer, top: Path) -> PurePosixPath:
    """Return the path of what a pointer stands for, from the top of the repository."""
    target = os.path.normpath(pointer.target)
    place = PurePosixPath(os.path.relpath(target, top))
    if place.parts[:1] in ((), ("..",)) or ".git" in place.parts:
        message = f"{pointer.name} stands for {place}, which is no file of the repository"
        raise ProjectError(message, hint="keep data below the top of the repository")
    return place


def _write(
    home: Path, pointers: Sequence[Pointer], remote: Storage, environment: Mapping[str, str]
) -> None:
    """Make a repository of DVC with these pointers and this remote, and nothing else."""
    folder = home / _HOME
    folder.mkdir(mode=0o700)
    options = {"url": remote.url, **remote.options}
    if remote.kind == "http" and remote.secrets:
        options["password"] = environment["DVC_PASSWORD"].strip()
    if remote.kind == "ssh":
        options["keyfile"] = str(_secret(folder / "key", environment["DVC_SSH_KEY"]))
    lines = ["[core]", "no_scm = true", "analytics = false", "remote = storage"]
    lines += ["['remote \"storage\"']"]
    lines += [f"{name} = {_quoted(value)}" for name, value in options.items()]
    _secret(folder / "config", "\n".join(lines))
    for number, pointer in enumerate(pointers):
        digest = pointer.md5 + (".dir" if pointer.is_folder else "")
        version = "" if pointer.is_legacy else "  hash: md5\n"
        text = f"outs:\n- md5: {digest}\n{version}  path: '{number}'\n"
        (home / f"{number}.dvc").write_text(text)


def _secret(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(f"{text.strip()}\n", "utf-8")
    return path


def _quoted(value: str) -> str:
    """Return a value as ConfigObj reads it back."""
    quote = next((mark for mark in ('"', "'", '"""') if mark not in value), "")
    if not quote or "\n" in value or "%(" in value:
        message = "the password of DVC's storage cannot be written into a configuration of DVC"
        raise ConfigError(message, hint="choose one without line ends, %( and three quotes")
    return f"{quote}{value}{quote}"


def _run(home: Path, remote: Storage, environment: Mapping[str, str]) -> None:
    program = shutil.which("dvc", path=environment.get("PATH"))
    if program is None:
        extra = f"[{remote.extra}]" if remote.extra else ""
        raise ConfigError("the program dvc is not installed", hint=f"uv tool install dvc{extra}")
    done = subprocess.run(
        [program, "fetch"],
        cwd=home,
        env=_environment(home, remote, environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode == 0:
        return
    said = " ".join(done.stdout.decode("utf-8", "replace").split())
    raise UnavailableError(
        f"dvc could not fetch from {remote.url}: {said[-_TAIL:]}",
        hint="`dvc push` what is missing there; else check the secrets, and whether it answers",
    )


def _environment(home: Path, remote: Storage, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of dvc: what programs need, and the credentials of this storage."""
    kept = {
        name: value
        for name, value in of_user_code(environment).items()
        if not name.startswith(("PYTHON", "XDG_"))
    }
    folders = ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR", "HOME")
    kept |= {name: str(home / _HOME / "home") for name in folders}
    kept |= {"DVC_NO_ANALYTICS": "true", "PYTHONIOENCODING": "utf-8:backslashreplace"}
    secrets = {name: environment[name].strip() for name in remote.secrets if environment.get(name)}
    if remote.kind == "s3" and secrets:
        kept["AWS_ACCESS_KEY_ID"] = secrets["DVC_ACCESS_KEY_ID"]
        kept["AWS_SECRET_ACCESS_KEY"] = secrets["DVC_SECRET_ACCESS_KEY"]
    if remote.kind == "azure" and secrets:
        kept["AZURE_STORAGE_CONNECTION_STRING"] = secrets["DVC_AZURE_CONNECTION_STRING"]
    if remote.kind == "gs":
        if environment.get(GOOGLE):
            kept[GOOGLE] = environment[GOOGLE]
        elif secrets:
            key = home / _HOME / "google.json"
            kept[GOOGLE] = str(_secret(key, secrets["DVC_GOOGLE_CREDENTIALS"]))
    return kept


def _take(cache: Path, pointer: Pointer, place: Path, remote: Storage) -> None:
    """Move what a pointer stands for from DVC's cache to its place, file by file."""
    if not pointer.is_folder:
        _link(_object(cache, pointer, pointer.md5), pointer, pointer.md5, place, remote)
        return
    file = _object(cache, pointer, f"{pointer.md5}.dir")
    _expect(file, pointer, pointer.md5, remote, is_legacy=False)
    try:
        manifest = dvc.manifest_of(file.read_bytes())
    except (ValueError, LookupError, TypeError) as error:
        message = f"{pointer.name}: what DVC keeps is not the manifest of a folder"
        raise IntegrityError(message, hint="add the folder to DVC again") from error
    for name, md5 in manifest.items():
        inner = PurePosixPath(name)
        is_inside = bool(inner.parts) and not inner.is_absolute() and ".." not in inner.parts
        if not is_inside or not dvc.is_md5(md5):
            message = f"{pointer.name}: its manifest in {remote.url} names {name[:80]!r}"
            raise IntegrityError(message, hint="add the folder to DVC again")
        _link(_object(cache, pointer, md5), pointer, md5, place / inner, remote)


def _object(cache: Path, pointer: Pointer, md5: str) -> Path:
    folder = cache if pointer.is_legacy else cache / "files" / "md5"
    return folder / md5[:2] / md5[2:]


def _link(file: Path, pointer: Pointer, md5: str, place: Path, remote: Storage) -> None:
    _expect(file, pointer, md5, remote, is_legacy=pointer.is_legacy)
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():  # two pointers name it: a folder and a file in it
        return
    try:
        os.link(file, place)
    except OSError:
        shutil.copyfile(file, place)


def _expect(file: Path, pointer: Pointer, md5: str, remote: Storage, *, is_legacy: bool) -> None:
    if not file.is_file():
        message = f"{remote.url} does not have what {pointer.name} stands for (MD5 {md5})"
        # To DVC, what it may not read is missing too.
        hint = "dvc push, where the data are; if they are in the storage, check the credentials"
        raise NotFoundError(message, hint=hint)
    if dvc.md5_of(file, is_legacy=is_legacy) != md5:
        message = f"{remote.url} has another file than {pointer.name} stands for (MD5 {md5})"
        raise IntegrityError(message, hint="remove it there, then dvc push, where the data are")


def _configured(root: Path, top: Path) -> Storage:
    """Return the remote that the committed `.dvc/config` names.

    Raises:
        ConfigError: there is none, or jobs cannot use it.
    """
    hint = "`dvc remote add --default NAME URL`, then `mlship init` again"
    for folder in (root, *root.parents):
        file = folder / _HOME / "config"
        if file.is_file():
            break
        if folder == top:
            raise ConfigError("DVC has no remote in .dvc/config", hint=hint)
    else:
        raise ConfigError("DVC has no remote in .dvc/config", hint=hint)
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(file.read_text("utf-8"))
    except (configparser.Error, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"cannot read {file}: {error}", hint="correct the file") from error
    remotes = {
        name[len("'remote \"") : -len("\"'")].lower(): {
            key: value.strip().strip("\"'") for key, value in parser[name].items()
        }
        for name in parser.sections()
        if name.startswith("'remote \"") and name.endswith("\"'")
    }
    default = parser.get("core", "remote", fallback="").strip().strip("\"'").lower()
    if not default and len(remotes) == 1:
        default = next(iter(remotes))
    options = remotes.get(default, {})
    if not options.get("url"):
        raise ConfigError("DVC has no default remote in .dvc/config", hint=hint)
    return storage(options["url"], options)
