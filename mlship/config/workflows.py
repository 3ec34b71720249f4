"""The section `workflows` of mlship.yaml: what GitHub's jobs need that no other section tells."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Source = Annotated[
    str,
    Meta(
        pattern=r"^(?!-)[\w./:@+=<>~!,#&%?-]+$",
        extra={"form": "as mlship==1.2.0, git+https://example.org/mlship@v1.2.0 or ."},
    ),
]


class WorkflowsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The GitHub workflows that `mlship init` writes; run it again after a change here."""

    report: Annotated[
        Literal["github", "cml"],
        Meta(description="who posts reports on pull requests: mlship itself, or CML's program"),
    ] = "github"
    python: Annotated[
        str,
        Meta(
            pattern=r"^3\.\d+$",
            description="of the jobs; a model is served by the version that trained it",
            extra={"form": "as 3.11"},
        ),
    ] = "3.11"
    mlship: Annotated[
        Source | None,
        Meta(
            description="what jobs install as mlship: a version or an address as pip takes it, or "
            "a folder of the repository; without it the version that wrote the workflows",
        ),
    ] = None
    evaluate: Annotated[
        str,
        Meta(
            pattern=r"^[\d*/,-]+( [\d*/,-]+){4}$",
            description="when the challenger is evaluated, in UTC",
            extra={"form": "cron's five fields, as 17 5 * * *"},
        ),
    ] = "17 5 * * *"
