"""Keys and signers for tests."""

import os
from collections.abc import Sequence
from pathlib import Path

from mlship.adapters.keys import Keys, MachineSigning
from mlship.adapters.keys.ed25519 import PrivateKey, generate, verify
from mlship.domain.digests import Digest
from mlship.domain.trust import Sealed

HERE = MachineSigning(Keys("iris", os.environ))
"""Signs as commands on this machine do, whose own ledgers trust it."""


def at(home: Path) -> MachineSigning:
    """Return what signs as commands of a user with another home do."""
    return MachineSigning(Keys("iris", {"HOME": str(home)}))


def key() -> PrivateKey:
    """Return a new key."""
    return PrivateKey(generate(), "a test")


def verified(signed: Sequence[Sealed]) -> set[Digest]:
    """Verify signatures, and remember nothing."""
    return {
        digest
        for public, digest, envelope in signed
        if verify(public, envelope.message, envelope.signatures[0].sig)
    }
