"""Locks: one holder at a time, named to whoever comes second."""

import errno
import os
import sys
from pathlib import Path

import pytest

from mlship.adapters.targets.local.locks import FileLocks, hold, holder, is_held
from mlship.errors import ConflictError, UnavailableError


def test_the_second_is_told_who_holds_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/mlship", "promote", "challenger"])
    locks = FileLocks(tmp_path / "locks")
    with (
        locks.exclusive("production"),
        pytest.raises(ConflictError, match=f"production.*{os.getpid()}: mlship promote challenger"),
        FileLocks(tmp_path / "locks").exclusive("production"),
    ):
        pass


def test_locks_of_other_names_are_free(tmp_path: Path) -> None:
    locks = FileLocks(tmp_path)
    with locks.exclusive("staging"), locks.exclusive("production"):
        assert is_held(tmp_path / "staging.lock")


def test_a_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    locks = FileLocks(tmp_path)
    with pytest.raises(ValueError, match="no"), locks.exclusive("staging"):
        raise ValueError("no")
    with locks.exclusive("staging"):
        pass
    assert not is_held(tmp_path / "staging.lock")
    assert holder(tmp_path / "staging.lock") == ""


def test_the_loser_does_not_wipe_out_the_name_of_the_holder(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with hold(path, what="a"):
        for _ in range(2):
            with pytest.raises(ConflictError, match=str(os.getpid())), hold(path, what="a"):
                pass
        assert holder(path).startswith(f"{os.getpid()}:")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="file"), FileLocks(tmp_path / "file").exclusive("a"):
        pass


def test_a_lock_in_a_folder_that_cannot_be_written_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`status` said that a supervisor had been killed which ran."""
    path, opened = tmp_path / "supervisor.lock", os.open

    def read_only(file: Path, flags: int, *mode: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, "Read-only file system", str(file))
        return opened(file, flags, *mode)

    with hold(path, what="target staging"):
        monkeypatch.setattr(os, "open", read_only)
        assert is_held(path)
    assert not is_held(path)
