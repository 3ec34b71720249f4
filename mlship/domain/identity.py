"""Identities: who a job is, as a certificate of Sigstore says, and which jobs a signer stands for.

GitHub tells Sigstore's authority which workflow a job belongs to, and the authority puts that into
a certificate for the key of one signature. The statement that was signed, the certificate and the
proof of its time are one document, a bundle. Verifying it is the port `Identify`; what follows
from it is decided here.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec

GITHUB: Final = "https://token.actions.githubusercontent.com"
"""The issuer of the identities of jobs on github.com."""

WORKFLOW: Final = (
    r"^[A-Za-z0-9-]{1,39}/[A-Za-z0-9._-]{1,100}/\.github/workflows/[\w.-]+\.ya?ml(?!\n)$"
)
"""A workflow: OWNER/REPOSITORY/.github/workflows/FILE."""

REF: Final = r"^refs/heads/[^\s*?\[\\:^~]+(/\*)?(?!\n)$"
"""A branch in full; `/*` at its end stands for one more part of the name."""

MOST: Final = 100_000
"""Bytes of a bundle; one of a job has about 10,000."""

_FORGE: Final = "https://github.com/"


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who signed, as the certificate says.

    Attributes:
        issuer: of the token that the authority was shown.
        subject: the workflow with the steps, as URI and ref; a reusable one is that which is
            called.
        workflow: the one that was started, likewise.
        repository: the URI of the repository that it ran in.
        repository_id: its number, which no other repository gets when this one is renamed.
        ref: the branch, tag or pull request that it ran for.
        environment: of the job; empty if it has none, or the authority does not say.
        time: from which the certificate is valid: the signature was made in the minutes after.
    """

    issuer: str
    subject: str
    workflow: str
    repository: str
    repository_id: str
    ref: str
    environment: str
    time: datetime


class Attested(msgspec.Struct, frozen=True, kw_only=True):
    """A payload, and who signed it."""

    identity: Identity
    payload_type: str
    payload: bytes


Identify = Callable[[bytes], Attested]
"""Returns what a bundle attests, or raises IntegrityError with the reason why it attests nothing,
ConfigError if nothing can be verified here."""


class Workflow(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs that a signer stands for.

    Attributes:
        name: of the workflow, as in `WORKFLOW`.
        ref: the branch that it runs for, as in `REF`.
        environment: of the job; empty for any.
        repository_id: the number of the repository; 0 for any of that name.
    """

    name: str
    ref: str
    environment: str = ""
    repository_id: int = 0

    def refusal(self, identity: Identity) -> str:
        """Return why a job is none of these; empty if it is one."""
        repository = _FORGE + "/".join(self.name.split("/")[:2])
        workflow = f"{_FORGE}{self.name}@{identity.ref}"
        number, place = str(self.repository_id), self.environment
        checks = (
            ("issuer", identity.issuer, GITHUB, identity.issuer == GITHUB),
            ("repository", identity.repository, repository, identity.repository == repository),
            ("branch", identity.ref, self.ref, self._is_ref(identity.ref)),
            ("workflow", identity.workflow, workflow, identity.workflow == workflow),
            ("workflow with the steps", identity.subject, workflow, identity.subject == workflow),
            (
                "number of the repository",
                identity.repository_id,
                number,
                not self.repository_id or identity.repository_id == number,
            ),
            (
                "environment of the job",
                identity.environment,
                place,
                not place or identity.environment == place,
            ),
        )
        for what, found, expected, passed in checks:
            if not passed:
                return f"the {what} is {shown(found) or 'not named'}, not {expected}"
        return ""

    def _is_ref(self, ref: str) -> bool:
        stem = self.ref.removesuffix("*")
        if stem == self.ref:
            return ref == stem
        rest = ref.removeprefix(stem)
        return ref.startswith(stem) and bool(rest) and "/" not in rest


def shown(text: str) -> str:
    """Return a text of a certificate for a message."""
    return ascii(text[:200])[1:-1]
