"""Keys and signers for tests."""

import os
from pathlib import Path

from mlship.adapters.keys import Keys, MachineSigning
from mlship.adapters.keys.ed25519 import PrivateKey, generate

HERE = MachineSigning(Keys("iris", os.environ))
"""Signs as commands on this machine do, whose own ledgers trust it."""


def at(home: Path) -> MachineSigning:
    """Return what signs as commands of a user with another home do."""
    return MachineSigning(Keys("iris", {"HOME": str(home)}))


def key() -> PrivateKey:
    """Return a new key."""
    return PrivateKey(generate(), "a test")
