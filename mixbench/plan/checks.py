"""Checks that the methods, tasks, recipes and models of a request fit each other."""

from collections.abc import Container
from typing import get_args

from mixbench.datasets.locate import HOLDOUT
from mixbench.declare import BASELINE, Recipe
from mixbench.declare.facts import Parameters
from mixbench.errors import BadParameter, UsageError
from mixbench.plan.cells import NO_FILE, PRETRAINED, PUBLISHED, TIMM, Cell, Unit, weights_of
from mixbench.plan.tuning import Grid
from mixbench.registry.cards import MethodCard, TaskCard
from mixbench.registry.model_names import HUB
from mixbench.registry.net_kinds import net_kind

SMOOTHS = "label_smoothing"  # a method and a field of recipes, of which one is enough


def check_that_it_mixes(method: Unit[MethodCard], task: Unit[TaskCard]) -> None:
    """Raise an error if the method would mix in no training, and so equal the baseline."""
    evaluates = bool(task.card.declared.evaluates)
    plainly = evaluates or task.parameters.get("mix_in") == "pretrain"
    if method.card.name == BASELINE or not plainly:
        return
    for name in weights_of(task.card):
        value = str(task.parameters[name])
        if value in {"random", "timm", PUBLISHED} or value.startswith((TIMM, HUB)):
            if evaluates:
                raise UsageError(
                    f"{method.card.name} would have no effect: {task.card.name} evaluates {value} "
                    f"weights. Use --init {PRETRAINED} or --init FILE with weights trained with it."
                )
            where = next(p.type for p in task.card.parameters if p.name == "mix_in")
            too = f", or --set {task.card.name}.mix_in=finetune"
            raise UsageError(
                f"{method.card.name} would have no effect: {task.card.name} starts from {value} "
                f"weights and fine-tunes without mixing. Use --init pretrained, --init FILE with "
                f"weights pre-trained with it{too if 'finetune' in get_args(where) else ''}."
            )


def check_trained_apart(task: Unit[TaskCard], methods: int, seeds: int) -> None:
    """Raise an error if several rows, or seeds of an evaluation, would be of one given model."""
    evaluates = bool(task.card.declared.evaluates)
    if not evaluates and task.parameters.get("mix_in") != "pretrain":
        return
    for name in weights_of(task.card):
        value = str(task.parameters[name])
        if value in NO_FILE or value.startswith((TIMM, HUB)):
            continue
        if evaluates and (methods > 1 or seeds > 1):
            raise UsageError(
                f"{task.card.name} would evaluate the one model of {value} several times: give one "
                f"method and one seed with each file (got {methods} and {seeds})."
            )
        if methods > 1:
            raise UsageError(
                f"{task.card.name} would start every method from the one model of {value}, and mix "
                f"nothing: give one method with each file (got {methods}), or --set "
                f"{task.card.name}.mix_in=finetune."
            )


def check_weights(card: TaskCard, parameters: Parameters) -> None:
    """Raise an error if a task has no model or no files of the initial weights that are asked."""
    declared = card.declared
    for name in weights_of(card):
        known = {"random", *([PUBLISHED] if declared.published else [])}
        known |= {value for need in declared.needs.values() for value in need.when.get(name, ())}
        value = str(parameters[name])
        if value in NO_FILE and value not in {*known, "timm"}:
            raise UsageError(
                f"{card.name} cannot start from {value or 'no'} weights: {name} must be "
                f"{', '.join(sorted(known))}, timm, timm:TAG, hf-hub:ORG/NAME or a file."
            )


def check_held_out(
    method: Unit[MethodCard], task: Unit[TaskCard], recipe: Recipe, grid: Grid
) -> None:
    """Raise an error if images must be held out and are not, or are to be added and are not out."""
    name, holdout = task.card.name, task.parameters.get(HOLDOUT)
    if recipe.final_on == "all" and holdout is None:
        raise UsageError(f"final_on must be train for {name}, which has no parameter {HOLDOUT}.")
    if holdout == 0 and (grid or "prepare" in method.card.defines):
        user = "--tune" if grid else method.card.name
        raise UsageError(
            f"{HOLDOUT} must be above 0: {user} searches on held-out images (got 0). With --set "
            f"{name}.final_on=all, the final training uses all training images."
        )


def check_method(method: Unit[MethodCard], recipe: Recipe) -> None:
    """Raise an error if a method cannot do what a recipe asks for."""
    name, declared = method.card.name, method.card.declared
    if recipe.mix_mode == "elem" and not declared.per_element:
        raise UsageError(
            f"mix_mode must be batch or half for {name}, which mixes a batch with one λ or mask "
            "(got elem)."
        )
    if recipe.label_smoothing and name == SMOOTHS:
        raise UsageError(
            f"label_smoothing of the recipe must be 0 for the method {name}, which smooths labels "
            f"itself (got {recipe.label_smoothing})."
        )
    if recipe.ema_decay and declared.ema_decay:
        raise UsageError(
            f"ema_decay must be 0 for {name}, which keeps an average of the weights of its own "
            f"(got {recipe.ema_decay})."
        )


def check_recipe(card: TaskCard, protocol: str, recipe: Recipe, given: Container[str]) -> None:
    """Raise an error if fields of a recipe contradict each other."""
    faults = {
        f"nesterov must be left out: the optimizer {recipe.optimizer} does not know it": (
            recipe.optimizer != "sgd" and recipe.nesterov and "nesterov" in given
        ),
        f"momentum must be below 1 for the optimizer {recipe.optimizer} (got {recipe.momentum})": (
            recipe.optimizer != "sgd" and recipe.momentum >= 1
        ),
        f"aug_repeats must be at most batch_size, {recipe.batch_size} (got {recipe.aug_repeats})": (
            recipe.aug_repeats > recipe.batch_size
        ),
        f"limit must be at least batch_size, {recipe.batch_size} (got {recipe.limit})": (
            0 < recipe.limit < recipe.batch_size
        ),
        f"warmup_epochs must be less than epochs, {recipe.epochs} (got {recipe.warmup_epochs})": (
            recipe.warmup_epochs >= recipe.epochs
        ),
        f"warmup_lr must be 0 without warmup_epochs (got {recipe.warmup_lr})": (
            recipe.warmup_lr and not recipe.warmup_epochs
        ),
        f"min_lr must be 0 with milestones, which set the rate (got {recipe.min_lr})": (
            recipe.min_lr and recipe.milestones
        ),
        f"min_lr must be at most lr, {recipe.lr} (got {recipe.min_lr})": recipe.min_lr > recipe.lr,
        f"bce_target_thresh must be 0 without bce_loss (got {recipe.bce_target_thresh})": (
            recipe.bce_target_thresh and not recipe.bce_loss
        ),
        f"mix_off_epoch must be at most epochs, {recipe.epochs} (got {recipe.mix_off_epoch})": (
            recipe.mix_off_epoch > recipe.epochs
        ),
    }
    for wrong, found in faults.items():
        if found:
            raise BadParameter(f"The recipe {protocol} of {card.name}: {wrong}.")


def check_net(card: TaskCard, protocol: str, model: str) -> None:
    """Raise an error if a protocol is for another kind of network than a model."""
    own = net_kind(card.declared.protocols[protocol].model)
    if own not in {"convolutional", net_kind(model)}:
        raise UsageError(
            f"--protocol {protocol} is the recipe of a {own}, and {model} is a {net_kind(model)} "
            f"network. Use --protocol {protocol_for(card, protocol, model)}, or another model."
        )


def unsuited(cell: Cell) -> str:
    """Return a warning if a protocol for convolutional networks trains another kind; or nothing."""
    card = cell.base.task.card if cell.base else cell.task.card
    asked = net_kind(cell.model)
    own = net_kind(card.declared.protocols[cell.protocol].model)
    if own == asked or cell.trained_by is None:
        return ""
    better = protocol_for(card, cell.protocol, cell.model)
    known = net_kind(card.declared.protocols[better].model) == asked
    return (
        f"{cell.model} is a {asked}, and --protocol {cell.protocol} of {card.name} is a recipe for "
        f"{own} networks" + (f": use --protocol {better}." if known else ".")
    )


def protocol_for(card: TaskCard, protocol: str, model: str) -> str:
    """Return the first protocol for a model's kind of network, as quick as the given one."""
    protocols, quick = card.declared.protocols, protocol.startswith("quick")
    for name, recipe in protocols.items():
        if net_kind(recipe.model) == net_kind(model) and name.startswith("quick") == quick:
            return name
    return next(iter(protocols))
