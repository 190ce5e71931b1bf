"""Suites: a question about methods, defined in a file so that anyone can reproduce the answer.

::

    question = "Which mixing helps on small images of handwritten digits?"
    seeds = 5

    [better]
    alpha = 0.05                # significance level, after Holm's correction
    margin = 0.2                # smallest relevant difference, in the metric's unit

    [[compare]]                 # by default, each method with none
    methods = ["guided_patchmix"]
    with = ["none", "random_patchmix"]

    [[ask]]
    methods = ["none", "random_patchmix", "guided_patchmix"]
    tasks = ["digits"]
    protocol = "quick"
    settings = {"digits.epochs" = 20}

``leaderboards/NAME/suite.toml`` defines a suite. Its records are in ``leaderboards/NAME/records/``.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

import mixbench
from mixbench.declare import BASELINE
from mixbench.declare.facts import MOST_SEEDS
from mixbench.errors import UnknownName, UsageError
from mixbench.leaderboard.grouping import at_equal_images
from mixbench.leaderboard.ranks import ALPHA, Pairing, Rule
from mixbench.plan.cells import Cell
from mixbench.plan.request import Request, cells_of
from mixbench.records.schema import Record
from mixbench.registry.parameters import read_settings, setting_text
from mixbench.registry.units import find
from mixbench.storage.strict_model import Line, Number, StrictModel
from mixbench.storage.toml import read_toml

FOLDER, FILE = Path("leaderboards"), "suite.toml"
Value = Line | Annotated[int, Field(gt=-(2**53), lt=2**53)] | Number | bool
Label = Annotated[
    str, Field(max_length=300, pattern=r"^[a-z_][a-z0-9_]*(\[[A-Za-z0-9_.,=/+-]*\])?$")
]
MOST_CELLS = 20_000
LARGEST = 1 << 20  # bytes of suite.toml
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class Better(StrictModel):
    """``[better]``: the rule by which a method is better or worse than another.

    Attributes
    ----------
    alpha
        Significance level: family-wise error rate over all declared comparisons of a table, after
        Holm's correction. Between 0 and 1.
    margin
        Smallest difference that counts as better or worse, in the metric's unit; at least 0.
    """

    alpha: Annotated[float, Field(gt=0, lt=1)] = ALPHA
    margin: Annotated[float, Field(ge=0)] = 0.0


class Compare(StrictModel):
    """``[[compare]]``: methods that are each compared with each of some other methods.

    Attributes
    ----------
    methods
        Labels of rows as in tables, ``NAME`` or ``NAME[PARAMETER=VALUE]``. A name without a row of
        that label means all rows of the method. By default all rows.
    others
        Names or labels of the methods that they are compared with; written as ``with``.
    """

    methods: tuple[Label, ...] = ()
    others: Annotated[tuple[Label, ...], Field(alias="with", min_length=1)] = (BASELINE,)


class Published(StrictModel):
    """``[[published]]``: a published result for one task, model, method and metric of the suite.

    Attributes
    ----------
    task
        Name of the task.
    model
        Name of the model.
    method
        Label of the method, with its changed parameters, as in tables: ``NAME[PARAMETER=VALUE]``.
    metric
        Name of the metric.
    value
        Published value, in the metric's unit.
    std
        Published standard deviation, in the metric's unit; omit it if the publication has none.
    where
        Publication, table, row and column; by default the suite's `where`.
    """

    task: str
    model: str
    method: str
    metric: str
    value: float
    std: float | None = None
    where: str = ""

    @property
    def text(self) -> str:
        """The value, with its standard deviation if the publication states one."""
        spread = "" if self.std is None else f" ± {self.std:g}"
        return f"{self.value:g}{spread}"


class Layout(StrictModel):
    """``[layout]``: the layout of a publication's table.

    Attributes
    ----------
    rows
        Fields that distinguish the rows: ``task``, ``model``, ``method``, ``metric`` or parameters
        of the methods.
    columns
        Fields that distinguish the columns, with the same choices as `rows`.
    method
        The only method in the table; if it is empty, the table has all methods.
    names
        Names that the publication uses, by ``VALUE`` or by ``FIELD=VALUE``. An empty name omits the
        value from the heading.
    """

    rows: tuple[str, ...] = ("model",)
    columns: tuple[str, ...] = ("method",)
    method: str = ""
    names: dict[str, str] = Field(default_factory=dict)


class Quick(StrictModel):
    """``[quick]``: options for ``--protocol quick``, which runs small models on generated data.

    Attributes
    ----------
    seeds
        Number of seeds under ``--protocol quick``.
    settings
        Parameters to set in addition to the `settings` of each ``[[ask]]``.
    """

    seeds: Annotated[int, Field(ge=1, le=MOST_SEEDS)] = 1
    settings: dict[str, Value] = Field(default_factory=dict)


class Ask(StrictModel):
    """``[[ask]]``: cells to run, each method on each task with each model, under one protocol.

    Attributes
    ----------
    methods
        Names of the methods; at least one.
    tasks
        Names of the tasks; at least one.
    models
        Names of the models; by default each task's own model.
    protocol
        Name of the protocol, as for ``mixbench run --protocol``.
    data
        Folder of the data or ``synthetic``, as for ``mixbench run --data``.
    init
        Initial weights, as for ``mixbench run --init``.
    settings
        Parameters of methods, tasks and recipes, as for ``mixbench run --set``.
    seeds
        Number of seeds for these cells; by default the suite's `seeds`.
    """

    methods: Annotated[tuple[str, ...], Field(min_length=1)]
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    models: tuple[str, ...] = ()
    protocol: str | None = None
    data: str | None = None
    init: str | None = None
    settings: dict[str, Value] = Field(default_factory=dict)
    seeds: Annotated[int, Field(ge=1, le=MOST_SEEDS)] | None = None

    def requests(self, seeds: int) -> Iterator[Request]:
        """Yield one request for each model."""
        settings = read_settings([
            f"{name}={_text(value)}" for name, value in self.settings.items()
        ])
        for model in self.models or (None,):
            yield Request(
                methods=self.methods,
                tasks=self.tasks,
                seeds=range(self.seeds or seeds),
                model=model,
                protocol=self.protocol,
                data=self.data,
                settings=settings,
                init=self.init,
            )


def _text(value: object) -> str:
    """Format a TOML value for `--set`."""
    return str(value).lower() if isinstance(value, bool) else setting_text(value)


class Suite(StrictModel):
    """The content of ``suite.toml``.

    Attributes
    ----------
    question
        The question that the suite answers, as one sentence.
    title
        A few words for headings; the name of the suite by default.
    where
        Publication and table that the suite reproduces; empty if there is none.
    remark
        Text for the generated page: what the results show and what they do not show.
    seeds
        Number of seeds for each method, task and model.
    better
        Rule by which a method is better or worse than another.
    compare
        Comparisons of each table; by default, each method with ``none``. The correction for
        multiple comparisons covers these and no others, and ranks follow from them.
    equal
        What all rows of a table have in common: ``recipe`` for the same recipe, ``images`` for the
        same number of training images. With ``images``, the suite must set the epochs of each
        method so that these numbers are equal.
    published
        Published results to show next to the measured ones, instead of those in the task files.
    layout
        Layout of the publication's table.
    quick
        Options for ``--protocol quick``.
    settings
        Settings of all ``[[ask]]`` entries, which may change them.
    ask
        Cells to run; at least one entry.
    """

    question: Annotated[Line, Field(min_length=1)]
    title: Annotated[str, Field(max_length=80)] = ""
    where: Annotated[str, Field(max_length=2000)] = ""
    remark: Annotated[str, Field(max_length=20_000)] = ""
    seeds: Annotated[int, Field(ge=1, le=MOST_SEEDS)] = 3
    better: Better = Better()
    compare: Annotated[tuple[Compare, ...], Field(min_length=1)] = (Compare(),)
    equal: Literal["recipe", "images"] = "recipe"
    published: tuple[Published, ...] = ()
    layout: Layout | None = None
    quick: Quick = Quick()
    settings: dict[str, Value] = Field(default_factory=dict)
    ask: Annotated[tuple[Ask, ...], Field(min_length=1)]

    def quickly(self) -> "Suite":
        """Return the suite under the protocol ``quick``: a test that all its cells run."""
        asks = [
            ask.model_copy(
                update={
                    "protocol": "quick",
                    "models": (),
                    "data": None,
                    "seeds": None,
                    "settings": {**ask.settings, **_about(ask, self.quick.settings)},
                }
            )
            for ask in self.ask
        ]
        return self.model_copy(update={"ask": tuple(asks), "seeds": self.quick.seeds})

    @property
    def rule(self) -> Rule:
        """The declared comparisons, and when a method is better or worse."""
        pairings = tuple(Pairing(one.methods, one.others) for one in self.compare)
        return Rule(pairings, self.better.alpha, self.better.margin)

    def compared(self, records: Sequence[Record]) -> Sequence[Record]:
        """Return records prepared for comparison: at one recipe, or at equal training images."""
        return at_equal_images(records) if self.equal == "images" else records

    def requests(self) -> list[Request]:
        """Return the requests of all ``[[ask]]`` entries."""
        return [request for ask in self.whole_asks() for request in ask.requests(self.seeds)]

    def whole_asks(self) -> tuple[Ask, ...]:
        """Return the ``[[ask]]`` entries with the settings of the suite."""
        return tuple(
            ask.model_copy(update={"settings": self.settings | ask.settings}) for ask in self.ask
        )

    def numbers(self) -> list[Published]:
        """Return the published results of the suite; by default those in the task files."""
        found = [
            Published(
                task=task,
                model=reference.model,
                method=reference.method,
                metric=reference.metric,
                value=reference.value,
                std=reference.std,
                where=f"{reference.citation}, {reference.where}",
            )
            for ask in self.ask
            for task in ask.tasks
            for reference in find("task", task).declared.references
            if reference.method in ask.methods
            and reference.protocol == ask.protocol
            and (not ask.models or reference.model in ask.models)
        ]
        if not self.published:
            return list(dict.fromkeys(found))
        return [
            number.model_copy(update={"where": number.where or self.where})
            for number in self.published
        ]


def _about(ask: Ask, settings: Mapping[str, Value]) -> dict[str, Value]:
    """Return the settings of the methods, tasks and base tasks of an ``[[ask]]`` entry."""
    units = {*ask.methods, *ask.tasks}
    for card in [find("task", name) for name in ask.tasks]:
        units |= {need.task for need in card.declared.needs.values()}
        units |= {card.declared.evaluates} if card.declared.evaluates else set()
    return {name: v for name, v in settings.items() if name.partition(".")[0] in units}


def suites(*, here: bool = False) -> dict[str, Path]:
    """Return the folders of suites, by name.

    Parameters
    ----------
    here
        Whether only those in ``leaderboards/`` count, which can be written to. Otherwise, those
        that are installed with mixbench are added.
    """
    package = Path(mixbench.__file__).parent
    installed = package / "suites"  # in a wheel; a checkout has them beside the package
    if not installed.is_dir():
        installed = package.parent / FOLDER
    places = [FOLDER] if here else [installed, FOLDER]
    return {path.parent.name: path.parent for p in places for path in sorted(p.glob(f"*/{FILE}"))}


def folder_of(name: str, *, here: bool = False) -> Path:
    """Return the folder of a suite, given its name or path.

    Parameters
    ----------
    name
        Name of a suite, path of a suite's folder, or path of a suite.toml.
    here
        Whether it must be a folder that can be written to, not that of an installed suite.

    Raises
    ------
    UsageError
        If the working directory has no suites and the name is not a path of one.
    UnknownName
        If no suite has this name.
    """
    known, path = suites(here=here), Path(name)
    if name in known:
        return known[name]
    if path.name == FILE and path.is_file():
        return path.parent
    if (path / FILE).is_file():
        return path
    if not known:
        raise UsageError(
            f"There is no suite {name!r}, and no folder {FOLDER}/ here: run the command in a "
            "checkout of mixbench, or pass the path of a suite.toml."
        )
    raise UnknownName("suite", name, known)


def read_suite(folder: Path) -> Suite:
    """Read the suite of a folder.

    Raises
    ------
    UsageError
        If suite.toml cannot be read or is not valid; the message names the invalid field.
    """
    _check_place(folder)
    suite = read_toml(folder / FILE, Suite, "suite")
    known = {BASELINE, *(name for ask in suite.ask for name in ask.methods)}
    for name in (name for one in suite.compare for name in (*one.methods, *one.others)):
        if name.partition("[")[0] not in known:
            raise UsageError(
                f"{folder / FILE}: compare must name methods of the suite, "
                f"{', '.join(sorted(known))} (got {name})."
            )
    return suite


def _check_place(folder: Path) -> None:
    """Check that a suite is a folder and a file of its own, and not a link to others."""
    path = folder / FILE
    if folder.is_symlink() or path.is_symlink():
        raise UsageError(f"{path}: a suite must be a folder with a file, not a link.")
    if not PLAIN_NAME.fullmatch(folder.resolve().name):
        raise UsageError(f"{path}: the folder of a suite must be named by letters, digits and _.")
    if path.is_file() and path.stat().st_size > LARGEST:
        raise UsageError(f"{path} must be at most 1 MiB.")


def suite_cells(folder: Path, *, quick: bool = False, without_data: bool = False) -> list[Cell]:
    """Return the cells of a suite.

    Parameters
    ----------
    folder
        Folder of the suite.
    quick
        Whether to return the cells under the protocol ``quick`` instead.
    without_data
        Whether data and published weights may be missing.

    Raises
    ------
    UsageError
        If suite.toml is not valid, or names an unknown method, task, model or parameter; the
        message names the file.
    """
    suite = read_suite(folder).quickly() if quick else read_suite(folder)
    requests = [replace(one, without_data=without_data) for one in suite.requests()]
    return _cells(folder, requests)


def cells_asked(folder: Path, suite: Suite) -> list[Cell]:
    """Return the cells of the suite of a folder without looking for their data.

    Raises
    ------
    UsageError
        As for `suite_cells`.
    """
    return _cells(folder, [replace(one, unlocated=True) for one in suite.requests()])


def _cells(folder: Path, requests: Sequence[Request]) -> list[Cell]:
    number = sum(len(one.methods) * len(one.tasks) * len(one.seeds) for one in requests)
    if number > MOST_CELLS:
        raise UsageError(f"The suite {folder / FILE} has {number:,} cells: at most {MOST_CELLS:,}.")
    try:
        return [cell for request in requests for cell in cells_of(request)]
    except UsageError as error:
        raise UsageError(f"The suite {folder / FILE}: {error}") from error
