"""Texts of mlship.yaml with a form of their own, which errors describe."""

from typing import Annotated

from msgspec import Meta

Name = Annotated[
    str,
    Meta(
        # In Python, $ also matches before a final newline; in JSON schema it does not.
        pattern=r"^[a-z][a-z0-9-]{0,39}(?!\n)$",
        extra={"form": "lower-case letters, digits and -, at most 40 characters: iris"},
    ),
]
Function = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        extra={"form": "module:function, such as pipeline:train"},
    ),
]

Dotted = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+(?!\n)$",
        extra={"form": "module.Name, such as category_encoders.ordinal.OrdinalEncoder"},
    ),
]
Header = Annotated[
    str,
    Meta(
        # Not those that say where a request goes, and not mlship's own.
        pattern=r"^(?!([hH][oO][sS][tT](?!\n)$|[mM][lL][sS][hH][iI][pP]-))[A-Za-z0-9_-]+(?!\n)$",
        extra={"form": "the name of a header in letters, digits, - and _, such as x-user"},
    ),
]
Variable = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_]\w*(?!\n)$",
        extra={"form": "the name of an environment variable, such as AWS_PROFILE"},
    ),
]
Inside = Annotated[
    str,
    Meta(
        pattern=r"^(?!/)(?!(.*/)?\.\.(/|$))[^\\\n]+(?!\n)$",
        extra={"form": "a glob in the project's folder, such as plots/*.png"},
    ),
]
Topic = Annotated[
    str,
    Meta(
        pattern=r"^(?!\.{1,2}(?!\n)$)[A-Za-z0-9._-]{1,249}(?!\n)$",
        extra={"form": "a topic of Kafka in letters, digits, ., - and _, such as iris.features"},
    ),
]

Home = Annotated[
    str,
    Meta(
        pattern=r"^[^\s/]*(/[^\s/]+)*(//[^\n]*)?(?!\n)$",
        extra={"form": "REPOSITORY//FOLDER, such as github.com/ada/homework//models/churn"},
    ),
]
