"""The file of people's SSH keys, as git and ssh-keygen read it."""

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlship.adapters.keys import Keys
from mlship.config.allowed_signers import load, read
from mlship.config.layers import from_yaml, resolve
from mlship.config.project import Config
from mlship.domain import ssh_keys
from mlship.domain.public_keys import key_id
from mlship.domain.trust import Signer, Trust
from mlship.errors import ConfigError
from mlship.wire import signing
from tests.harness.signing import key

ADA, GRACE = (ssh_keys.line(key().public) for _ in range(2))
RSA = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC7 ada@laptop"
SETTINGS = """
name: iris
data: {train: data/train.csv, test: data/test.csv}
model: {train: "pipeline:train"}
"""


def people(text: str) -> tuple[Signer, ...]:
    return read(text, "people").signers


def left_out(text: str) -> str:
    """Return why the only line of a text is not used."""
    found = read(text, "people")
    assert found.signers == ()
    (line,) = found.left_out
    return line


def test_a_line_is_a_person_who_may_approve_only() -> None:
    (ada,) = people(f"# us\n\nada@example.org {ADA} ada@laptop\n")
    assert ada.name == "ada@example.org"
    assert ada.key == ssh_keys.parse(ADA)
    assert ada.may == {"approve"}
    assert (ada.emails, ada.since, ada.until) == (("ada@example.org",), None, None)


def test_several_principals_are_one_person_and_times_are_kept() -> None:
    options = 'namespaces="git,mlship",valid-after="20260101Z",valid-before="202701311230Z"'
    (ada,) = people(f"ada@example.org,ada@home.example {options}\t{ADA}\r\n")
    assert ada.emails == ("ada@example.org", "ada@home.example")
    assert ada.since == datetime(2026, 1, 1, tzinfo=UTC)
    assert ada.until == datetime(2027, 1, 31, 12, 30, tzinfo=UTC)


LEFT_OUT = {
    "another kind of key": (f"ada@example.org {RSA}", "ssh-rsa keys do not sign approvals"),
    "an elliptic curve": (
        "ada@example.org ecdsa-sha2-nistp256 AAAAE2VjZHNh",
        "ecdsa-sha2-nistp256 keys do not sign approvals",
    ),
    "a security key": (
        "ada@example.org sk-ssh-ed25519@openssh.com AAAAGnNrLXNz",
        "sk-ssh-ed25519@openssh.com keys do not sign approvals",
    ),
    "an authority": (f"ada@example.org cert-authority {ADA}", "certificate authority"),
    "a pattern": (f"*@example.org {ADA}", "principal '*@example.org' is no email address"),
    "a pattern of one letter": (f"ad?@example.org {ADA}", "is no email address"),
    "all but one": (f"!eve@example.org,ada@example.org {ADA}", "'!eve@example.org' is no email"),
    "a user's name": (f"ada {ADA}", "principal 'ada' is no email address"),
    "a quoted name": (f'"ada b@example.org" {ADA}', "is no email address"),
    "an empty principal": (f"ada@example.org, {ADA}", "principal '' is no email address"),
    "signatures of git alone": (f'ada@example.org namespaces="git" {ADA}', "do not list mlship"),
    "namespaces by a pattern": (f'ada@example.org namespaces="*" {ADA}', "do not list mlship"),
    "namespaces without ours": (
        f'ada@example.org namespaces="mlship,!mlship" {ADA}',
        "its namespaces exclude mlship by '!mlship'",
    ),
    "namespaces that begin without ours": (
        f'ada@example.org namespaces="!mlship,mlship" {ADA}',
        "exclude mlship by '!mlship'",
    ),
    "namespaces without those of a pattern": (
        f'ada@example.org namespaces="mlship,!ml*p" {ADA}',
        "exclude mlship by '!ml*p'",
    ),
    "namespaces without those of a pattern of one letter": (
        f'ada@example.org namespaces="mlship,!mlshi?" {ADA}',
        "exclude mlship by '!mlshi?'",
    ),
    "no namespace": (f'ada@example.org namespaces="" {ADA}', "do not list mlship"),
    "a local time": (
        f'ada@example.org valid-before="20270131" {ADA}',
        "its time '20270131' is not in UTC",
    ),
    "no time": (f'ada@example.org valid-after="soon" {ADA}', "its time 'soon' is not in UTC"),
    "no day": (f'ada@example.org valid-after="20270231Z" {ADA}', "is not in UTC"),
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_what_cannot_be_honoured_is_left_out_and_told(case: str) -> None:
    text, reason = LEFT_OUT[case]
    line = left_out(text)
    assert line.startswith("people:1 is not used: ")
    assert reason in line
    assert "\x1b" not in line


@pytest.mark.parametrize("others", ["!git", "!MLSHIP", "!mlship?", "!", "!ml[s]hip", "git*"])
def test_namespaces_that_exclude_others_say_nothing_of_ours(others: str) -> None:
    assert people(f'ada@example.org namespaces="{others},mlship" {ADA}')


WRONG = {
    "no key": "ada@example.org",
    "a kind alone": "ada@example.org ssh-ed25519",
    "a key alone": ADA,
    "half a key": f"ada@example.org {ADA[:60]}",
    "a longer key": f"ada@example.org {ADA}AAAA",
    "a key of another kind inside": "ada@example.org ssh-ed25519 "
    + base64.b64encode(b"\0\0\0\x07ssh-rsa" + bytes(40)).decode(),
    "an unknown option": f'ada@example.org verify-required="1" {ADA}',
    "an option twice": f'ada@example.org namespaces="git",namespaces="mlship" {ADA}',
    "no end of an option": f'ada@example.org namespaces="mlship {ADA}',
    "text": "this is no such file",
    "a private key": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "zeros": "\0" * 100,
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_such_line_is_an_error_with_its_number(case: str) -> None:
    with pytest.raises(ConfigError, match=r"^people:2: "):
        read(f"# us\n{WRONG[case]}\n", "people")


INVISIBLE = {
    "a control character": ("ada\x1b[2J@example.org", "U+001B"),
    "a zero": ("ada\x00@example.org", "U+0000"),
    "a byte order mark": ("\ufeffada@example.org", "U+FEFF (ZERO WIDTH NO-BREAK SPACE)"),
    "a space without width": ("ada\u200b@example.org", "U+200B (ZERO WIDTH SPACE)"),
    "a change of direction": ("\u202eada@example.org", "U+202E (RIGHT-TO-LEFT OVERRIDE)"),
    "a no-break space": ("ada@\u00a0example.org", "U+00A0 (NO-BREAK SPACE)"),
    "a separator": ("ada@example.org\u2028", "U+2028 (LINE SEPARATOR)"),
    "a variation selector": ("ada\ufe0f@example.org", "U+FE0F (VARIATION SELECTOR-16)"),
    "a filler": ("ada\u3164@example.org", "U+3164 (HANGUL FILLER)"),
    "a dot at the end": ("ada@example.org.", "ends with a dot"),
}


@pytest.mark.parametrize("case", INVISIBLE)
def test_what_nobody_sees_in_an_address_is_an_error_that_names_it(case: str) -> None:
    email, reason = INVISIBLE[case]
    with pytest.raises(ConfigError) as caught:
        read(f"# us\ngrace@example.org {GRACE}\n{email} {ADA}\n", "people")
    assert caught.value.message.startswith("people:3: principal ")
    assert caught.value.message.count(reason) == 1
    assert caught.value.message.isascii()
    escaped = email.encode("unicode-escape").decode()
    with pytest.raises(ConfigError, match=r"trust\.signers\.ada") as caught:
        settings(f'{{signers: {{ada: {{key: "{ADA}", emails: ["{escaped}"]}}}}}}')
    assert reason in caught.value.message
    assert caught.value.message.isascii()


def test_the_end_of_a_line_in_an_address_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"trust\.signers\.ada: .* U\+000A"):
        settings(f'{{signers: {{ada: {{key: "{ADA}", emails: ["a@b\\n"]}}}}}}')


@pytest.mark.parametrize(
    "line",
    [
        f"ada@example.org\u00a0{ADA}",
        f"ada@example.org {ADA.replace(' ', chr(0xA0))}",
        f"ada@example.org {ADA}\u00a0ada@laptop",
        f'ada@example.org\tnamespaces="mlship"\u00a0{ADA}',
    ],
    ids=["before the kind", "before the key", "behind the key", "behind an option"],
)
def test_a_no_break_space_between_the_parts_is_named(line: str) -> None:
    with pytest.raises(ConfigError, match=r"^people:1: .*the line has U\+00A0 \(NO-BREAK SPACE\)"):
        read(line, "people")


def test_a_byte_order_mark_at_the_beginning_of_the_file_is_no_part_of_an_address(
    tmp_path: Path,
) -> None:
    (tmp_path / "people").write_text(f"ada@example.org {ADA}\r\n", encoding="utf-8-sig")
    (ada,) = load("people", tmp_path, None).signers
    assert ada.emails == ("ada@example.org",)


def test_letters_of_other_alphabets_are_those_of_addresses() -> None:
    (ada,) = people(f"ad\u00e4@ex\u00e4mple.org {ADA}")
    assert ada.emails == ("ad\u00e4@ex\u00e4mple.org",)


def test_a_comment_says_nothing() -> None:
    comment = "eve\x1b[2J\x0bgrace@example.org " + "x" * 1000
    (ada,) = people(f"ada@example.org {ADA} {comment}\n")
    assert ada == people(f"ada@example.org {ADA}")[0]


def test_a_comment_cannot_begin_another_line() -> None:
    comment = f"x\x0c\x85\u2028grace@example.org {GRACE}"
    assert len(people(f"ada@example.org {ADA} {comment}\n")) == 1


def test_a_key_is_the_person_of_its_first_line() -> None:
    found = read(f"ada@example.org {ADA}\ngrace@example.org {ADA}\n", "people")
    assert [each.name for each in found.signers] == ["ada@example.org"]
    assert found.left_out == ("people:2 is not used: its key is that of ada@example.org",)


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "people").write_text(f"ada@example.org {ADA}\n" * 3000)
    with pytest.raises(ConfigError, match="has more than 200000 bytes"):
        load("people", tmp_path, None)


def test_a_file_outside_of_the_repository_is_refused(tmp_path: Path) -> None:
    project = tmp_path / "repository" / "iris"
    project.mkdir(parents=True)
    for place in (tmp_path / "people", tmp_path / "repository" / "people"):
        place.write_text(f"ada@example.org {ADA}\n")
    (project / "link").symlink_to(tmp_path / "people")
    for path in ("../../people", "link", str(tmp_path / "people")):
        with pytest.raises(ConfigError, match="is outside of the repository"):
            load(path, project, tmp_path / "repository")
    with pytest.raises(ConfigError, match="is outside of the repository"):
        load("../people", project, None)
    assert load("../people", project, tmp_path / "repository").signers


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for path, reason in (
        ("none", "cannot read trust.allowed_signers: none: No such file"),
        ("folder", "cannot read trust.allowed_signers: folder: Is a directory"),
        ("binary", "trust.allowed_signers: binary is not UTF-8 text"),
    ):
        with pytest.raises(ConfigError, match=reason):
            load(path, tmp_path, None)


# Beside the signers of mlship.yaml


def settings(trust: str) -> Config:
    return resolve([from_yaml(f"{SETTINGS}trust: {trust}\n", "mlship.yaml")]).config


def trusted(tmp_path: Path, trust: str, *, shared: bool = True) -> Trust:
    environment = {"HOME": str(tmp_path)}
    config = settings(trust)
    people = signing.allowed_signers(config, tmp_path)
    return signing.trust(config, environment, people, shared=shared)


def test_an_ssh_key_in_the_settings_is_an_ed25519_key(tmp_path: Path) -> None:
    found = trusted(tmp_path, f"{{signers: {{ada: {{key: '{ADA} ada@laptop', may: [approve]}}}}}}")
    (ada,) = found.signers
    assert ada.key == ssh_keys.parse(ADA)


@pytest.mark.parametrize(
    "text",
    [RSA, f"{ADA}\\n", f"{ADA} \\x1b", ADA[:-1], f" {ADA}", f"{ADA}A"],
    ids=["rsa", "a line's end", "a control character", "cut off", "a space", "longer"],
)
def test_another_key_in_the_settings_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"trust\.signers\.ada\.key"):
        settings(f'{{signers: {{ada: {{key: "{text}"}}}}}}')


@pytest.mark.parametrize("text", ["ada", "*@example.org", "a@b, c@d", "ada @example.org"])
def test_what_is_no_address_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"trust\.signers\.ada\.emails"):
        settings(f'{{signers: {{ada: {{key: "{ADA}", emails: ["{text}"]}}}}}}')


def test_people_stand_beside_signers_who_go_first(tmp_path: Path) -> None:
    (tmp_path / "people").write_text(f"ada@example.org {ADA}\ngrace@example.org {GRACE}\n")
    ci = key().public
    signers = f"{{ci: {{key: '{ci}'}}, g: {{key: '{GRACE}', may: [build]}}}}"
    found = trusted(tmp_path, f"{{signers: {signers}, allowed_signers: people}}")
    assert [each.name for each in found.signers] == ["ci", "g", "ada@example.org"]
    assert found.signer(key_id(ssh_keys.parse(GRACE))) == found.signers[1]
    assert found.remarks == ("signer grace@example.org is not used: its key is that of g",)
    assert (found.unsigned, found.names) == (False, False)


def test_a_name_is_enough_only_where_nothing_is_signed_or_nobody_else_writes(
    tmp_path: Path,
) -> None:
    signers = f"signers: {{ci: {{key: '{key().public}'}}}}"
    assert trusted(tmp_path, "{}").names
    assert not trusted(tmp_path, f"{{{signers}}}").names
    assert trusted(tmp_path, f"{{{signers}, names: true}}").names
    assert trusted(tmp_path, f"{{{signers}}}", shared=False).names
    assert not trusted(tmp_path, f"{{{signers}, names: false}}", shared=False).names


def test_people_alone_do_not_make_unsigned_records_void(tmp_path: Path) -> None:
    (tmp_path / "people").write_text(f"ada@example.org {ADA}\n")
    found = trusted(tmp_path, "{allowed_signers: people}")
    assert (found.unsigned, found.names, len(found.signers)) == (True, True, 1)


def test_a_machine_may_say_everything_on_its_own_ledger_with_a_key_of_a_person(
    tmp_path: Path,
) -> None:
    own = Keys("iris", {"HOME": str(tmp_path)}).new()
    ada = f"{{key: '{own.public}', may: [approve], emails: [ada@example.org]}}"
    (found,) = trusted(tmp_path, f"{{signers: {{ada: {ada}}}}}", shared=False).signers
    assert (found.name, found.emails, len(found.may)) == ("ada", ("ada@example.org",), 4)
    (found,) = trusted(tmp_path, f"{{signers: {{ada: {ada}}}}}").signers
    assert found.may == {"approve"}


def test_who_removes_the_last_signer_trusts_nobody(tmp_path: Path) -> None:
    found = trusted(tmp_path, "{signers: {}}")
    assert (found.unsigned, found.names, found.signers) == (False, False, ())
