"""mlship.yaml as frozen values. Defaults live here; `layers` reads and merges.

Every key has one meaning and one default, stated beside it; the reference page and the JSON
schema for editors are made from these classes.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mlship.config.backends import LedgerConfig, ObservationsConfig, StoreConfig
from mlship.config.targets import GkeConfig, KubernetesConfig
from mlship.config.workflows import WorkflowsConfig
from mlship.domain.image import Builder, Platform
from mlship.domain.policy import Bound, PromotePolicy

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Percent = Annotated[int, Meta(ge=0, le=100)]
Share = Annotated[float, Meta(gt=0, lt=1)]
Seconds = Annotated[float, Meta(ge=0)]
Name = Annotated[
    str,
    Meta(
        # Python takes $ before a line end too; an editor that checks the schema does not.
        pattern=r"^[a-z][a-z0-9-]{0,39}(?!\n)$",
        extra={"form": "lower-case letters, digits and -, at most 40, as in iris"},
    ),
]
Function = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        extra={"form": "module:function, as in pipeline:train"},
    ),
]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class SplitConfig(_Section, frozen=True):
    """Hold rows of `data.train` out by chance, instead of a file of their own."""

    fraction: Annotated[Share, Meta(description="share of the rows that is held out")] = 0.2
    seed: Annotated[int, Meta(description="the same seed holds out the same rows")] = 0
    stratify: Annotated[
        str | None, Meta(description="column whose shares are kept on both sides")
    ] = None


class DataConfig(_Section, frozen=True):
    """Where the data is."""

    train: Annotated[
        str, Meta(description="CSV, Parquet or JSON lines: a path or an fsspec URL; .dvc followed")
    ]
    test: Annotated[str | None, Meta(description="held-out data; or give `split`")] = None
    split: Annotated[SplitConfig | None, Meta(description="hold rows of `train` out")] = None
    target: Annotated[str, Meta(description="the column to predict")] = "target"
    slices: Annotated[
        tuple[str, ...],
        Meta(description="columns on whose values release and champion are compared; else all"),
    ] = ()


class ModelConfig(_Section, frozen=True):
    """How the model is made and what goes with it."""

    train: Annotated[
        Function,
        Meta(description="train(data, params) -> a fitted estimator, or the path of a saved model"),
    ]
    task: Annotated[
        Literal["auto", "classification", "regression"],
        Meta(description="`auto` asks the estimator, then the target column"),
    ] = "auto"
    params: Annotated[dict[str, Any], Meta(description="given to the training function")] = {}
    preprocess: Annotated[
        Function | None,
        Meta(description="preprocess(rows: DataFrame) -> DataFrame, before training and serving"),
    ] = None
    postprocess: Annotated[
        Function | None,
        Meta(description="postprocess(outputs: DataFrame) -> DataFrame, on the model's outputs"),
    ] = None
    include: Annotated[
        tuple[str, ...], Meta(description="globs of files that the hooks read; they travel along")
    ] = ()
    allow_pickle: Annotated[
        bool, Meta(description="accept a saved pickle or joblib model; needs `pickle_sha256`")
    ] = False
    pickle_sha256: Annotated[
        str | None, Meta(description="sha256 of the pickle, checked before it is loaded")
    ] = None


class TestsConfig(_Section, frozen=True):
    """The project's own tests, run by pytest."""

    unit: Annotated[str, Meta(description="folder of the code's tests")] = "tests/unit"
    sanity: Annotated[
        str, Meta(description="folder of tests of the served model; fixture `client`")
    ] = "tests/sanity"


class GatesConfig(_Section, frozen=True):
    """What a release must reach."""

    test: Annotated[
        dict[str, Bound], Meta(description="metrics on held-out data, and slices_worse")
    ] = {}
    staging: Annotated[
        dict[str, Bound], Meta(description="errors, mismatches, p50_ms, p99_ms of the workload")
    ] = msgspec.field(default_factory=lambda: {"errors": Bound(max=0), "mismatches": Bound(max=0)})
    container: Annotated[
        bool,
        Meta(
            description="`run` and production ask an image for a passed `test --container`; false "
            "does without an engine, and reports say so"
        ),
    ] = True
    promote: PromotePolicy = PromotePolicy()


class ImageConfig(_Section, frozen=True):
    """The container image. Targets of kind `local` run the bundle and need none."""

    repository: Annotated[str | None, Meta(description="where images are pushed")] = None
    create: Annotated[
        bool, Meta(description="make a repository of Artifact Registry that is missing, on a push")
    ] = False
    base: Annotated[
        str, Meta(description="the image that it is built on, best by digest: name:tag@sha256:...")
    ] = "python:3.11-slim"
    builder: Annotated[
        Builder,
        Meta(
            description="`oci` needs no engine and gives the same digest anywhere; `docker` builds "
            "a generated Dockerfile in an engine, once, and can be extended"
        ),
    ] = "oci"
    extend: Annotated[
        str | None,
        Meta(
            description="file with Dockerfile instructions, as `RUN apt-get ...`, that come after "
            "FROM; for builder docker"
        ),
    ] = None
    platforms: Annotated[
        tuple[Platform, ...], Meta(min_length=1, description="what it shall run on")
    ] = ("linux/amd64",)
    memory: Annotated[
        str,
        Meta(
            pattern=r"^[1-9][0-9]*[kmg]$",
            description="limit of the container that `test --container` runs",
            extra={"form": "a number and k, m or g, as in 512m"},
        ),
    ] = "512m"
    max_mb: Annotated[
        Positive, Meta(description="size, unpacked, that `test --container` allows")
    ] = 500
    source: Annotated[
        str | None, Meta(description="address of the source code, for the image's label")
    ] = None
    insecure: Annotated[
        tuple[str, ...],
        Meta(description="registries spoken to without TLS, as host:port; localhost always is"),
    ] = ()


class TargetConfig(_Section, frozen=True):
    """A place where releases run."""

    kind: Annotated[
        Literal["local", "kubernetes", "gke"],
        Meta(description="processes on this machine, a cluster, or a cluster of Google's"),
    ] = "local"
    kubernetes: KubernetesConfig = KubernetesConfig()
    gke: Annotated[GkeConfig | None, Meta(description="for kind gke")] = None
    port: Annotated[
        Annotated[int, Meta(ge=0, le=65535)],
        Meta(description="of the load balancer; 0 takes a free one and keeps it; local only"),
    ] = 0
    replicas: Annotated[Positive, Meta(description="of the champion")] = 1
    challenger_replicas: Annotated[Positive, Meta(description="of a challenger")] = 1
    challenger_weight: Annotated[
        Percent, Meta(description="percent of the traffic that a new challenger gets")
    ] = 10
    shadow: Annotated[
        bool, Meta(description="a new challenger gets a copy of all traffic, and answers nobody")
    ] = False
    sticky_header: Annotated[
        str | None,
        Meta(description="requests with the same value of it stay on one side; local only"),
    ] = None
    ready_seconds: Annotated[Seconds, Meta(description="to get ready in")] = 60.0
    drain_seconds: Annotated[Seconds, Meta(description="to finish requests in, on removal")] = 10.0
    warm_minutes: Annotated[
        Seconds, Meta(description="a former champion stays ready so long before `retire` may act")
    ] = 60.0


class Config(_Section, frozen=True):
    """A project as mlship.yaml describes it; `name`, `data.train` and `model.train` are needed."""

    name: Annotated[Name, Meta(description="of the project and of its registered model")]
    data: DataConfig
    model: ModelConfig
    tests: TestsConfig = TestsConfig()
    gates: GatesConfig = GatesConfig()
    workload: Annotated[
        str | None,
        Meta(description="recorded requests, one JSON object a line; without it golden examples"),
    ] = None
    image: ImageConfig = ImageConfig()
    targets: Annotated[
        dict[Name, TargetConfig], Meta(description="by name: staging and production are used")
    ] = msgspec.field(
        default_factory=lambda: {
            "staging": TargetConfig(),
            "production": TargetConfig(replicas=2),
        }
    )
    store: StoreConfig = StoreConfig()
    ledger: LedgerConfig = LedgerConfig()
    observations: ObservationsConfig = ObservationsConfig()
    workflows: WorkflowsConfig = WorkflowsConfig()


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of mlship.yaml, for editors."""
    schema = msgspec.json.schema(Config)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mlship.yaml",
    } | schema
