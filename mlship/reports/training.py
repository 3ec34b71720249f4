"""What a release was trained from, in words, for all formats."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from mlship.domain import digests
from mlship.domain.commit import named
from mlship.domain.facts import Tested, Trained
from mlship.domain.notation import bare
from mlship.domain.release import Release
from mlship.errors import some
from mlship.reports.formatting import short

_PARAMS_MOST: Final = 12


def sentence(
    release: Release,
    trained: Trained | None,
    tested: Tested | None,
    differing: Collection[str] = (),
) -> str:
    """Return parameters, data, held-out rows and files that were read as untrusted text.

    Such as: Trained with C=1.0 on data/train.csv (120 rows, 4 columns; digest 3f9a0c12be77), 30
    rows held out. The training read params.yaml, not as the champion's did. Empty for evidence of
    older versions, which does not name the data.

    Args:
        release: that is reported.
        trained: the facts of its training.
        tested: the facts of its test.
        differing: the files that its training read, and the champion's read otherwise.
    """
    if trained is None or not trained.data:
        return ""
    size = f"{trained.rows} rows, {trained.features} columns; " if trained.rows else ""
    text = f"Trained {_params(trained.params)} on {short(trained.data, 120)}"
    text += f" ({size}digest {digests.short(release.data)})"
    if tested is not None and tested.samples:
        of_file = f" in {short(trained.held_out, 120)}" if trained.held_out else ""
        text += f", {tested.samples} rows held out{of_file}"
    return f"{text}.{_files(trained, differing)}"


def _files(trained: Trained, differing: Collection[str]) -> str:
    """Return which files a training read that may have its parameters, those that differ first."""
    data = (trained.data, trained.held_out)
    read = [path for path, digest in trained.opened.read.items() if digest and path not in data]
    other = [path for path in read if path in differing]
    same = [path for path in read if path not in differing]
    parts = [f"{named(other)}, not as the champion's did"] if other else []
    parts += [named(same)] if same else []
    return f" The training read {'; and '.join(parts)}." if parts else ""


def _params(params: Mapping[str, Any]) -> str:
    flat = [f"{short(name, 40)}={short(bare(value), 40)}" for name, value in _flat(params)]
    if not flat:
        return "without model.params"
    return f"with {some(flat, _PARAMS_MOST)}"


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
