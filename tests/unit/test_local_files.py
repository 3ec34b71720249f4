"""The files of a local target: one that is damaged refuses no deployment to a slot that runs."""

from pathlib import Path

import msgspec
import pytest

from mlship.adapters.targets.local import LocalTarget, envoy, loopback, processes, state
from mlship.adapters.targets.local.readiness import Readiness
from mlship.adapters.targets.local.state import Logging, Replica, Running, State
from mlship.config.access import TlsConfig
from mlship.config.project import TargetConfig
from mlship.domain import digests
from mlship.domain.api_keys import ApiKeys
from mlship.domain.deployment import Artifact, Deployment, slot_of
from mlship.errors import ConfigError
from tests.harness import certificates
from tests.harness.places import Notes
from tests.harness.samples import release

RELEASE = release("one")
SLOT = slot_of(RELEASE)


class Machine:
    """A target whose supervisor starts nothing: the test writes what runs."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.notes, self.folder = Notes(), folder
        self.keys, self.state = folder / "keys.json", State(folder / "target")
        self.keys.write_bytes(ApiKeys(keys=()).encoded())
        certificates.write(folder)
        monkeypatch.setattr(envoy, "program", lambda: "envoy")
        monkeypatch.setattr(loopback, "obstacle", lambda _port: "")
        monkeypatch.setattr(Readiness, "wait", lambda _readiness: None)
        deployments: dict[str, Deployment | None] = {SLOT: None}
        monkeypatch.setattr(LocalTarget, "inspect", lambda _target: deployments)

    def deploy(self, *, replicas: int = 1, keys: Path | None = None, stops: bool = False) -> None:
        pair = self.folder / "certificate.pem", self.folder / "key.pem"
        config = TargetConfig(
            port=9,
            api_keys=str(keys or self.keys),
            tls=TlsConfig(certificate=str(pair[0]), key=str(pair[1])),
        )
        local = LocalTarget("a", self.state.folder, config, Logging(place="log"), self.notes)
        artifact = Artifact(kind="bundle", digest=digests.of_bytes(b"one"), location="bundle")
        if stops:
            wanted = self.state.wanted()
            assert wanted is not None
            self.state.want(msgspec.structs.replace(wanted, stopped=True))
        local.deploy(RELEASE, artifact, SLOT, replicas=replicas)

    def starts(self) -> None:
        """Write what the supervisor does after a deployment."""
        replica = Replica(
            slot=SLOT,
            number=1,
            process=processes.own(),
            port=1,
            phase="ready",
            api_keys=str(self.keys),
        )
        running = msgspec.json.encode(Running(replicas=(replica,)))
        state.write(self.state.processes, running)
        state.write(self.state.certificate, b"{}")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_half_of_a_renewal_does_not_refuse_a_rollback(machine: Machine) -> None:
    machine.deploy()
    machine.starts()
    key = (machine.folder / "key.pem").read_bytes()
    certificates.write(machine.folder)
    (machine.folder / "key.pem").write_bytes(key)
    machine.deploy()
    (note,) = machine.notes.lines
    assert note.startswith("the former certificate stays: ")
    assert "is not the key of" in note
    machine.state.certificate.unlink()
    with pytest.raises(ConfigError, match="is not the key of"):
        machine.deploy()
    machine.starts()
    with pytest.raises(ConfigError, match="is not the key of"):
        machine.deploy(stops=True)


def test_a_first_deployment_is_refused_with_a_damaged_file(machine: Machine) -> None:
    machine.keys.write_bytes(b"{")
    with pytest.raises(ConfigError, match="is not a file of API keys"):
        machine.deploy()
    machine.keys.write_bytes(ApiKeys(keys=()).encoded())
    (machine.folder / "key.pem").unlink()
    with pytest.raises(ConfigError, match=r"cannot read .*key\.pem"):
        machine.deploy()
    assert machine.state.wanted() is None


def test_a_damaged_file_of_keys_refuses_only_replicas_that_start(machine: Machine) -> None:
    machine.deploy()
    machine.starts()
    machine.keys.write_bytes(b"{")
    machine.deploy()
    (note,) = machine.notes.lines
    assert note.startswith(f"{SLOT}: the former API keys stay: ")
    with pytest.raises(ConfigError, match="is not a file of API keys"):
        machine.deploy(replicas=2)
    with pytest.raises(ConfigError, match="cannot read the API keys"):
        machine.deploy(keys=machine.folder / "missing.json")
    machine.state.processes.unlink()
    with pytest.raises(ConfigError, match="is not a file of API keys"):
        machine.deploy()
