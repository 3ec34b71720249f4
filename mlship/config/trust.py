"""The section `trust` of mlship.yaml: whose evidence counts."""

from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from mlship.config.texts import Name
from mlship.domain import ssh_keys
from mlship.domain.public_keys import KEY
from mlship.domain.ssh_keys import KIND, LINE
from mlship.domain.trust import SCOPES, Scope, Signer

EMAIL: Final = r"[^\s@,*?!\"\x00-\x1f\x7f]+@[^\s@,*?!\"\x00-\x1f\x7f]+"

Email = Annotated[
    str,
    Meta(pattern=rf"^{EMAIL}(?!\n)$", extra={"form": "an email address, such as ada@example.org"}),
]


class SignerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody who signs evidence."""

    key: Annotated[
        str,
        Meta(
            pattern=rf"{KEY}|^{LINE}(?!\n)$",
            description="the public key, which `mlship keys show` prints; or that of an SSH key: "
            "`ssh-ed25519 AAAA...`, as in `id_ed25519.pub`",
            extra={"form": "ed25519: and 32 bytes in base64, or a line ssh-ed25519 AAAA..."},
        ),
    ]
    may: Annotated[
        tuple[Scope, ...],
        Meta(
            min_length=1,
            description="what the signer's records may be about: `build` (a release was trained, "
            "tested and pushed), `staging`, `production`, `approve` (a person approves)",
        ),
    ] = SCOPES
    until: Annotated[
        Annotated[datetime, Meta(tz=True)] | None,
        Meta(
            description="records of a later time do not count, such as 2027-01-31T00:00:00Z: for a "
            "key that another one replaces"
        ),
    ] = None

    emails: Annotated[
        tuple[Email, ...],
        Meta(
            description="of the person who has the key: approvals that it signs are this person's. "
            "The key of a job has none"
        ),
    ] = ()


class TrustConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose evidence counts. A ledger of this machine's own trusts this machine in any case."""

    signers: Annotated[
        dict[Name, SignerConfig],
        Meta(description="by name; without any, a shared ledger counts every record"),
    ] = {}
    allowed_signers: Annotated[
        str | None,
        Meta(
            description="file in the repository with the SSH keys of people who may approve, in "
            "the form of git's gpg.ssh.allowedSignersFile; only ssh-ed25519 keys of email addresses"
        ),
    ] = None
    names: Annotated[
        bool | None,
        Meta(
            description="whether `mlship approve --by NAME` is enough for an approval, which "
            "nothing verifies; default: only where records need no signature, and for a ledger of "
            "this machine's own"
        ),
    ] = None
    unsigned: Annotated[
        bool | None,
        Meta(
            description="whether records without a signature count; default: only those of a "
            "shared ledger whose signers are not named"
        ),
    ] = None
    attested: Annotated[
        dict[str, str],
        Meta(
            description="statements of other tools that an image must have before it runs: the "
            "file in the project with the public key in PEM, by the type of the statement"
        ),
    ] = {}


def signers(trust: TrustConfig) -> tuple[Signer, ...]:
    """Return the signers that mlship.yaml names."""
    return tuple(
        Signer(
            name=name,
            key=ssh_keys.parse(signer.key) if signer.key.startswith(KIND) else signer.key,
            may=frozenset(signer.may),
            until=signer.until,
            emails=signer.emails,
        )
        for name, signer in trust.signers.items()
    )
