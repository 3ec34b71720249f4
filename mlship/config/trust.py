"""The section `trust` of mlship.yaml: whose evidence counts."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from mlship.config.texts import Name
from mlship.domain.identity import REF, WORKFLOW, Workflow
from mlship.domain.sessions import WorkflowSigner
from mlship.domain.trust import KEY, SCOPES, Scope, Signer


class SignerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody who signs evidence."""

    key: Annotated[
        Annotated[str, Meta(pattern=KEY, extra={"form": "ed25519: and 32 bytes in base64"})] | None,
        Meta(description="the public key, which `mlship keys show` prints; or else `workflow`"),
    ] = None
    workflow: Annotated[
        Annotated[
            str,
            Meta(pattern=WORKFLOW, extra={"form": "OWNER/REPOSITORY/.github/workflows/FILE.yml"}),
        ]
        | None,
        Meta(
            description="a workflow of GitHub, such as ada/iris/.github/workflows/main.yml: its "
            "jobs sign with keys of their own, which GitHub's identity attests"
        ),
    ] = None
    ref: Annotated[
        Annotated[str, Meta(pattern=REF, extra={"form": "refs/heads/BRANCH"})] | None,
        Meta(
            description="the branch that the workflow runs for, such as refs/heads/main; "
            "refs/heads/release/* for each with that beginning. Required with `workflow`"
        ),
    ] = None
    environment: Annotated[
        str | None,
        Meta(description="environment of the workflow's jobs, such as production; default: any"),
    ] = None
    repository_id: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="number of the workflow's repository, which another one of its name does "
            "not have: `gh api repos/OWNER/REPOSITORY --jq .id`"
        ),
    ] = None
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

    def __post_init__(self) -> None:
        """Check that it is one signer.

        Raises:
            ValueError: it is none, or two.
        """
        if (self.key is None) == (self.workflow is None):
            raise ValueError("A signer needs exactly one of `key` and `workflow`")
        if self.workflow is not None and self.ref is None:
            raise ValueError("`workflow` needs `ref`, such as refs/heads/main")
        if self.key is not None and (self.ref or self.environment or self.repository_id):
            raise ValueError("`ref`, `environment` and `repository_id` are for a `workflow`")


class TrustConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose evidence counts. A ledger of this machine's own trusts this machine in any case."""

    signers: Annotated[
        dict[Name, SignerConfig],
        Meta(description="by name; without any, a shared ledger counts every record"),
    ] = {}
    root: Annotated[
        str | None,
        Meta(
            description="file with the roots of Sigstore, which `gh attestation trusted-root` "
            "prints; needed for a signer with `workflow`"
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
        dict[str, Name],
        Meta(
            description="further statements that an image must have before it runs: the name of "
            "the signer, by the type of the statement"
        ),
    ] = {}

    def __post_init__(self) -> None:
        """Check that identities can be verified.

        Raises:
            ValueError: they cannot.
        """
        if self.root is None and any(signer.workflow for signer in self.signers.values()):
            raise ValueError(
                "A signer with `workflow` needs `root`, the file with the roots of Sigstore: "
                "`gh attestation trusted-root > trusted_root.jsonl` writes it"
            )


def signers(trust: TrustConfig) -> tuple[Signer, ...]:
    """Return the signers with a key that mlship.yaml names."""
    return tuple(
        Signer(name=name, key=signer.key, may=frozenset(signer.may), until=signer.until)
        for name, signer in trust.signers.items()
        if signer.key is not None
    )


def workflows(trust: TrustConfig) -> tuple[WorkflowSigner, ...]:
    """Return the signers with a workflow that mlship.yaml names."""
    return tuple(
        WorkflowSigner(
            name=name,
            workflow=Workflow(
                name=signer.workflow,
                ref=signer.ref,
                environment=signer.environment or "",
                repository_id=signer.repository_id or 0,
            ),
            may=frozenset(signer.may),
            until=signer.until,
        )
        for name, signer in trust.signers.items()
        if signer.workflow is not None and signer.ref is not None
    )
