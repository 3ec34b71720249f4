"""Which route speaks which dialect."""

from mlship.domain.bundle import Bundle
from mlship.runtime.dialects import Dialect, invocations, predict, v2


def routes(bundle: Bundle, release: str, version: str) -> dict[str, Dialect]:
    """Return the dialect of each path that predicts.

    Args:
        bundle: the served bundle.
        release: the name of the release.
        version: the first digits of the release's id, which are the version in V2 paths.
    """
    infer = v2.dialect(bundle, release, version)
    model = f"/v2/models/{bundle.name}"
    return {
        "/predict": predict.dialect(bundle.schema, release),
        "/invocations": invocations.invocations(bundle.schema, release),
        f"/v1/models/{bundle.name}:predict": invocations.v1(bundle.schema, release),
        f"{model}/infer": infer,
        f"{model}/versions/{version}/infer": infer,
    }
