"""Keys and signers for tests."""

import os

from mlship.adapters.keys import Keys, MachineSigning
from mlship.adapters.keys.ed25519 import PrivateKey, generate

HERE = MachineSigning(Keys("iris", os.environ))
"""Signs as commands on this machine do, whose own ledgers trust it."""


def key() -> PrivateKey:
    """Return a new key."""
    return PrivateKey(generate(), "a test")
