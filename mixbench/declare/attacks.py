"""The adversarial attacks of a task, and the metrics of a model under these attacks."""

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal, NamedTuple

from mixbench.declare.facts import Metric

Space = Literal["pixel", "normalized"]
PAPER_EPSILONS = (0.1, 0.2, 0.3)  # Table 5 of arXiv:2106.09011, which does not state the space
EPSILONS = (*PAPER_EPSILONS, 1 / 255, 2 / 255, 4 / 255, 8 / 255)
EPSILONS_ASCENDING = tuple(sorted(EPSILONS))
EPS_2_255, EPS_4_255, EPS_8_255 = 2 / 255, 4 / 255, 8 / 255


class Attack(NamedTuple):
    """An adversarial attack with its settings.

    Attributes
    ----------
    kind
        Type of the attack: ``fgsm`` or ``pgd``.
    eps
        Maximum change of a pixel value, in the unit that `space` defines.
    space
        Unit of `eps`. ``pixel``: a fraction of the range from black to white. ``normalized``: a
        multiple of the standard deviation of the pixel's channel, which is the unit of model
        inputs after normalisation.
    steps
        Number of gradient-sign steps; 1 for FGSM.
    """

    kind: Literal["fgsm", "pgd"]
    eps: float
    space: Space = "pixel"
    steps: int = 1

    @property
    def name(self) -> str:
        """Name of the metric that reports the accuracy under this attack."""
        steps = "" if self.kind == "fgsm" else str(self.steps)
        space = "" if self.space == "pixel" else f"_{self.space}"
        number = re.sub(r"\W", "_", eps_text(self.eps))
        return f"{self.kind}{steps}{space}_{number}"


def eps_text(eps: float) -> str:
    """Return an eps in its usual notation, for instance 0.1 or 8/255."""
    short = f"{eps:.3g}"
    levels = round(255 * eps)
    if float(short) != eps and levels / 255 == eps:
        return f"{levels}/255"
    # The shortest decimal of this number: different numbers have different texts.
    return f"{Decimal(repr(float(eps))):f}".removesuffix(".0")


def attacks_of(
    eps: Sequence[float], eps_space: Space, pgd_eps: Sequence[float], pgd_steps: int
) -> tuple[Attack, ...]:
    """Return the attacks that a task's parameters request; the first defines the primary metric.

    The attacks are FGSM with each value of `eps`, FGSM in the other space with those of the paper's
    three values that `eps` contains, and PGD with each value of `pgd_eps`, always in pixel space.
    """
    other: Space = "normalized" if eps_space == "pixel" else "pixel"
    paper = [number for number in PAPER_EPSILONS if number in eps]
    return (
        *(Attack("fgsm", number, eps_space) for number in dict.fromkeys(eps)),
        *(Attack("fgsm", number, other) for number in paper),
        *(Attack("pgd", number, steps=pgd_steps) for number in dict.fromkeys(pgd_eps)),
    )


def under_attack(
    eps: Sequence[float] = EPSILONS,
    eps_space: Space = "pixel",
    pgd_eps: Sequence[float] = (EPS_8_255,),
    pgd_steps: int = 20,
) -> tuple[Metric, ...]:
    """Return the metrics of a task with attacks: accuracies over all images, clean and attacked.

    Accuracies over the images that are classified correctly without an attack are recorded as
    details and left out of tables.
    """
    first, *others = (attack.name for attack in attacks_of(eps, eps_space, pgd_eps, pgd_steps))
    return (
        Metric(first, "%", higher_is_better=True, primary=True),
        Metric("top1", "%", higher_is_better=True),
        *(Metric(name, "%", higher_is_better=True) for name in others),
        *(
            Metric(f"{name}_of_correct", "%", higher_is_better=True, detail=True)
            for name in (first, *others)
        ),
    )
