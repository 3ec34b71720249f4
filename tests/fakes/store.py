"""A store and a ledger in memory, small and honest: they pass the contract of the real ones."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

import msgspec

from mlship.domain import bundle
from mlship.domain.digests import Digest, of_bytes
from mlship.domain.dsse import Signing
from mlship.domain.evidence import Evidence, Record, Saw, Step, decode, encode, heads, in_order
from mlship.domain.release import Release
from mlship.domain.versions import Alias, Run, Version
from mlship.errors import NotFoundError


class FakeLedger:
    """Keeps the bytes of each record. `stored` is public, so that a test can tamper with it.

    Attributes:
        by: signs records, if it is set.
    """

    def __init__(self) -> None:
        self.stored: dict[Digest, bytes] = {}
        self.by: Signing | None = None

    def append(self, evidence: Evidence, *, after: Sequence[Digest] | None = None) -> Record:
        parents = heads(self.records()) if after is None else tuple(after)
        data = encode(msgspec.structs.replace(evidence, parents=parents), self.by)
        record = decode(data)
        self.stored[record.digest] = data
        return record

    def records(self) -> Sequence[Record]:
        return tuple(in_order(self.stored))


def _ticking() -> Callable[[], datetime]:
    ticks = iter(range(1_000_000))
    return lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=next(ticks))


class FakeStore:
    """Keeps runs with the bytes of their files. `runs` is public, for tests to look at."""

    def __init__(self, clock: Callable[[], datetime] | None = None) -> None:
        self._clock = clock or _ticking()
        self.runs: dict[Digest, Run] = {}
        self.files: dict[Digest, dict[str, bytes]] = {}
        self._bundles: dict[Digest, dict[str, bytes]] = {}
        self._versions: list[Version] = []

    def record(self, run: Run) -> None:
        if run.bundle:
            manifest = bundle.read(run.bundle, expected=run.release.bundle)
            names = [*manifest.files, bundle.MANIFEST]
            content = {name: (run.bundle / name).read_bytes() for name in names}
            self._bundles.setdefault(run.release.id, content)
        missing = [path for path in run.files.values() if not path.is_file()]
        if missing:
            message = f"{missing[0]} does not exist"
            raise NotFoundError(message)
        files = self.files.setdefault(run.release.id, {})
        files.update({name: path.read_bytes() for name, path in run.files.items()})
        kept = self.runs.get(run.release.id, Run(release=run.release))
        self.runs[run.release.id] = Run(
            release=run.release,
            params={**kept.params, **run.params},
            metrics={**kept.metrics, **run.metrics},
            tags={**kept.tags, **run.tags},
        )

    def fetch(self, release: Release, into: Path, *, files: Sequence[str] = ()) -> Path:
        for name in files:
            if name not in self.files.get(release.id, {}):
                message = f"no {name} of {release}"
                raise NotFoundError(message)
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            (into / name).write_bytes(self.files[release.id][name])
        if files:
            return into
        if into.exists():
            bundle.read(into, expected=release.bundle)
            return into
        self._recorded(release)
        for name, content in self._bundles[release.id].items():
            path = into / PurePosixPath(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        bundle.read(into, expected=release.bundle)
        return into

    def versions(self) -> Sequence[Version]:
        return tuple(self._versions)

    def point(self, alias: Alias, release: Release | None) -> None:
        if release:
            self._recorded(release)
            if all(version.release != release.id for version in self._versions):
                self._versions.append(
                    Version(
                        number=str(len(self._versions) + 1),
                        release=release.id,
                        aliases=(),
                        archived=False,
                        created=self._clock(),
                    )
                )
        for index, version in enumerate(self._versions):
            aliases = set(version.aliases) - {alias}
            if release and version.release == release.id:
                aliases.add(alias)
            self._versions[index] = msgspec.structs.replace(version, aliases=tuple(sorted(aliases)))

    def archive(self, release: Release, *, archived: bool) -> None:
        for index, version in enumerate(self._versions):
            if version.release == release.id:
                self._versions[index] = msgspec.structs.replace(version, archived=archived)
                return
        message = f"{release} has no registered version"
        raise NotFoundError(message)

    def _recorded(self, release: Release) -> None:
        if release.id not in self._bundles:
            message = f"no bundle of {release}"
            raise NotFoundError(message)


def tiny_bundle(
    folder: Path, text: str = "model", golden: str = "", inputs: Sequence[str] = ("x",)
) -> Digest:
    """Seal a bundle with a model that no runtime would load; return its digest."""
    columns = tuple(bundle.Field(name=name, kind="number") for name in inputs)
    (folder / "model").mkdir(parents=True)
    (folder / "code").mkdir()
    (folder / "model" / "model.onnx").write_text(text)
    (folder / "code" / "pipeline.py").write_text("x = 1\n")
    (folder / bundle.GOLDEN).write_text(golden)
    draft = bundle.Bundle(
        name="iris",
        task="regression",
        target="y",
        schema=bundle.Schema(inputs=columns, outputs=(bundle.Field(name="y", kind="number"),)),
        model=bundle.Model(
            format="onnx", path="model/model.onnx", layout="matrix", columns=columns
        ),
        hooks=bundle.Hooks(),
        metrics={"mae": 0.5},
        requirements=(),
        python="3.11",
    )
    return bundle.seal(folder, draft)


def tiny_release(of_bundle: Digest, *, commit: str = "a" * 40) -> Release:
    """Return a release of a bundle, clean and with made-up inputs."""
    some = of_bytes(b"some input")
    return Release(
        name="iris",
        commit=commit,
        dirty=False,
        data=some,
        params=some,
        code=some,
        environment=some,
        bundle=of_bundle,
    )


def tiny_evidence(step: Step = "test", *, minute: int = 0, **changes: object) -> Evidence:
    """Return evidence of a tiny release, so many minutes into the year 2026."""
    made = Evidence(
        release=tiny_release(of_bytes(b"bundle")),
        step=step,
        verdict="passed",
        facts={"metrics": {"accuracy": 0.97}},
        saw=Saw(data=of_bytes(b"data")),
        actor="ada@example.org",
        time=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute),
    )
    return msgspec.structs.replace(made, **changes)
