"""The kind of pydantic model that everything written to disk is read into."""

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """Frozen, with no field beside the declared ones, and no number that is infinite or NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
