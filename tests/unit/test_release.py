import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlship.config.texts import Name
from mlship.domain import digests
from mlship.domain.release import Release, find
from mlship.errors import NotFoundError
from tests.fakes.store import tiny_release

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
releases = st.builds(
    lambda name, seed: msgspec.structs.replace(tiny_release(digests.of_bytes(seed)), name=name),
    st.from_regex(r"[a-z][a-z0-9-]{0,39}", fullmatch=True),
    st.binary(max_size=8),
)


@pytest.mark.slow
@unhurried
@given(st.lists(releases, min_size=1, max_size=8), st.integers(0, 7))
def test_the_name_of_a_release_is_read_back(known: list[Release], index: int) -> None:
    release = known[index % len(known)]
    others = [other for other in known if other.id != release.id]
    for reference in (
        str(release),
        release.id,
        release.id.removeprefix("sha256:"),
        f"{release.name}@{release.id.removeprefix('sha256:')}",
        digests.short(release.id),
    ):
        assert find(reference, [release, *others, release]) == release


def test_names_of_people_and_of_the_shell_are_no_references() -> None:
    for reference in ("", "latest", "iris", "iris@", "3f9", "iris@3F9A0C", "../3f9a0c", "3f9a0c "):
        with pytest.raises(NotFoundError, match="invalid release name"):
            find(reference, [])


def test_an_unknown_release_and_one_of_another_project_are_not_found() -> None:
    release = tiny_release(digests.of_bytes(b"x"))
    with pytest.raises(NotFoundError, match="not found"):
        find("0" * 12, [release])
    with pytest.raises(NotFoundError, match="not found"):
        find(f"wine@{digests.short(release.id)}", [release])
    with pytest.raises(NotFoundError, match="not found"):
        find(str(release), [])


def test_too_few_digits_for_one_release_name_all_that_match() -> None:
    by_prefix: dict[str, Release] = {}
    for number in range(100_000):
        release = tiny_release(digests.of_bytes(b""), commit=f"{number:040x}")
        digits = release.id.removeprefix("sha256:")[:6]
        if digits in by_prefix:
            break
        by_prefix[digits] = release
    else:
        pytest.fail("no two releases share six digits")
    twin = by_prefix[digits]
    with pytest.raises(NotFoundError, match="is ambiguous") as caught:
        find(digits, [release, twin])
    assert str(release) in caught.value.message
    assert str(twin) in caught.value.message


def test_every_field_counts_for_the_identity_and_the_bundle_is_no_input() -> None:
    release = tiny_release(digests.of_bytes(b"bundle"))
    other = digests.of_bytes(b"other")
    changes: list[dict[str, object]] = [
        {"name": "wine"},
        {"commit": "b" * 40},
        {"dirty": True},
        {"data": other},
        {"params": other},
        {"code": other},
        {"environment": other},
    ]
    changed = [msgspec.structs.replace(release, **change) for change in changes]
    assert len({each.id for each in [release, *changed]}) == len(changes) + 1
    assert len({each.inputs for each in [release, *changed]}) == len(changes) + 1
    retrained = msgspec.structs.replace(release, bundle=other)
    assert retrained.inputs == release.inputs
    assert retrained.id != release.id


@pytest.mark.parametrize("name", ["iris", "a", "a-1", "a" * 40])
def test_what_a_project_may_be_called_is_a_releases_name(name: str) -> None:
    assert msgspec.convert(name, Name) == name
    release = msgspec.structs.replace(tiny_release(digests.of_bytes(b"x")), name=name)
    assert find(str(release), [release]) == release


@pytest.mark.parametrize("name", ["", "Iris", "1a", "-a", "a_b", "a" * 41, "a/b", "a\n", "é"])
def test_what_it_may_not_be_called_names_no_release(name: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(name, Name)
    release = msgspec.structs.replace(tiny_release(digests.of_bytes(b"x")), name=name)
    with pytest.raises(NotFoundError, match="invalid release name"):
        find(str(release), [release])
