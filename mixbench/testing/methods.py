"""The list of checks that every mixing method must pass."""

from mixbench.testing.checks import Check
from mixbench.testing.mixing import (
    announced_draws_are_drawn,
    bfloat16_is_kept_and_weights_are_float32,
    draws_only_from_step_rng,
    every_row_and_column_is_mixed,
    identical_images_are_unchanged,
    input_is_not_modified,
    other_rng_other_result,
    same_rng_same_result,
    shape_and_dtype_are_kept,
    sources_are_in_batch,
    weights_match_pixels,
    weights_sum_to_one,
)
from mixbench.testing.training import (
    all_parameters_get_gradients,
    card_matches_class,
    evaluation_is_unchanged,
    loss_decreases,
    loss_fits_the_sources,
    state_dict_round_trips,
)

METHOD_CHECKS: tuple[Check, ...] = (
    card_matches_class,
    weights_match_pixels,
    weights_sum_to_one,
    sources_are_in_batch,
    shape_and_dtype_are_kept,
    bfloat16_is_kept_and_weights_are_float32,
    input_is_not_modified,
    same_rng_same_result,
    other_rng_other_result,
    draws_only_from_step_rng,
    announced_draws_are_drawn,
    every_row_and_column_is_mixed,
    identical_images_are_unchanged,
    loss_fits_the_sources,
    loss_decreases,
    all_parameters_get_gradients,
    state_dict_round_trips,
    evaluation_is_unchanged,
)
