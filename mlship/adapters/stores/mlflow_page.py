"""The page of a registered version in MLflow: its tags, and a description in Markdown."""

import re
from typing import Final

from mlship.adapters.stores.mlflow_fast import RELEASE
from mlship.adapters.stores.mlflow_runs import BUNDLE, COLUMNS, KeptRun, Page
from mlship.domain.bundle import Schema
from mlship.domain.release import Release
from mlship.domain.versions import VERDICT

_MARKS: Final = re.compile(r"([\\`*_{}\[\]()<>#+!|~])")
_METRICS: Final = 30
_COLUMNS: Final = 50
_LONGEST: Final = 5000
"""MLflow accepts so many characters of a description."""


def page(run: KeptRun, release: Release) -> Page:
    """Return the page of a release's version, from what is known when it is registered."""
    verdict = run.tags.get(VERDICT, "not recorded")
    tags = {RELEASE: release.id, "mlship.commit": release.commit, BUNDLE: release.bundle}
    if VERDICT in run.tags:
        tags[VERDICT] = verdict
    branch = run.tags.get("branch", "")
    commit = f"`{release.commit}`" + (f" of branch {_plain(branch)}" if branch else "")
    if release.dirty:
        commit += ", with uncommitted changes"
    facts = {
        "Release": f"`{release}`",
        "Commit": commit,
        "Tests": _plain(verdict),
        "Data": f"`{release.data}`",
        "Bundle": f"`{release.bundle}`",
    }
    if COLUMNS in run.tags:
        facts["Columns"] = _plain(run.tags[COLUMNS][: _LONGEST // 2])
    metrics = {
        _plain(name): f"{value:.6g}" for name, value in sorted(run.metrics.items())[:_METRICS]
    }
    load = f'mlflow.pyfunc.load_model("models:/{release.name}@champion").predict(rows)'
    parts = ["\n".join(f"- **{name}:** {value}" for name, value in facts.items())]
    if metrics:
        parts += ["**Metrics on held-out data**", _table("Metric", "Value", metrics)]
    parts += [f"`{load}` gives the answers that are served."]
    text = "\n\n".join(parts)
    return Page(tags=tags, description=text[:_LONGEST])


def columns(schema: Schema) -> str:
    """Return the columns of a request on one line, because the signature has no types."""
    texts = [
        f"{field.name} ({field.kind}{', may be null' if field.nullable else ''})"
        for field in schema.inputs[:_COLUMNS]
    ]
    more = len(schema.inputs) - len(texts)
    return ", ".join([*texts, *([f"and {more} more"] if more else [])])


def _table(left: str, right: str, rows: dict[str, str]) -> str:
    lines = [f"| {left} | {right} |", "| --- | --- |"]
    return "\n".join(lines + [f"| {key} | {value} |" for key, value in rows.items()])


def _plain(text: str) -> str:
    """Return text as Markdown that shows it, on one line."""
    return _MARKS.sub(r"\\\1", " ".join(text.split()))
