"""Keys that sign evidence: files outside of the project, or a variable of the environment."""

from mlship.adapters.keys.ed25519 import PrivateKey
from mlship.adapters.keys.memory import UserMemory
from mlship.adapters.keys.places import VARIABLE, Keys, MachineSigning
from mlship.adapters.keys.session import SessionKey
from mlship.adapters.keys.sigstore import Bundles
from mlship.adapters.keys.verified import Kept, Verifier

__all__ = [
    "VARIABLE",
    "Bundles",
    "Kept",
    "Keys",
    "MachineSigning",
    "PrivateKey",
    "SessionKey",
    "UserMemory",
    "Verifier",
]
