"""The pydantic base model of all settings, suites and records."""

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """A frozen model that forbids undeclared fields and infinite or NaN numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
