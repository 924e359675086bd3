"""The base of all sections of params.yaml: a strict, frozen model."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of params.yaml: immutable, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        serialize_by_alias=True,
        defer_build=True,  # a merge need not wait for the models of other stages
    )
