"""The section `workflows` of mlship.yaml: what GitHub's jobs need that no other section tells."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Source = Annotated[
    str,
    Meta(
        pattern=r"^(?!-)[\w./:@+=<>~!,#&%?-]+$",
        extra={"form": "as git+https://example.org/mlship@COMMIT, ./tools/mlship or ."},
    ),
]


class WorkflowsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The GitHub workflows that `mlship init` writes; run it again after a change here."""

    report: Annotated[
        Literal["github", "cml"],
        Meta(
            description="what posts reports on pull requests: CML's program, or mlship itself, "
            "which also does it if CML's program is missing or fails"
        ),
    ] = "cml"
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
            description="where jobs install mlship-cd from: a git address at the full hash of a "
            "commit, a wheel's address with its sha256, a folder of the repository, or "
            "mlship-cd==VERSION where requirements.txt pins it with hashes; without it, where "
            "`mlship init` itself was installed from",
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
