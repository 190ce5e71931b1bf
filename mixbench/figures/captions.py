"""Figure of test images with their reference captions and every method's captions."""

from collections.abc import Mapping, Sequence
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mixbench.figures.predictions import bare, names_of, pictures_of, shown_of
from mixbench.figures.style import INK, QUIET
from mixbench.records.schema import Record
from mixbench.storage.store import Store
from mixbench.vision.captions.tokenizer import sentences

Line = tuple[str, Sequence[int], str]  # author, word indices and text colour of a caption
SAID = 2  # reference captions shown per image
COLUMNS = 64  # characters per line


def captions(store: Store, record: Record, told: Mapping[str, Mapping[str, Tensor]]) -> Figure:
    """Return some test images with reference captions and every method's captions.

    Parameters
    ----------
    store
        Store with the artifacts of the cells.
    record
        Record of any of the cells, which all have the same images.
    told
        Predictions and targets of each method, by its name.
    """
    first = next(iter(told.values()))
    index, words = shown_of(len(first["targets"])), names_of(store, record)
    pictures = pictures_of(store, record, index)
    lines = len(told) + SAID
    figure = Figure(figsize=(8, (0.3 * lines + 0.5) * len(index)), layout="constrained")
    axes = figure.subplots(len(index), 2, squeeze=False, width_ratios=(1, 3))
    for row, (item, picture) in enumerate(zip(index.tolist(), pictures, strict=True)):
        axes[row, 0].imshow(picture)
        bare(axes[row, 0])
        said = [s for s in sentences(first["targets"][item]) if s][:SAID]
        text: list[Line] = [("reference", caption, QUIET) for caption in said]
        for method, cell in told.items():
            (caption,) = sentences(cell["captions"][item : item + 1])
            text.append((method, caption, INK))
        _write(axes[row, 1], text, words)
    return figure


def _write(axes: Axes, text: Sequence[Line], words: Sequence[str]) -> None:
    """Write one caption per line with its author, evenly spaced from the top."""
    bare(axes)
    for line, (speaker, caption, colour) in enumerate(text):
        place = 1 - (line + 0.5) / len(text)
        spoken = fill(" ".join(words[number] for number in caption), COLUMNS)
        for x, part, weight in ((0.0, speaker, "bold"), (0.27, spoken, "normal")):
            axes.text(x, place, part, fontsize=8, color=colour, va="center", fontweight=weight)
