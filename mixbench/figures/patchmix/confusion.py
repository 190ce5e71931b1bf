"""Whether the class pairs that a search found are those that the baseline confuses.

The PatchMix paper (§5.4, Figure 9) calls them semantically close, without a number.
"""

import json
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mixbench.declare import BASELINE
from mixbench.figures.predictions import predictions_of
from mixbench.leaderboard.grouping import method_label
from mixbench.records.schema import Record
from mixbench.storage.store import Store


def confusion_of_pairs(store: Store, records: Iterable[Record]) -> pd.DataFrame:
    """Return how much the baseline confuses the classes of found pairs, for each search.

    Columns: method, seed, pairs (number of them), found_pairs and all_pairs (%). The confusion of
    two classes is the mean probability that the baseline of the same seed gives to the one on test
    images of the other, in both directions.

    Parameters
    ----------
    store
        Store with the artifacts of the cells.
    records
        Records of one comparison group.
    """
    good = [record for record in records if record.status == "ok"]
    plain = {record.seed: record for record in good if method_label(record) == BASELINE}
    rows = [
        {"method": method_label(record), "seed": record.seed, **row}
        for record in sorted(good, key=lambda record: (method_label(record), record.seed))
        if record.seed in plain
        for row in _of_search(store, record, plain[record.seed])
    ]
    return pd.DataFrame(rows)


def _of_search(store: Store, record: Record, plain: Record) -> Iterator[dict[str, float]]:
    """Yield the numbers of a cell's search, if it has one and the predictions are of classes."""
    path = next((a.path for a in record.artifacts if a.role == "search"), None)
    if path is None:
        return
    result = json.loads((store.root / path).read_text(encoding="utf-8"))
    classes, predicted = result["classes"], predictions_of(store, plain)
    outputs, targets = predicted.get("outputs"), predicted["targets"]
    if outputs is None or outputs.shape[1:] != (len(classes),):
        return
    confused = confusion(outputs, targets if targets.dim() == 1 else targets[:, 0])
    pairs = [tuple(classes.index(pair[name]) for name in ("first", "second"))
             for pair in result["pairs"]]  # fmt: skip
    different = ~np.eye(len(classes), dtype=bool)
    yield {
        "pairs": len(pairs),
        "found_pairs": float(np.mean([confused[pair] for pair in pairs if pair[0] != pair[1]])),
        "all_pairs": float(confused[different].mean()),
    }


def confusion(outputs: Tensor, targets: Tensor) -> np.ndarray:
    """Return the confusion of every two classes in percent, symmetric, (C, C).

    Parameters
    ----------
    outputs : (N, C)
        Logits of the test images.
    targets : (N,)
        Their classes.
    """
    number = outputs.shape[1]
    sums = torch.zeros(number, number, dtype=torch.float64)
    sums.index_add_(0, targets, outputs.double().softmax(1))
    counts = targets.bincount(minlength=number).clamp(min=1)
    means = 100 * sums / counts[:, None]
    return np.asarray((means + means.T) / 2)
