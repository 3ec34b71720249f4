"""The key with which a person signs an approval."""

from collections.abc import Callable, Mapping
from pathlib import Path

from mlship.adapters.keys.agent import Agent, AgentKey
from mlship.adapters.keys.ssh import load, load_public
from mlship.domain.dsse import Signing


def personal_key(path: Path, environment: Mapping[str, str], ask: Callable[[Path], str]) -> Signing:
    """Return what signs with an SSH key: its file, or the agent if it is a file `.pub`.

    Args:
        path: of the file.
        environment: the environment variables, which name the agent's socket.
        ask: returns the passphrase of a file, which is called if it has one.

    Raises:
        ConfigError: it is no Ed25519 key, or others may read it.
        NotFoundError: there is no such file, or the agent does not have the key.
    """
    path = path.expanduser()
    if path.suffix == ".pub":
        return AgentKey(Agent(environment.get("SSH_AUTH_SOCK", "")), load_public(path), str(path))
    return load(path, ask)
