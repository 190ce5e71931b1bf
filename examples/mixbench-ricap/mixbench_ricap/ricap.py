"""RICAP: fill the four quarters of an image, of random sizes, with crops of four images.

Paper    Takahashi, Matsubara & Uehara, Data Augmentation Using Random Image Cropping and Patching
         for Deep CNNs, ACML 2018, arXiv:1811.09030, §3
Source   none consulted; implemented from the paper
Differs  nothing known; as in the paper, sizes and crops are the same for the whole batch
"""

import torch
from torch import Tensor

from mixbench.contract import Method, Sources, Step
from mixbench.declare import Positive
from mixbench.kernels import beta, permutation


class Ricap(Method):
    """Fill the four quarters of every image with crops of random images of the batch.

    Parameters
    ----------
    alpha
        Parameter α of Beta(α, α), the distribution of both coordinates of the point where the
        quarters meet, as fractions of the image sides. The paper's value 0.3 usually makes one
        crop large.
    """

    version = 1
    exempt = {"identical_images_are_unchanged": "crops are moved to another position of the image"}

    def __init__(self, alpha: Positive = 0.3) -> None:
        super().__init__()
        self.alpha = alpha

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the mixed batch; the weights are the areas of the four crops."""
        height, width = x.shape[-2:]
        middle = beta(self.alpha, step.rng, 2)
        top, left = round(height * float(middle[0])), round(width * float(middle[1]))
        mixed = torch.empty_like(x)
        sources, areas = [], []
        for rows in (slice(0, top), slice(top, height)):
            for columns in (slice(0, left), slice(left, width)):
                partner = permutation(len(x), step.rng, x.device)
                high, wide = rows.stop - rows.start, columns.stop - columns.start
                y = int(torch.randint(height - high + 1, (), generator=step.rng))
                z = int(torch.randint(width - wide + 1, (), generator=step.rng))
                crop = x[:, :, y : y + high, z : z + wide]
                mixed[:, :, rows, columns] = crop.index_select(0, partner)
                sources.append(partner)
                areas.append(high * wide / (height * width))
        weight = torch.tensor(areas, device=x.device).expand(len(x), -1)
        return mixed, Sources(torch.stack(sources, 1), weight)
