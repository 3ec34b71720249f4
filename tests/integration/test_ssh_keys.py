"""Approvals that people sign with their SSH keys: files, ssh-agent, and what goes wrong."""

import os
import pty
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlship.adapters.keys import Keys
from mlship.adapters.keys.agent import Agent, AgentKey
from mlship.adapters.keys.ed25519 import PrivateKey, generate, verify
from mlship.adapters.keys.ssh import load, load_public
from mlship.adapters.ledgers.directory import DirectoryLedger
from mlship.domain import ssh_keys
from mlship.domain.facts import Approved
from mlship.errors import ConfigError, IntegrityError, MlshipError, NotFoundError, UnavailableError
from tests.harness import commands
from tests.harness.samples import record, release
from tests.harness.ssh import FAILURE, agent, framed, keygen, lying_agent, require_openssh

PROJECT = """
name: iris
data: {train: data/train.csv, test: data/test.csv}
model: {train: "pipeline:train"}
store: {kind: directory}
gates: {container: false}
"""
RELEASE = release()
MESSAGE = b"DSSEv1 1 a 1 b"


@pytest.fixture(autouse=True)
def openssh() -> None:
    require_openssh()


def nobody(_path: Path) -> str:
    raise AssertionError("nobody is asked")


# Keys


def test_a_file_and_the_agent_sign_alike(tmp_path: Path) -> None:
    line = keygen(tmp_path / "ada", comment="ada@laptop")
    private = load(tmp_path / "ada", nobody)
    assert private.public == load_public(tmp_path / "ada.pub") == ssh_keys.parse(line)
    assert line.startswith(ssh_keys.line(private.public))
    with agent(tmp_path, tmp_path / "ada") as path:
        held = AgentKey(Agent(path), private.public, "ada.pub")
        assert held.key == private.key
        assert held.sign(MESSAGE) == private.sign(MESSAGE)
    assert verify(private.public, MESSAGE, private.sign(MESSAGE))


def test_a_passphrase_is_asked_for(tmp_path: Path) -> None:
    line = keygen(tmp_path / "ada", passphrase="correct horse")
    asked: list[Path] = []

    def ask(path: Path) -> str:
        asked.append(path)
        return "correct horse"

    assert load(tmp_path / "ada", ask).public == ssh_keys.parse(line)
    assert asked == [tmp_path / "ada"]
    with pytest.raises(ConfigError, match=r"the passphrase of .* is wrong"):
        load(tmp_path / "ada", lambda _: "battery staple")
    with pytest.raises(ConfigError, match=r"the passphrase of .* is empty"):
        load(tmp_path / "ada", lambda _: "")


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_kinds_of_keys_are_refused(tmp_path: Path, kind: str) -> None:
    keygen(tmp_path / "ada", kind=kind)
    with pytest.raises(ConfigError, match="is not an Ed25519 key"):
        load(tmp_path / "ada", nobody)
    with pytest.raises(ConfigError, match="has no ssh-ed25519 key"):
        load_public(tmp_path / "ada.pub")


def test_what_is_no_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ada"
    with pytest.raises(NotFoundError, match="there is no key"):
        load(path, nobody)
    path.write_bytes(b"\xff" * 100)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="has no private key of OpenSSH"):
        load(path, nobody)
    with pytest.raises(ConfigError, match="has no ssh-ed25519 key"):
        load_public(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="not a regular file"):
        load(tmp_path / "pipe", nobody)


def test_a_private_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    keygen(tmp_path / "ada")
    (tmp_path / "ada").chmod(0o644)
    with pytest.raises(ConfigError, match="other users of this machine may read"):
        load(tmp_path / "ada", nobody)


# Agents

ADA, EVE = (PrivateKey(generate(), "a test") for _ in range(2))
BLOB = ssh_keys.blob(ADA.public)


def listed(*blobs: bytes) -> bytes:
    keys = b"".join(framed(blob) + framed(b"a comment") for blob in blobs)
    return framed(bytes([12]) + len(blobs).to_bytes(4) + keys)


def signed(signature: bytes, kind: bytes = b"ssh-ed25519") -> bytes:
    return framed(bytes([14]) + framed(framed(kind) + framed(signature)))


def says(
    to_sign: bytes | None, to_list: bytes | None = listed(BLOB)
) -> Callable[..., bytes | None]:
    """Return what an agent answers to each of both requests."""
    return lambda request: to_list if request[0] == 11 else to_sign


LIES: dict[str, tuple[Callable[..., bytes | None], type[MlshipError], str]] = {
    "a signature of another message": (
        says(signed(ADA.sign(b"DSSEv1 something else"))),
        IntegrityError,
        "something else than a signature",
    ),
    "a signature with another key": (
        says(signed(EVE.sign(MESSAGE))),
        IntegrityError,
        "something else than a signature",
    ),
    "a signature of another length": (
        says(signed(ADA.sign(MESSAGE)[:63])),
        IntegrityError,
        "something else than a signature",
    ),
    "a longer signature": (
        says(signed(ADA.sign(MESSAGE) + b"x")),
        IntegrityError,
        "something else than a signature",
    ),
    "a signature of another kind": (
        says(signed(bytes(256), b"rsa-sha2-512")),
        UnavailableError,
        "it signed with b'rsa-sha2-512'",
    ),
    "a refusal": (says(framed(FAILURE)), UnavailableError, "it refused"),
    "nothing": (says(None), UnavailableError, "no answer within 0.2 s"),
    "no list": (says(None, None), UnavailableError, "no answer within 0.2 s"),
    "half an answer": (says(signed(ADA.sign(MESSAGE))[:20]), UnavailableError, "it closed"),
    "a huge answer": (says(b"\xff\xff\xff\xff"), UnavailableError, "its answer has 4294967295"),
    "an empty answer": (says(framed(b"")), UnavailableError, "its answer has 0 bytes"),
    "an answer with less in it than it says": (
        says(framed(bytes([14]) + b"\0\0\xff\xff")),
        UnavailableError,
        "its answer is cut off",
    ),
    "more keys than there are": (
        says(None, framed(bytes([12]) + b"\xff\xff\xff\xff")),
        UnavailableError,
        "its answer is cut off",
    ),
    "another key": (
        says(None, listed(ssh_keys.blob(EVE.public))),
        NotFoundError,
        r"ssh-agent does not have the key ada\.pub",
    ),
}


@pytest.mark.parametrize("case", LIES)
def test_an_agent_is_not_relied_on(tmp_path: Path, case: str) -> None:
    answer, error, message = LIES[case]
    with (
        lying_agent(tmp_path, answer) as path,
        pytest.raises(error, match=message) as told,
    ):
        AgentKey(Agent(path, seconds=0.2), ADA.public, "ada.pub").sign(MESSAGE)
    assert told.value.hint


def test_an_honest_agent_of_the_same_make_is_believed(tmp_path: Path) -> None:
    """The control of the test above."""
    with lying_agent(tmp_path, says(signed(ADA.sign(MESSAGE)))) as path:
        assert AgentKey(Agent(path), ADA.public, "ada.pub").sign(MESSAGE) == ADA.sign(MESSAGE)


def test_an_agent_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="SSH_AUTH_SOCK is not set"):
        AgentKey(Agent(""), ADA.public, "ada.pub").sign(MESSAGE)
    with pytest.raises(UnavailableError, match="No such file"):
        AgentKey(Agent(str(tmp_path / "none")), ADA.public, "ada.pub").sign(MESSAGE)


# Commands


class Team:
    """A project with a shared ledger, whose people are named by their SSH keys."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ledger = folder / "iris", folder / "shared"
        self.folder.mkdir()
        self.environment = {**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": ""}
        self.environment.pop("SSH_AUTH_SOCK", None)
        self.ci = Keys("iris", {"HOME": str(folder)}).new()
        lines = [
            f"{name}@example.org {keygen(folder / name, comment=f'{name}@laptop')}"
            for name in ("ada", "grace")
        ]
        (self.folder / "people").write_text("\n".join(lines))
        keygen(folder / "eve")
        self.trust()
        author = {"sha": "a" * 40, "dirty": False, "author": "ada@example.org"}
        commit = {**author, "branch": "main", "subject": "a model"}
        self.append("train", commit=commit)

    def trust(self, more: str = "") -> None:
        signers = f"{{ci: {{key: '{self.ci.public}'}}}}"
        trust = f"trust: {{allowed_signers: people, signers: {signers}{more}}}\n"
        text = f"{PROJECT}ledger: {{uri: {self.ledger}}}\n{trust}"
        (self.folder / "mlship.yaml").write_text(text)

    def append(self, step: Any, **facts: Any) -> None:
        DirectoryLedger(self.ledger, self.ci).append(record(RELEASE, step, facts=facts).evidence)

    def approve(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return self.mlship("approve", str(RELEASE), *arguments, **more)

    def mlship(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, **more}
        return commands.run(*arguments, folder=self.folder, environment=environment)

    @property
    def approvals(self) -> list[Approved]:
        return [
            msgspec.convert(each.evidence.facts, Approved)
            for each in DirectoryLedger(self.ledger).records()
            if each.evidence.step == "approve"
        ]


@pytest.fixture
def team(tmp_path: Path) -> Team:
    return Team(tmp_path)


def test_a_person_approves_with_their_key(team: Team) -> None:
    done = team.approve("--key", "~/grace", "--comment", "fine")
    assert done.returncode == 0, done.stderr
    assert team.approvals == [Approved(by="grace@example.org", comment="fine")]
    again = team.approve("--key", "~/grace")
    assert again.returncode == 0
    assert len(team.approvals) == 1
    verified = msgspec.json.decode(team.mlship("--json", "ledger", "verify").stdout)
    assert verified["signed"] == {"ci": 1, "grace@example.org": 1}
    report = team.mlship("report", str(RELEASE), "--markdown").stdout
    assert "grace@example.org, " in report
    assert "not verified" not in report


def test_a_person_approves_with_a_key_of_the_agent(team: Team, tmp_path: Path) -> None:
    with agent(tmp_path, tmp_path / "grace") as path:
        done = team.approve("--key", "~/grace.pub", SSH_AUTH_SOCK=path)
        assert done.returncode == 0, done.stderr
        other = team.approve("--key", "~/ada.pub", SSH_AUTH_SOCK=path)
        assert other.returncode == 3  # the author
    assert [each.by for each in team.approvals] == ["grace@example.org"]


REFUSED = {
    "another's name": (("--key", "~/grace", "--by", "lin@example.org"), 2, "may not approve as"),
    "a name that begins alike": (
        ("--key", "~/grace", "--by", "grace@example.org.evil"),
        2,
        "may not approve as",
    ),
    "a key that nobody named": (("--key", "~/eve"), 2, "which `trust` does not name"),
    "the author": (("--key", "~/ada"), 3, "ada@example.org wrote commit"),
    "a job's key": (
        ("--by", "grace@example.org"),
        2,
        "needs the signature of a person, and signer ci is none",
    ),
    "a job's key and no name": ((), 2, "needs the signature of a person, and signer ci is none"),
    "no agent": (("--key", "~/grace.pub"), 2, "SSH_AUTH_SOCK is not set"),
    "no file": (("--key", "~/none"), 5, "there is no key"),
    "a review": (("--key", "~/grace", "--from-pull-request", "7"), 2, "cannot be used with"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_not_count_is_refused_before_it_is_recorded(team: Team, case: str) -> None:
    arguments, code, message = REFUSED[case]
    done = team.approve(*arguments)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert team.approvals == []


def test_without_people_a_name_is_what_it_is(team: Team) -> None:
    team.trust(", names: true")
    assert team.approve("--by", "lin@example.org").returncode == 0
    report = team.mlship("report", str(RELEASE), "--markdown").stdout
    assert "lin@example.org (by name, not verified)" in report
    team.trust()
    verified = team.mlship("ledger", "verify")
    assert verified.returncode == 7
    assert "the name 'lin@example.org' alone is not enough" in verified.stdout


def test_doctor_names_the_lines_that_are_not_used(team: Team) -> None:
    with (team.folder / "people").open("a") as file:
        file.write("\n*@example.org ssh-rsa AAAA\n")
    shown = team.mlship("doctor").stdout
    assert "people:3 is not used: ssh-rsa keys do not sign approvals" in shown.replace("\n", " ")


def test_an_approval_counts_until_the_end_of_the_key(team: Team) -> None:
    line = (team.folder.parent / "grace.pub").read_text()
    until = 'valid-before="20200101Z"'
    (team.folder / "people").write_text(f"grace@example.org {until} {line}")
    done = team.approve("--key", "~/grace")
    assert done.returncode == 2
    assert "the key of signer grace@example.org ended at 2020-01-01" in done.stderr


def test_a_key_with_a_passphrase_needs_a_terminal(team: Team, tmp_path: Path) -> None:
    line = keygen(tmp_path / "lin", passphrase="correct horse")
    (team.folder / "people").write_text(f"lin@example.org {line}")
    done = team.approve("--key", "~/lin")
    assert done.returncode == 2
    assert "has a passphrase, and nobody can be asked for it" in done.stderr
    assert "ssh-add" in done.stderr
    typed = typing("correct horse", team, "approve", str(RELEASE), "--key", "~/lin")
    assert typed.returncode == 0, typed.stderr
    assert "correct horse" not in typed.stdout + typed.stderr
    assert [each.by for each in team.approvals] == ["lin@example.org"]


def typing(answer: str, team: Team, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command on a terminal, and type an answer once it is not shown there."""
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlship", *arguments],
        cwd=team.folder,
        env=team.environment,
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        encoding="utf-8",
    )
    try:
        while termios.tcgetattr(terminal)[3] & termios.ECHO and process.poll() is None:
            time.sleep(0.05)
        os.write(main, f"{answer}\n".encode())
        texts = process.communicate(timeout=60)
    finally:
        process.kill()
        os.close(main)
        os.close(terminal)
    return subprocess.CompletedProcess(process.args, process.returncode, *texts)
