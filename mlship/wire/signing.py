"""Who signs the records of a command, and whose records it counts."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
from msgspec import structs

from mlship.adapters.checkout import repository
from mlship.adapters.keys import VARIABLE, Keys, MachineSigning, UserMemory, Verifier
from mlship.config import trust as settings
from mlship.config.allowed_signers import NOBODY, AllowedSigners, load
from mlship.config.project import Config
from mlship.domain.checkpoint import FORGETFUL
from mlship.domain.digests import Digest
from mlship.domain.dsse import Signing
from mlship.domain.public_keys import key_id
from mlship.domain.trust import OPEN, SCOPES, Signatures, Signer, Trust
from mlship.errors import NotFoundError

THIS_MACHINE: Final = "this machine"


class OwnKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that signs records here.

    Attributes:
        name: for it in mlship.yaml.
        public: the public key.
        id: of the key, as records have it.
        where: the file or the variable with the private key.
        trusted: the names of the signers who have it.
    """

    name: str
    public: str
    id: Digest
    where: str
    trusted: tuple[str, ...] = ()


def _signing(config: Config, environment: Mapping[str, str], *, shared: bool) -> Signing | None:
    """Return what signs records; `None` for a shared ledger if nobody gave this machine a key."""
    keys = Keys(config.name, environment)
    return keys.own() or (None if shared else MachineSigning(keys))


def trust(
    config: Config,
    environment: Mapping[str, str],
    people: AllowedSigners = NOBODY,
    *,
    shared: bool,
) -> Trust:
    """Return whose records count: a ledger of this machine's own trusts this machine, too.

    A key that mlship.yaml names is what it says there, also if people have it.

    Raises:
        ConfigError: a key of this machine cannot be read.
    """
    named = settings.signers(config.trust)
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
        unsigned = shared and not named
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
    return Signatures(
        signing=by or _signing(config, environment, shared=shared),
        trust=lambda: trust(config, environment, people(), shared=shared),
        verify=Verifier(environment),
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


def own(config: Config, environment: Mapping[str, str], *, shared: bool) -> OwnKey:
    """Return the key that signs records here.

    Raises:
        NotFoundError: none does.
        ConfigError: it cannot be read.
    """
    keys = Keys(config.name, environment)
    for key, where in ((keys.own(), keys.where), (keys.of_machine(), str(keys.machine))):
        if key is not None and (where != str(keys.machine) or not shared):
            trusted = trust(config, environment, shared=shared)
            return _own(config, key.public, where, trusted)
    message = "this machine has no key of its own yet: it is made with the first record"
    if shared:
        message = "records of this project's shared ledger are not signed here: there is no key"
    raise NotFoundError(message, hint=f"run `mlship keys new`, or set {VARIABLE}")


def _own(config: Config, public: str, where: str, trusted: Trust = OPEN) -> OwnKey:
    names = tuple(signer.name for signer in trusted.signers if signer.key == public)
    name = names[0] if names and names[0] in config.trust.signers else "ci"
    return OwnKey(name=name, public=public, id=key_id(public), where=where, trusted=names)
