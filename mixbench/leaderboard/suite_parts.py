"""What a suite's file is made of."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from mixbench.plan.request import Request
from mixbench.records.items import Strict
from mixbench.registry.parameters import read_settings

Value = str | int | float | bool


class Rule(Strict):
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


class Published(Strict):
    """``[[published]]``: a number that a publication gives for something that the suite asks.

    Attributes
    ----------
    task, model, metric
        Of what.
    value, deviation
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
    deviation: float | None = None
    where: str = ""

    @property
    def text(self) -> str:
        """The value, with its deviation if the publication has one."""
        spread = "" if self.deviation is None else f" ± {self.deviation:g}"
        return f"{self.value:g}{spread}"


class Layout(Strict):
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


class Quick(Strict):
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


class Ask(Strict):
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
