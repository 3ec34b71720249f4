"""Files that mlship makes and a person may take over: the first line tells an edited one."""

import re

from mlship import digests


def signed(text: str, by: str) -> str:
    """Return a text below a line of comment that says what wrote it, with its digest.

    Args:
        text: of a file in which `#` begins a comment.
        by: what writes it, as `mlship init` in its quotes.
    """
    return f"{_head(by)}{_digest(text)}\n{text}"


def is_untouched(text: str, by: str) -> bool:
    """Tell whether a file is as something wrote it, be it of other settings."""
    made = re.match(re.escape(_head(by)) + r"([0-9a-f]{12})\n", text)
    return made is not None and made[1] == _digest(text[made.end() :])


def _head(by: str) -> str:
    return f"# Written by {by}; once edited, it is left alone. Digest: "


def _digest(text: str) -> str:
    return digests.short(digests.of_bytes(text.encode()))
