"""mlship.yaml as frozen values, with the defaults. `layers` reads and merges the settings.

The reference page and the JSON schema for editors are generated from these classes: from the
type, the default and the description of each key.
"""

import functools
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mlship.config.backends import LedgerConfig, ObservationsConfig, StoreConfig
from mlship.config.batch import BatchConfig
from mlship.config.data import DataConfig, Share
from mlship.config.schedules import Schedules
from mlship.config.serving import Seconds, Serving
from mlship.config.stream import StreamConfig
from mlship.config.texts import Dotted, Function, Header, Home, Inside, Name, Variable
from mlship.config.trust import TrustConfig
from mlship.config.workflows import WorkflowsConfig
from mlship.domain.image import Builder, Platform
from mlship.domain.policy import Bound, ChallengerBounds, PromotePolicy

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Percent = Annotated[int, Meta(ge=0, le=100)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ModelConfig(_Section, frozen=True):
    """How the model is trained, and what is bundled with it."""

    train: Annotated[
        Function | None,
        Meta(description="train(data, params) -> a fitted estimator, or the path of a saved model"),
    ] = None
    command: Annotated[
        str | None,
        Meta(description="instead of `train`: a command that trains, such as python train.py"),
    ] = None
    saved: Annotated[
        str | None, Meta(description="the model file that `command` writes, a path in the project")
    ] = None
    task: Annotated[
        Literal["auto", "classification", "regression", "clustering", "anomaly"],
        Meta(
            description="`auto` detects classification or regression from the estimator, then from "
            "the target; `clustering` and `anomaly` need no target"
        ),
    ] = "auto"
    classes: Annotated[
        tuple[str | int | bool | float, ...],
        Meta(
            description="labels in the order of the class codes of a model that counts them; "
            "not needed for 0, 1, 2"
        ),
    ] = ()
    quantiles: Annotated[
        tuple[Share, ...],
        Meta(description="quantiles that a regression answers with, ascending: [0.1, 0.5, 0.9]"),
    ] = ()
    output: Annotated[
        Literal["auto", "logits", "probabilities", "values"],
        Meta(
            description="what a network or an ONNX file returns: scores before softmax or sigmoid, "
            "probabilities, or the predicted numbers; `auto` if the model says it itself"
        ),
    ] = "auto"
    params: Annotated[dict[str, Any], Meta(description="passed to the training function")] = {}
    preprocess: Annotated[
        Function | None,
        Meta(description="preprocess(rows: DataFrame) -> DataFrame, before training and serving"),
    ] = None
    postprocess: Annotated[
        Function | None,
        Meta(description="postprocess(outputs: DataFrame) -> DataFrame, on the model's outputs"),
    ] = None
    include: Annotated[
        tuple[str, ...], Meta(description="globs of files that the hooks read; they are bundled")
    ] = ()
    trust: Annotated[
        tuple[Dotted, ...],
        Meta(
            description="types and functions of other libraries that the model may hold, by exact "
            "name; each is code that runs wherever the model is loaded"
        ),
    ] = ()
    environment: Annotated[
        tuple[Variable, ...],
        Meta(
            description="variables that training, scoring and tests get beside the usual ones, by "
            "exact name, such as AWS_PROFILE"
        ),
    ] = ()
    allow_pickle: Annotated[
        bool, Meta(description="accept a saved pickle or joblib model; needs `pickle_sha256`")
    ] = False
    pickle_sha256: Annotated[
        str | None, Meta(description="sha256 of the pickle, checked before it is loaded")
    ] = None

    @property
    def source(self) -> str:
        """What makes the model: the training function or the command."""
        return self.train or self.command or ""


class TestsConfig(_Section, frozen=True):
    """The project's own tests, run by pytest. Paths that are named must be there."""

    unit: Annotated[
        str | tuple[str, ...] | None,
        Meta(
            description="the code's tests: a folder, a file or a list; default: tests/unit, if any"
        ),
    ] = None
    sanity: Annotated[
        str | tuple[str, ...] | None,
        Meta(
            description="tests of the served model, with the fixture `client`: folder, file or a "
            "list; default: tests/sanity, if any"
        ),
    ] = None

    def named(self, suite: Literal["unit", "sanity"]) -> tuple[str, ...]:
        """The paths that the project names for a suite; none for the default."""
        paths = self.unit if suite == "unit" else self.sanity
        return (paths,) if isinstance(paths, str) else paths or ()

    def paths(self, suite: Literal["unit", "sanity"]) -> tuple[str, ...]:
        """The paths of a suite, which are a folder of its name by default."""
        return self.named(suite) or (f"tests/{suite}",)


class GatesConfig(_Section, frozen=True):
    """The bounds that a release must meet."""

    test: Annotated[
        dict[str, Bound], Meta(description="metrics on held-out data, and slices_worse")
    ] = {}
    baseline: Annotated[
        bool,
        Meta(
            description="require that the release beats a constant answer on held-out data, or "
            "without a target that it tells rows apart"
        ),
    ] = True
    min_rows: Annotated[Positive, Meta(description="held-out rows that are required")] = 10
    staging: Annotated[
        dict[str, Bound], Meta(description="errors, mismatches, p50_ms, p99_ms of the workload")
    ] = msgspec.field(default_factory=lambda: {"errors": Bound(max=0), "mismatches": Bound(max=0)})
    container: Annotated[
        bool,
        Meta(
            description="`run` and `deploy-production` require that the image passed "
            "`test --container`; false needs no Docker engine, and reports show it"
        ),
    ] = True
    compatible: Annotated[
        bool,
        Meta(
            description="require that a challenger accepts the champion's requests and gives its "
            "outputs; false lets a part of the requests fail until callers have changed, and "
            "reports show it"
        ),
    ] = True
    promote: PromotePolicy = PromotePolicy()


class ImageConfig(_Section, frozen=True):
    """The container image. Targets of kind `local` run the bundle and need no image."""

    repository: Annotated[
        str | None, Meta(description="repository to push to: registry/path/name")
    ] = None
    create: Annotated[
        bool, Meta(description="create a missing repository of Artifact Registry on a push")
    ] = False
    base: Annotated[str, Meta(description="base image; pin it by digest: name:tag@sha256:...")] = (
        "python:3.11-slim"
    )
    builder: Annotated[
        Builder,
        Meta(
            description="`oci` needs no Docker and gives the same digest on every machine; "
            "`docker` builds a generated Dockerfile once, which `extend` can add to"
        ),
    ] = "oci"
    extend: Annotated[
        str | None,
        Meta(
            description="file of Dockerfile instructions, such as `RUN apt-get ...`, inserted "
            "after FROM; builder docker only"
        ),
    ] = None
    platforms: Annotated[
        tuple[Platform, ...], Meta(min_length=1, description="platforms to build for")
    ] = ("linux/amd64",)
    memory: Annotated[
        str,
        Meta(
            pattern=r"^[1-9][0-9]*[kmg]$",
            description="memory limit of the container that `test --container` runs",
            extra={"form": "a number and k, m or g, such as 512m"},
        ),
    ] = "512m"
    max_mb: Annotated[
        Positive, Meta(description="largest unpacked size that `test --container` accepts")
    ] = 500
    source: Annotated[
        str | None, Meta(description="URL of the source code, for the image's label")
    ] = None
    attach: Annotated[
        Literal["try", "require", "off"],
        Meta(
            description="SBOM, provenance and records at the pushed image: `try` goes on where a "
            "registry refuses them, `require` fails"
        ),
    ] = "try"
    insecure: Annotated[
        tuple[str, ...],
        Meta(description="registries to use without TLS, as host:port; localhost is always one"),
    ] = ()


class TargetConfig(Serving, frozen=True):
    """A place where releases run."""

    port: Annotated[
        Annotated[int, Meta(ge=0, le=65535)],
        Meta(description="port of the load balancer; 0 picks a free one and keeps it; local only"),
    ] = 0
    replicas: Annotated[Positive, Meta(description="replicas of the champion")] = 1
    challenger_replicas: Annotated[Positive, Meta(description="replicas of a challenger")] = 1
    challenger_weight: Annotated[
        Percent, Meta(description="percent of the traffic that a new challenger gets")
    ] = 10
    shadow: Annotated[
        bool,
        Meta(description="mirror all traffic to a new challenger and drop its responses"),
    ] = False
    sticky_header: Annotated[
        Header | None,
        Meta(
            description="header whose value selects the release that responds; not with a Gateway; "
            "with `load_balancer`, a number from 0 to 99"
        ),
    ] = None
    warm_minutes: Annotated[
        Seconds, Meta(description="how long a former champion keeps running before `retire`")
    ] = 60.0
    challenger_bounds: Annotated[
        ChallengerBounds,
        Meta(description="when `mlship watch` takes a challenger off traffic; production only"),
    ] = ChallengerBounds()


class ReportConfig(_Section, frozen=True):
    """What reports show beside the results of the steps."""

    include: Annotated[
        tuple[Inside, ...],
        Meta(
            description="globs of files that training wrote or the repository has, such as "
            "[metrics.csv, plots/*.png]: .csv and .tsv are tables, .md, .txt and .json texts, "
            ".png and .jpg pictures; at most 10 files"
        ),
    ] = ()


class Config(_Section, frozen=True):
    """A project. `name`, `data.train` and `model.train` or `model.command` are required."""

    name: Annotated[Name, Meta(description="name of the project and of its registered model")]
    data: DataConfig
    model: ModelConfig
    metrics: Annotated[
        dict[str, str],
        Meta(
            description="more metrics, by name: a scorer of scikit-learn such as roc_auc, "
            "recall[CLASS], pinball[0.9], or a function cost(truth: Series, outputs: DataFrame) -> "
            "number; the truth of several targets is a DataFrame"
        ),
    ] = {}
    tests: TestsConfig = TestsConfig()
    gates: GatesConfig = GatesConfig()
    workload: Annotated[
        str | None,
        Meta(
            description="file of recorded requests, one JSON object per line; default: the golden "
            "examples"
        ),
    ] = None
    image: ImageConfig = ImageConfig()
    targets: Annotated[
        dict[Name, TargetConfig], Meta(description="by name: mlship uses staging and production")
    ] = msgspec.field(
        default_factory=lambda: {
            "staging": TargetConfig(),
            "production": TargetConfig(replicas=2),
        }
    )
    store: StoreConfig = StoreConfig()
    ledger: LedgerConfig = LedgerConfig()
    trust: TrustConfig = TrustConfig()
    observations: ObservationsConfig = ObservationsConfig()
    stream: StreamConfig | None = None
    report: ReportConfig = ReportConfig()
    batch: BatchConfig = BatchConfig()
    workflows: WorkflowsConfig = WorkflowsConfig()
    schedules: Schedules = {}
    home: Annotated[
        Home | None,
        Meta(
            description="the repository and the folder of the project, which tell it from others "
            "of its name; default: of the remote `origin`. Set the former ones after a move"
        ),
    ] = None


@functools.cache
def json_schema() -> dict[str, Any]:
    """Return the JSON schema of mlship.yaml, for editors. It is read, never changed."""
    schema = msgspec.json.schema(Config)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mlship.yaml",
    } | schema
