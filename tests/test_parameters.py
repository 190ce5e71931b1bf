import pytest

from mixbench.errors import BadParameter, UnknownName, UsageError
from mixbench.registry.parameters import parameters_of, read_settings, task_settings
from mixbench.registry.units import find


def test_settings_are_read_as_their_types() -> None:
    card = find("method", "random_patchmix")

    values = parameters_of(
        card, card.defaults, {"grid": "2", "patch_loss": "false", "head": "tied"}
    )

    assert values["grid"] == 2
    assert values["patch_loss"] is False
    assert values["head"] == "tied"
    assert values["alpha"] == 1.0
    number = parameters_of(find("method", "adautomix"), {}, {"num_images": "2"})
    assert number == {"num_images": 2}


@pytest.mark.parametrize(
    ("parameter", "text", "complaint"),
    [
        ("grid", "0", "random_patchmix.grid must be greater than or equal to 1 (got '0')"),
        ("grid", "2.5", "random_patchmix.grid must be a valid integer"),
        ("alpha", "-1", "random_patchmix.alpha must be greater than 0 (got '-1')"),
        ("alpha", "much", "random_patchmix.alpha must be a valid number"),
        ("head", "both", "random_patchmix.head must be 'shared', 'per_cell' or 'tied'"),
        ("image_loss", "maybe", "random_patchmix.image_loss must be a valid boolean"),
    ],
)
def test_bad_value_names_parameter_rule_and_value(
    parameter: str, text: str, complaint: str
) -> None:
    with pytest.raises(BadParameter) as caught:
        parameters_of(find("method", "random_patchmix"), {}, {parameter: text})

    assert complaint in str(caught.value)


def test_unknown_parameter_names_the_close_one() -> None:
    with pytest.raises(UnknownName, match=r"'aplha'\. Did you mean 'alpha'\?"):
        parameters_of(find("method", "mixup"), {}, {"aplha": "1"})


def test_recipe_fields_are_parameters_of_the_task() -> None:
    card = find("task", "digits")
    recipe = card.declared.protocols["quick"]

    own, changed = task_settings(
        card, card.defaults, recipe, {"epochs": "3", "holdout": "0.2", "milestones": "1,2"}
    )

    assert own == {"holdout": 0.2}
    assert changed.epochs == 3
    assert changed.milestones == (1, 2)
    assert changed.lr == recipe.lr


@pytest.mark.parametrize("text", ["alpha=1", "mixup.alpha", "mixup=1", ".alpha=1", "mixup.=1"])
def test_malformed_setting_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"must be NAME\.PARAM=VALUE"):
        read_settings([text])
