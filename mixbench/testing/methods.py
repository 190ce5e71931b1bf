"""The list of checks that every mixing method must pass."""

from mixbench.testing.checks import Check
from mixbench.testing.mixing import (
    alike_images_stay,
    bfloat16_stays_and_weights_do_not_follow,
    draws_only_from_its_stream,
    input_is_left_alone,
    labels_say_what_the_pixels_hold,
    other_stream_other_result,
    same_stream_same_result,
    shape_and_dtype_stay,
    sources_are_in_the_batch,
    weights_are_shares,
)
from mixbench.testing.training import (
    all_parameters_learn,
    card_tells_the_truth,
    evaluation_is_untouched,
    loss_falls,
    state_survives,
)

METHOD_CHECKS: tuple[Check, ...] = (
    card_tells_the_truth,
    labels_say_what_the_pixels_hold,
    weights_are_shares,
    sources_are_in_the_batch,
    shape_and_dtype_stay,
    bfloat16_stays_and_weights_do_not_follow,
    input_is_left_alone,
    same_stream_same_result,
    other_stream_other_result,
    draws_only_from_its_stream,
    alike_images_stay,
    loss_falls,
    all_parameters_learn,
    state_survives,
    evaluation_is_untouched,
)
