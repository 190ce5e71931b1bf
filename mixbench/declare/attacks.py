"""Which attacks a task makes on a model, and the metrics that tell how it fares."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from mixbench.declare.facts import Metric

Space = Literal["pixel", "normalized"]
PAPER_EPSILONS = (0.1, 0.2, 0.3)  # of Table 5, arXiv:2106.09011, which does not say in which space
EPSILONS = (*PAPER_EPSILONS, 1 / 255, 2 / 255, 4 / 255, 8 / 255)
EPSILONS_ASCENDING = tuple(sorted(EPSILONS))
EPS_4_255, EPS_8_255 = 4 / 255, 8 / 255


class Attack(NamedTuple):
    """One way to change images so that a model errs.

    Attributes
    ----------
    eps
        How far a pixel moves at most.
    space
        ``pixel``: in parts of the range from black to white. ``normalized``: in parts of the
        deviation of its channel, by which models have their input divided.
    steps
        Of the gradient's sign: FGSM makes one.
    """

    kind: Literal["fgsm", "pgd"]
    eps: float
    space: Space = "pixel"
    steps: int = 1

    @property
    def name(self) -> str:
        """The metric of the accuracy under it."""
        steps = "" if self.kind == "fgsm" else str(self.steps)
        space = "" if self.space == "pixel" else f"_{self.space}"
        number = eps_text(self.eps).replace(".", "_").replace("/", "_")
        return f"{self.kind}{steps}{space}_{number}"


def eps_text(eps: float) -> str:
    """Return how people write an eps: as 0.1 or 8/255."""
    short = f"{eps:.3g}"
    levels = round(255 * eps)
    if float(short) != eps and levels / 255 == eps:
        return f"{levels}/255"
    return f"{eps:.12f}".rstrip("0").rstrip(".")


def attacks_of(
    eps: Sequence[float], eps_space: Space, pgd_eps: Sequence[float], pgd_steps: int
) -> tuple[Attack, ...]:
    """Return the attacks that a task's parameters ask for, the one that ranks first.

    FGSM at every `eps`, and at the paper's three in the other space as well; then PGD, whose eps
    are always of pixels.
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
    """Return the metrics of a task that attacks: accuracies over all images, clean and attacked.

    Those over the images that are right without an attack are for the record.
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
