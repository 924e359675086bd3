"""The base of all sections of params.yaml: a strict, frozen model."""

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""Characters that no path, database or record takes."""


class Section(BaseModel):
    """A section of params.yaml: immutable, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        serialize_by_alias=True,
        defer_build=True,  # a merge need not wait for the models of other stages
    )

    @model_validator(mode="before")
    @classmethod
    def _storable(cls, tree: Any) -> Any:
        """Refuse texts that cannot be kept."""
        for key, value in tree.items() if isinstance(tree, dict) else ():
            for text in value if isinstance(value, list | tuple) else (value,):
                if isinstance(text, str) and UNSTORABLE.search(text):
                    raise ValueError(f"{key} holds a NUL or what is not UTF-8", "write it without")
        return tree
