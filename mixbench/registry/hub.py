"""Models and data sets of the Hugging Face Hub."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

from mixbench.errors import DataError, UsageError, one_line
from mixbench.registry.model_names import HUB, timm_models

CONVERTED = "refs/convert/parquet"  # revision in which the Hub has all data sets as parquet files
PARQUET = "*.parquet"


@cache
def of_hub(asked: str) -> tuple[str, str]:
    """Return the architecture of a model of the Hub, and its id with the commit that it has now.

    Parameters
    ----------
    asked
        ``hf-hub:ORG/NAME`` or ``hf-hub:ORG/NAME@REVISION``.

    Raises
    ------
    DataError
        If the Hub does not answer, or has no such model.
    UsageError
        If the model is not one of timm.
    """
    from huggingface_hub import hf_hub_download

    repository, _, revision = asked.removeprefix(HUB).partition("@")
    with _asking(f"The model {asked}"):
        path = Path(hf_hub_download(repository, "config.json", revision=revision or None))
    try:
        architecture = json.loads(path.read_text(encoding="utf-8"))["architecture"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{asked} is not a model of timm: its config.json names no architecture. Give a file "
            "with --model and its weights with --init."
        ) from error
    if architecture not in timm_models():
        raise UsageError(
            f"{asked} is a model that timm does not have, {one_line(str(architecture), 100)}: "
            "install a newer timm, or choose another model."
        )
    # The cache of the Hub keeps each commit in a folder of its own.
    return str(architecture), f"{HUB}{repository}@{path.parent.name}"


def parquet_of_hub(asked: str) -> Path:
    """Return the folder with the parquet files of a data set of the Hub, after downloading them.

    Parameters
    ----------
    asked
        ``ORG/NAME`` or ``ORG/NAME@REVISION``.

    Raises
    ------
    DataError
        If the Hub does not answer, or has no such data set.
    """
    from huggingface_hub import snapshot_download

    name, _, revision = asked.partition("@")
    get = partial(snapshot_download, name, repo_type="dataset", allow_patterns=PARQUET)
    with _asking(f"The data set {asked}"):
        folder = Path(get(revision=revision or None))
        if any(folder.rglob(PARQUET)):
            return folder
        return Path(get(revision=CONVERTED))


def push(folder: Path, repository: str) -> str:
    """Upload a folder as a model of the Hub, ORG/NAME, and return its address.

    Raises
    ------
    DataError
        If the Hub does not answer or does not let the user write, who has to be logged in.
    """
    from huggingface_hub import HfApi

    with _asking(f"The model {repository}", "pushed to"):
        api = HfApi()
        address = api.create_repo(repository, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=repository)
    return str(address)


@contextmanager
def _asking(what: str, done: str = "had from") -> Iterator[None]:
    """Convert the errors of the Hub into a `DataError`."""
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it warns of each retry
    try:
        yield
    except Exception as error:  # what its client raises, and what that one's client raises
        first = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
        raise DataError(
            f"{what} cannot be {done} the Hugging Face Hub: {first}. Check its name, the network "
            "and `hf auth whoami`."
        ) from error
