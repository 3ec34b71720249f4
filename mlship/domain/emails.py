"""Email addresses of people: which of them are one, and which a reader cannot tell apart.

Two addresses that differ only in what nobody sees belong to one person. So addresses are compared
without it, and an address with it is an error where people are named.
"""

import re
import unicodedata
from typing import Final

_CATEGORIES: Final = frozenset(("Cc", "Cf", "Zl", "Zp", "Zs"))
_IGNORED: Final = re.compile(
    r"[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2065\u3164\ufe00-\ufe0f\uffa0"
    r"\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
"""The characters of Unicode's property Default_Ignorable_Code_Point that are not of category Cf,
such as variation selectors."""


def canonical(text: str) -> str:
    """Return an address, or an account's name, in the form in which two of them are compared.

    It has compatible forms of characters replaced (NFKC), is in lower case, and has no spaces and
    no invisible characters. The domain of an address has no dot at its end.
    """
    # What is invisible can stand between letter and accent; normalisation can leave spaces.
    folded = unicodedata.normalize("NFKC", _visible(text)).casefold()
    plain = unicodedata.normalize("NFKC", _visible(unicodedata.normalize("NFKC", folded)))
    return plain.rstrip(".") if "@" in plain else plain


def invisible(text: str) -> str:
    """Return the first invisible character of a text, such as U+200B (ZERO WIDTH SPACE).

    Spaces of ASCII are none of them. If there is none, the text is empty.
    """
    return next((_named(each) for each in text if each != " " and not _visible(each)), "")


def beyond_ascii(text: str) -> str:
    """Return the first character outside of ASCII, as `invisible` does; empty if there is none."""
    return next((_named(each) for each in text if not each.isascii()), "")


def fault(email: str) -> str:
    """Return why an address may not name a person, although it reads as one; empty if it may."""
    if character := invisible(email):
        return f"has the invisible character {character}"
    return "ends with a dot" if unicodedata.normalize("NFKC", email).endswith(".") else ""


def _visible(text: str) -> str:
    return "".join(
        each
        for each in text
        if unicodedata.category(each) not in _CATEGORIES and not _IGNORED.match(each)
    )


def _named(character: str) -> str:
    name = unicodedata.name(character, "")
    return f"U+{ord(character):04X}" + (f" ({name})" if name else "")
