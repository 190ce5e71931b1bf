"""The pydantic base model of all settings, suites and records, and the types that bound them.

Suites and records come from strangers. What they hold is written into pages and tables, so every
text is one printable line of bounded length, and every number is finite. Texts of a finished run
are converted with `mixbench.errors.one_line` before its record is written, so that none is lost.
"""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

LONGEST = 2000  # characters of a line
TIME = "%Y-%m-%dT%H:%M:%SZ"


class StrictModel(BaseModel):
    """A frozen model that forbids undeclared fields and infinite or NaN numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def first_error(error: ValidationError, whole: str = "top level") -> str:
    """Return the first invalid field of a model, and what is wrong with it.

    Parameters
    ----------
    error
        Error of the validation.
    whole
        What to call the model itself, if no field of it is wrong.
    """
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or whole}: {first['msg']}"


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line of printable characters")
    return text


def _time(text: str) -> str:
    if datetime.strptime(text, TIME).replace(tzinfo=UTC).strftime(TIME) != text:
        raise ValueError("must be a time in UTC such as 2026-11-30T12:00:00Z")
    return text


Line = Annotated[str, Field(max_length=LONGEST), AfterValidator(_printable)]
Time = Annotated[str, Field(max_length=20), AfterValidator(_time)]
Whole = Annotated[int, Field(ge=0, lt=2**53)]  # larger integers are no exact floating-point numbers
Number = Annotated[float, Field(gt=-1e300, lt=1e300)]
Measured = Annotated[float, Field(ge=0, lt=1e300)]
