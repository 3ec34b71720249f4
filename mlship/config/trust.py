"""The section `trust` of mlship.yaml: whose evidence counts."""

from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from mlship.config.texts import Name
from mlship.domain import emails, ssh_keys
from mlship.domain.identity import REF, WORKFLOW, Workflow
from mlship.domain.public_keys import KEY
from mlship.domain.sessions import WorkflowSigner
from mlship.domain.ssh_keys import KIND, LINE
from mlship.domain.trust import SCOPES, Scope, Signer

EMAIL: Final = r"[^ @,*?!\"]+@[^ @,*?!\"]+"
"""The form. `mlship.domain.emails.fault` names what else such a text may not have."""

Email = Annotated[
    str,
    Meta(pattern=rf"^{EMAIL}$", extra={"form": "an email address, such as ada@example.org"}),
]


class SignerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody who signs evidence."""

    key: Annotated[
        Annotated[
            str,
            Meta(
                pattern=rf"{KEY}|^{LINE}(?!\n)$",
                extra={"form": "ed25519: and 32 bytes in base64, or a line ssh-ed25519 AAAA..."},
            ),
        ]
        | None,
        Meta(
            description="the public key, which `mlship keys show` prints; or that of an SSH key: "
            "`ssh-ed25519 AAAA...`, as in `id_ed25519.pub`; or else `workflow`"
        ),
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

    emails: Annotated[
        tuple[Email, ...],
        Meta(
            description="of the person who has the key: approvals that it signs are this person's. "
            "The key of a job has none"
        ),
    ] = ()

    def __post_init__(self) -> None:
        """Check that it is one signer.

        Raises:
            ValueError: it is none, or two, or an address has what nobody sees.
        """
        if (self.key is None) == (self.workflow is None):
            raise ValueError("A signer needs exactly one of `key` and `workflow`")
        if self.workflow is not None and self.ref is None:
            raise ValueError("`workflow` needs `ref`, such as refs/heads/main")
        if self.workflow is not None and self.emails:
            raise ValueError("`emails` are for a `key`: a job is no person")
        if self.key is not None and (self.ref or self.environment or self.repository_id):
            raise ValueError("`ref`, `environment` and `repository_id` are for a `workflow`")
        for email in self.emails:
            if fault := emails.fault(email):
                raise ValueError(f"Email address {email!a} {fault}")


class TrustConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose evidence counts. A ledger of this machine's own trusts this machine in any case."""

    signers: Annotated[
        dict[Name, SignerConfig] | None,
        Meta(description="by name; without this setting, a shared ledger counts every record"),
    ] = None
    root: Annotated[
        str | None,
        Meta(
            description="file with the roots of Sigstore, which `gh attestation trusted-root` "
            "prints; needed for a signer with `workflow`"
        ),
    ] = None
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

    @property
    def named(self) -> dict[str, SignerConfig]:
        """The signers by name."""
        return self.signers or {}

    @property
    def is_open(self) -> bool:
        """Whether nothing is said of whom to trust. `signers: {}` says that nobody is trusted."""
        return self.signers is None

    def __post_init__(self) -> None:
        """Check that identities can be verified.

        Raises:
            ValueError: they cannot.
        """
        if self.root is None and any(signer.workflow for signer in self.named.values()):
            raise ValueError(
                "A signer with `workflow` needs `root`, the file with the roots of Sigstore: "
                "`gh attestation trusted-root > trusted_root.jsonl` writes it"
            )


def signers(trust: TrustConfig) -> tuple[Signer, ...]:
    """Return the signers with a key that mlship.yaml names."""
    return tuple(
        Signer(
            name=name,
            key=ssh_keys.parse(signer.key) if signer.key.startswith(KIND) else signer.key,
            may=frozenset(signer.may),
            until=signer.until,
            emails=signer.emails,
        )
        for name, signer in trust.named.items()
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
        for name, signer in trust.named.items()
        if signer.workflow is not None and signer.ref is not None
    )
