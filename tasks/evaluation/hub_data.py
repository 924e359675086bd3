"""Which commit a data set of the Hub is at."""

from pathlib import Path

TIME_LIMIT_S = 5


def dataset_commit(name: str) -> str | None:
    """Return the newest commit of a Hub data set; where the Hub does not answer, the one in the cache.

    None where neither is known: then lm-eval says what it can load, or why not.
    """
    from huggingface_hub import HfApi, constants, is_offline_mode
    from huggingface_hub.file_download import repo_folder_name

    if not is_offline_mode():
        try:
            return HfApi().dataset_info(name, timeout=TIME_LIMIT_S).sha
        except Exception:  # no network, no access, no such data set: loading it tells which
            pass
    folder = repo_folder_name(repo_id=name, repo_type="dataset")
    note = Path(constants.HF_HUB_CACHE) / folder / "refs" / "main"
    return note.read_text().strip() if note.is_file() else None
