"""Who signs the records of a command, and whose records it counts."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
from msgspec import structs

from mlship.adapters.checkout import repository
from mlship.adapters.keys import (
    VARIABLE,
    Bundles,
    Kept,
    Keys,
    MachineSigning,
    PrivateKey,
    SessionKey,
    UserMemory,
    Verifier,
)
from mlship.config import trust as settings
from mlship.config.allowed_signers import NOBODY, AllowedSigners, load
from mlship.config.project import Config
from mlship.domain import sessions
from mlship.domain.checkpoint import FORGETFUL
from mlship.domain.digests import Digest
from mlship.domain.dsse import Signing
from mlship.domain.public_keys import key_id
from mlship.domain.signatures import Signatures
from mlship.domain.trust import OPEN, SCOPES, Signer, Trust, unproven
from mlship.errors import ConfigError, NotFoundError

THIS_MACHINE: Final = "this machine"


class OwnKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that signs records here.

    Attributes:
        name: for it in mlship.yaml.
        public: the public key.
        id: of the key, as records have it.
        where: the file or the variable with the private key.
        trusted: the names of the signers who have it.
        ends: whether it is that of a job, which no other job has.
    """

    name: str
    public: str
    id: Digest
    where: str
    trusted: tuple[str, ...] = ()
    ends: bool = False


def _signing(config: Config, environment: Mapping[str, str], *, shared: bool) -> Signing | None:
    """Return what signs records; `None` for a shared ledger if nobody gave this machine a key."""
    keys = Keys(config.name, environment)
    if session := session_of(config, environment):
        return session.key()
    return keys.own() or (None if shared else MachineSigning(keys))


def session_of(config: Config, environment: Mapping[str, str]) -> SessionKey | None:
    """Return the key of this job, once it is attested; `None` if another key signs here."""
    session = SessionKey(config.name, environment)
    is_used = not environment.get(VARIABLE) and session.bundle()
    return session if is_used else None


def bundles(config: Config, environment: Mapping[str, str], root: Path) -> Bundles:
    """Return what verifies bundles of identities, by the roots that the project pins.

    Raises:
        ConfigError: it pins none.
    """
    if config.trust.root is None:
        message = "mlship.yaml names no roots of Sigstore, which bundles are verified against"
        hint = "run `gh attestation trusted-root > trusted_root.jsonl` and name it as trust.root"
        raise ConfigError(message, hint=hint)
    return Bundles(root / config.trust.root, Kept(environment))


def signer_of(
    config: Config, environment: Mapping[str, str], root: Path, home: str, bundle: str
) -> Signer:
    """Return as whom `trust` counts this job, by the bundle of its key.

    Raises:
        IntegrityError: as nobody.
        ConfigError: there is no key, or bundles cannot be verified here.
    """
    data, key = bundle.encode(), SessionKey(config.name, environment).key()
    attested = bundles(config, environment, root)(data)
    named = settings.workflows(config.trust)
    return sessions.signer(named, attested, key.key, config.name, home)


def of_job(
    config: Config, environment: Mapping[str, str], root: Path, home: str
) -> tuple[Signer, ...]:
    """Return as whom `trust` counts this job; nothing if no key of its own signs here.

    Raises:
        IntegrityError: its workflow is none that mlship.yaml names.
    """
    session = session_of(config, environment) if settings.workflows(config.trust) else None
    if session is None:
        return ()
    return (signer_of(config, environment, root, home, session.bundle()),)


def trust(
    config: Config,
    environment: Mapping[str, str],
    people: AllowedSigners = NOBODY,
    job: Sequence[Signer] = (),
    *,
    shared: bool,
) -> Trust:
    """Return whose records count: a ledger of this machine's own trusts this machine, too.

    A key that mlship.yaml names is what it says there, also if people have it.

    Raises:
        ConfigError: a key of this machine cannot be read.
    """
    named = (*settings.signers(config.trust), *job)
    own = () if shared else Keys(config.name, environment).public()
    # On its own ledger, this machine may say everything, whatever its key may elsewhere.
    named = tuple(
        structs.replace(each, may=frozenset(SCOPES), until=None) if each.key in own else each
        for each in named
    )
    known = {each.key for each in named}
    here = (Signer(name=THIS_MACHINE, key=key) for key in own if key not in known)
    signers: dict[str, Signer] = {}
    remarks = list(people.left_out)
    for each in (*named, *here, *people.signers):
        first = signers.setdefault(each.key, each)
        if first is not each:
            remarks.append(f"signer {each.name} is not used: its key is that of {first.name}")
    unsigned, names = config.trust.unsigned, config.trust.names
    if unsigned is None:
        unsigned = shared and config.trust.is_open
    return Trust(
        signers=tuple(signers.values()),
        unsigned=unsigned,
        names=unsigned or not shared if names is None else names,
        remarks=tuple(remarks),
    )


def allowed_signers(config: Config, root: Path) -> AllowedSigners:
    """Return the people of the file that `trust.allowed_signers` names.

    Raises:
        ConfigError: it cannot be used.
    """
    path = config.trust.allowed_signers
    return NOBODY if path is None else load(path, root, repository.top_of(root))


def signatures(
    config: Config,
    environment: Mapping[str, str],
    root: Path,
    home: str,
    by: Signing | None = None,
    *,
    shared: bool,
) -> Signatures:
    """Return who signs the records of a command, and whose records it counts.

    Args:
        config: of the project.
        environment: the environment variables.
        root: the project's folder.
        home: of the project.
        by: signs instead of what signs here otherwise.
        shared: whether other machines write to the ledger, too.

    Raises:
        ConfigError: the key cannot be read.
    """
    people = cache(lambda: allowed_signers(config, root))
    where = (config.ledger.uri, config.store.uri, None if shared else str(root.resolve()))
    ledger = (config.name, home, config.ledger.kind, *where)
    # One in a registry remembers by itself, and its lists may be late. One of which unsigned
    # records count is another job's data, and each run has another one.
    forgets = config.ledger.kind == "registry" or config.trust.unsigned
    jobs, session = settings.workflows(config.trust), session_of(config, environment)
    prove = sessions.proven(jobs, bundles(config, environment, root)) if jobs else unproven
    return Signatures(
        signing=by or _signing(config, environment, shared=shared),
        trust=lambda: trust(
            config, environment, people(), of_job(config, environment, root, home), shared=shared
        ),
        verify=Verifier(environment),
        prove=prove,
        identity=session.bundle() if session and by is None else "",
        memory=FORGETFUL if forgets else UserMemory(environment, ledger),
    )


def new(config: Config, environment: Mapping[str, str]) -> OwnKey:
    """Make a key for a project.

    Raises:
        ConflictError: there is one.
        UnavailableError: its folder cannot be written.
    """
    keys = Keys(config.name, environment)
    return _own(config, keys.new().public, str(keys.project))


def own(config: Config, environment: Mapping[str, str], root: Path, *, shared: bool) -> OwnKey:
    """Return the key that signs records here.

    Raises:
        NotFoundError: none does.
        ConfigError: it cannot be read.
    """
    keys, session = Keys(config.name, environment), session_of(config, environment)
    if session is not None:
        job = of_job(config, environment, root, home_of(config, root))
        trusted = trust(config, environment, job=job, shared=shared)
        key = _own(config, session.key().public, str(session.folder), trusted)
        return msgspec.structs.replace(key, ends=True)
    for each, where in ((keys.own(), keys.where), (keys.of_machine(), str(keys.machine))):
        if each is not None and (where != str(keys.machine) or not shared):
            trusted = trust(config, environment, shared=shared)
            return _own(config, each.public, where, trusted)
    message = "this machine has no key of its own yet: it is made with the first record"
    if shared:
        message = "records of this project's shared ledger are not signed here: there is no key"
    raise NotFoundError(message, hint=f"run `mlship keys new`, or set {VARIABLE}")


def new_session(
    config: Config, environment: Mapping[str, str], root: Path
) -> tuple[PrivateKey, Path]:
    """Make a key for this job; return it, and the file with what the job lets GitHub attest.

    Raises:
        ConfigError: this is no job.
        UnavailableError: its folder cannot be written.
    """
    return SessionKey(config.name, environment).new(home_of(config, root))


def keep_session(config: Config, environment: Mapping[str, str], root: Path, bundle: str) -> Signer:
    """Let the key of this job sign, if its bundle is valid; return as whom.

    Raises:
        IntegrityError: the bundle is refused.
        ConfigError: there is no key, or bundles cannot be verified here.
        UnavailableError: its folder cannot be written.
    """
    signer = signer_of(config, environment, root, home_of(config, root), bundle)
    SessionKey(config.name, environment).keep(bundle)
    return signer


def home_of(config: Config, root: Path, known: Mapping[str, str] | None = None) -> str:
    """Return the home of a project, see `mlship.domain.home`; `known` are git's settings there."""
    return config.home or repository.home(root, known)


def _own(config: Config, public: str, where: str, trusted: Trust = OPEN) -> OwnKey:
    names = tuple(signer.name for signer in trusted.signers if signer.key == public)
    name = names[0] if names and names[0] in config.trust.named else "ci"
    return OwnKey(name=name, public=public, id=key_id(public), where=where, trusted=names)
