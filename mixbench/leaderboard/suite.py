"""A suite: a question about methods, put down in a file, that anyone can answer again.

::

    question = "Which mixing helps on small images of handwritten digits?"
    seeds = 5

    [better]
    alpha = 0.05                # after Holm's correction
    margin = 0.2                # in the metric's unit: less than this is no gain worth having

    [[ask]]
    methods = ["none", "mixup"]
    tasks = ["digits"]
    protocol = "quick"
    settings = {"digits.epochs" = 20}

Its folder holds the evidence: ``leaderboards/NAME/suite.toml`` asks, ``records/`` answers.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mixbench.errors import UnknownName, UsageError
from mixbench.leaderboard.grouping import at_equal_images, method_label
from mixbench.plan.cells import Cell
from mixbench.plan.request import Request, cells_of
from mixbench.records.schema import Record
from mixbench.registry.parameters import read_settings
from mixbench.registry.units import find
from mixbench.storage.model import StrictModel
from mixbench.storage.toml import read_toml

FOLDER, FILE = Path("leaderboards"), "suite.toml"
Value = str | int | float | bool


class Rule(StrictModel):
    """``[better]``: when a method is better than the baseline.

    Attributes
    ----------
    alpha
        Of false alarms that all comparisons of a table together may raise.
    margin
        In the metric's unit: the least gain that counts.
    """

    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    margin: Annotated[float, Field(ge=0)] = 0.0


class Published(StrictModel):
    """``[[published]]``: a number that a publication gives for something that the suite asks.

    Attributes
    ----------
    task, model, metric
        Of what.
    value, std
        In the metric's unit.
    method
        With its changed parameters, as tables name it.
    where
        The suite's own publication, if it is not said.
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
        """The value, with its deviation if the publication has one."""
        spread = "" if self.std is None else f" ± {self.std:g}"
        return f"{self.value:g}{spread}"


class Layout(StrictModel):
    """``[layout]``: how a publication lays its table out.

    Attributes
    ----------
    rows, columns
        What tells them apart: ``task``, ``model``, ``method``, ``metric``, parameters of methods.
    method
        The only one that the table is about; any, if it is empty.
    names
        What the publication calls values: by ``value``, or by ``what=value``. An empty name is not
        written.
    """

    rows: tuple[str, ...] = ("model",)
    columns: tuple[str, ...] = ("method",)
    method: str = ""
    names: dict[str, str] = Field(default_factory=dict)


class Quick(StrictModel):
    """``[quick]``: what is asked under ``--protocol quick``, on generated data with small models.

    Attributes
    ----------
    seeds
        How many.
    settings
        In addition to those of the questions.
    """

    seeds: Annotated[int, Field(ge=1)] = 1
    settings: dict[str, Value] = Field(default_factory=dict)


class Ask(StrictModel):
    """``[[ask]]``: methods crossed with tasks, under one protocol.

    Attributes
    ----------
    methods, tasks
        Their names.
    models
        The tasks' own, if none is named.
    protocol, data, init
        As the options of ``mixbench run``.
    settings
        Parameters of methods, tasks and recipes, as ``--set`` takes them.
    seeds
        How many, instead of the suite's.
    """

    methods: Annotated[tuple[str, ...], Field(min_length=1)]
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    models: tuple[str, ...] = ()
    protocol: str | None = None
    data: str | None = None
    init: str | None = None
    settings: dict[str, Value] = Field(default_factory=dict)
    seeds: Annotated[int, Field(ge=1)] | None = None

    def requests(self, seeds: int) -> Iterator[Request]:
        """Yield what is asked for, model by model."""
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
    """Return a value of TOML as `--set` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


class Suite(StrictModel):
    """The whole file.

    Attributes
    ----------
    question
        A sentence.
    better
        When a method is better than the baseline.
    ask
        What is run.
    seeds
        How many runs of each cell answer it.
    equal
        What is the same for all rows of a table: the ``recipe``, or the ``images`` passed through
        models, where the suite gives each method the epochs that make them so.
    where
        What of a publication it asks again, if anything: its table.
    remark
        What its answers show and what they cannot, for the page.
    published
        Numbers to stand beside, instead of those that the tasks tell of themselves.
    layout
        Of the publication's table.
    quick
        What is asked instead under ``--protocol quick``.
    """

    question: Annotated[str, Field(min_length=1)]
    where: str = ""
    remark: str = ""
    seeds: Annotated[int, Field(ge=1)] = 3
    better: Rule = Rule()
    equal: Literal["recipe", "images"] = "recipe"
    published: tuple[Published, ...] = ()
    layout: Layout | None = None
    quick: Quick = Quick()
    ask: Annotated[tuple[Ask, ...], Field(min_length=1)]

    def quickly(self) -> "Suite":
        """Return the same question under ``quick``, which proves its path and answers nothing."""
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

    def compared(self, records: Sequence[Record]) -> Sequence[Record]:
        """Return records as the suite compares them: under one recipe, or at equal images."""
        return at_equal_images(records) if self.equal == "images" else records

    def requests(self) -> list[Request]:
        """Return everything that is asked for."""
        return [request for ask in self.ask for request in ask.requests(self.seeds)]

    def numbers(self) -> list[Published]:
        """Return the published numbers for what is asked: the suite's, or else the tasks' own."""
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

    def objection(self, record: Record) -> str:
        """Return why a record is no answer; empty if it is one."""
        asks = self.ask
        for field, value, fits in (
            ("task", record.task.name, lambda ask: record.task.name in ask.tasks),
            ("method", record.method.name, lambda ask: record.method.name in ask.methods),
            ("model", record.model, lambda ask: not ask.models or record.model in ask.models),
            ("protocol", record.protocol, lambda ask: _same_protocol(ask, record)),
            ("parameters", method_label(record), lambda ask: _same_parameters(ask, record)),
            ("seed", record.seed, lambda ask: record.seed < (ask.seeds or self.seeds)),
        ):
            asks = tuple(filter(fits, asks))
            if not asks:
                return f"{field}: the suite does not ask about {value!r} there"
        return ""


def _about(ask: Ask, settings: Mapping[str, Value]) -> dict[str, Value]:
    """Return the settings of units that take part in what is asked, or that it rests on."""
    units = {*ask.methods, *ask.tasks}
    for card in [find("task", name) for name in ask.tasks]:
        units |= {need.task for need in card.declared.needs.values()}
        units |= {card.declared.evaluates} if card.declared.evaluates else set()
    return {name: v for name, v in settings.items() if name.partition(".")[0] in units}


def _same_parameters(ask: Ask, record: Record) -> bool:
    """Tell whether the changed parameters of a record's method and task are those that are asked.

    A task's recipe is no parameter of it: whether that is the same, the protocol tells.
    """
    given = [name.partition(".")[::2] for name in ask.settings]
    return all(
        {name for owner, name in given if owner == unit.name and name in unit.parameters}
        == {*unit.changed}
        for unit in (record.method, record.task)
    )


def _same_protocol(ask: Ask, record: Record) -> bool:
    """Tell whether a record follows what is asked; changed recipes are custom in records."""
    if any(name.partition(".")[0] == record.task.name for name in ask.settings):
        return record.protocol in {"custom", ask.protocol}
    return ask.protocol in {None, record.protocol}


def suites() -> dict[str, Path]:
    """Return the folders of the suites here, by name."""
    return {path.parent.name: path.parent for path in sorted(FOLDER.glob(f"*/{FILE}"))}


def folder_of(name: str) -> Path:
    """Return the folder of a suite: by its name, or by its path.

    Raises
    ------
    UsageError
        If there is no folder of suites.
    UnknownName
        If it is not among them.
    """
    known, path = suites(), Path(name)
    if name in known:
        return known[name]
    if path.name == FILE and path.is_file():
        return path.parent
    if (path / FILE).is_file():
        return path
    if not known:
        raise UsageError(
            f"There is no suite {name!r}, and no folder {FOLDER}/ here: give the command in a "
            "checkout of mixbench, or the path of a suite.toml."
        )
    raise UnknownName("suite", name, known)


def read_suite(folder: Path) -> Suite:
    """Return the suite of a folder.

    Raises
    ------
    UsageError
        If its file cannot be read or is none; the message names the field.
    """
    return read_toml(folder / FILE, Suite, "suite")


def suite_cells(folder: Path, *, quick: bool = False) -> list[Cell]:
    """Return the cells of a suite, or of what it asks under ``quick``.

    Raises
    ------
    UsageError
        If the suite is none, or names what does not exist; the message names its file.
    """
    suite = read_suite(folder).quickly() if quick else read_suite(folder)
    try:
        return [cell for request in suite.requests() for cell in cells_of(request)]
    except UsageError as error:
        raise UsageError(f"The suite {folder / FILE}: {error}") from error
