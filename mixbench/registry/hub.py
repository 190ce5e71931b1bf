"""Models of the Hugging Face Hub that timm loads."""

import json
import logging
from functools import cache
from pathlib import Path

from mixbench.errors import DataError, UsageError
from mixbench.registry.model_names import HUB


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
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells of each attempt
    repository, _, revision = asked.removeprefix(HUB).partition("@")
    try:
        path = Path(hf_hub_download(repository, "config.json", revision=revision or None))
        architecture = json.loads(path.read_text(encoding="utf-8"))["architecture"]
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        first = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
        raise DataError(
            f"The model {asked} cannot be had from the Hugging Face Hub: {first}. Check its name "
            "and the network, or give a file with --init."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{asked} is not a model of timm: its config.json names no architecture. Give a file "
            "with --model and its weights with --init."
        ) from error
    # The cache of the Hub keeps each commit in a folder of its own.
    return str(architecture), f"{HUB}{repository}@{path.parent.name}"
