"""A policy for Kubernetes that admits only images whose release was signed and tested.

It is for Kyverno (https://kyverno.io), which the people of a cluster install there. It asks for
less than mlship does before a deployment: it knows neither the ledger nor other releases.
"""

from collections.abc import Sequence
from typing import Any, Final

from mlship.domain import attestation, provenance, release_statement
from mlship.domain.image import Reference
from mlship.domain.public_keys import pem
from mlship.domain.trust import Scope, Signer
from mlship.errors import ConfigError

ROUTER: Final = "https://mlship.dev/router/v1"
"""The type of the statement about the load balancer's image, which contains no release."""

_BUILD: Final[Scope] = "build"
_KINDS: Final = {
    "release": release_statement.KIND,
    "provenance": provenance.PREDICATE_TYPE,
    "sbom": attestation.SBOM,
}
_IMAGES: Final = "(images.containers + images.initContainers + images.ephemeralContainers)"
_SECONDS: Final = 30
_PODS: Final = {
    "apiGroups": [""],
    "apiVersions": ["v1"],
    "operations": ["CREATE", "UPDATE"],
    "resources": ["pods", "pods/ephemeralcontainers"],
}
_BY_DIGEST: Final = {"mutateDigest": False, "verifyDigest": True, "required": True}


def policy(project: str, repository: Reference, signers: Sequence[Signer]) -> dict[str, Any]:
    """Return the policy of a project's repository, an ImageValidatingPolicy of Kyverno.

    Args:
        project: its name.
        repository: of its images.
        signers: whose records count; those who may say `build` sign images.

    Raises:
        ConfigError: nobody may say `build`.
    """
    builders = [each for each in signers if _BUILD in each.may]
    if not builders:
        message = "no signer in `trust.signers` may say build, and none signs images"
        raise ConfigError(message, hint="see `mlship guide signatures`")
    attestors = {f"signer{at}": _attestor(each) for at, each in enumerate(builders)}
    globs = [{"glob": f"{repository.name}{separator}*"} for separator in (":", "@")]
    return {
        "apiVersion": "policies.kyverno.io/v1",
        "kind": "ImageValidatingPolicy",
        "metadata": {"name": f"mlship-{project}"},
        "spec": {
            "validationActions": ["Deny"],
            "failurePolicy": "Fail",
            "webhookConfiguration": {"timeoutSeconds": _SECONDS},
            "matchConstraints": {"resourceRules": [_PODS]},
            "matchImageReferences": globs,
            "validationConfigurations": _BY_DIGEST,
            "attestors": [{"name": name, "cosign": each} for name, each in attestors.items()],
            "attestations": [
                {"name": name, "intoto": {"type": kind}}
                for name, kind in {**_KINDS, "router": ROUTER}.items()
            ],
            "validations": _validations(
                project, ", ".join(f"attestors.{each}" for each in attestors)
            ),
        },
    }


def _attestor(signer: Signer) -> dict[str, Any]:
    """Return a signer's key; nothing of a project is in a public log."""
    log = {"insecureIgnoreTlog": True, "insecureIgnoreSCT": True}
    return {"key": {"data": pem(signer.key)}, "ctlog": log}


def _validations(project: str, attestors: str) -> list[dict[str, str]]:
    """Return what must hold of each image, as CEL."""

    def signed(kind: str) -> str:
        return f"verifyAttestationSignatures(image, attestations.{kind}, [{attestors}]) > 0"

    stated = " && ".join(signed(kind) for kind in _KINDS)
    tested = (
        "extractPayload(image, attestations.release)"
        ".predicate.records.exists(r, r.step == 'test' && r.verdict == 'passed')"
    )
    unsigned = "an image is not signed by a trusted build; run `mlship verify IMAGE`"
    untested = "a release has not passed its tests"
    return [
        {
            "expression": f"{_IMAGES}.all(image, ({stated}) || {signed('router')})",
            "message": f"{project}: {unsigned}",
        },
        {
            "expression": f"{_IMAGES}.all(image, {signed('router')} || {tested})",
            "message": f"{project}: {untested}",
        },
    ]
