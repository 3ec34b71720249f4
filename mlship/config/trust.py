"""The section `trust` of mlship.yaml: whose evidence counts."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from mlship.config.texts import Name
from mlship.domain.trust import KEY, SCOPES, Scope, Signer


class SignerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody who signs evidence."""

    key: Annotated[
        str,
        Meta(
            pattern=KEY,
            description="the public key, which `mlship keys show` prints",
            extra={"form": "ed25519: and 32 bytes in base64"},
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


class TrustConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose evidence counts. A ledger of this machine's own trusts this machine in any case."""

    signers: Annotated[
        dict[Name, SignerConfig],
        Meta(description="by name; without any, a shared ledger counts every record"),
    ] = {}
    unsigned: Annotated[
        bool | None,
        Meta(
            description="whether records without a signature count; default: only those of a "
            "shared ledger whose signers are not named"
        ),
    ] = None
    attested: Annotated[
        dict[str, Name],
        Meta(
            description="further statements that an image must have before it runs: the name of "
            "the signer, by the type of the statement"
        ),
    ] = {}


def signers(trust: TrustConfig) -> tuple[Signer, ...]:
    """Return the signers that mlship.yaml names."""
    return tuple(
        Signer(name=name, key=signer.key, may=frozenset(signer.may), until=signer.until)
        for name, signer in trust.signers.items()
    )
