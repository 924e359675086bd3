"""What a model is known by: its files, and the base of an adapter."""

from pydantic import ConfigDict

from tasks.base.json_digest import digest_of
from tasks.base.records.record import FileDigest, Record


class AdapterBase(Record):
    """The model that adapters are made for, as it was when they were fetched."""

    address: str
    """A directory, or hf://org/name@commit in the Hub's cache."""
    files: tuple[FileDigest, ...]

    @property
    def digest(self) -> str:
        """Identity of the model, wherever it is."""
        return model_digest(self.files)


class MergedBase(Record):
    """The base in a merge.json of any release, whose other fields may be in another form."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    base: AdapterBase | None = None


def model_digest(files: tuple[FileDigest, ...]) -> str:
    """Return the digest of the files that decide a model's outputs; trainer_state.json does not."""
    return digest_of(sorted((file.name, file.digest) for file in files if file.name != "trainer_state.json"))


def digest_on(base: AdapterBase | None, files: tuple[FileDigest, ...]) -> str:
    """Return the digest of a model: of its files, and where it is an adapter of its base too."""
    own = model_digest(files)
    return digest_of(["adapter", own, base.digest]) if base else own
