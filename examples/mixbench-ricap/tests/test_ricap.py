"""Test that RICAP fulfils mixbench's contract and weights its four crops by their areas."""

from collections.abc import Callable

import pytest
import torch

from mixbench.contract.loading import load_method
from mixbench.registry.units import find
from mixbench.testing import Subject, method_checks
from mixbench.testing.toy import mix

METHOD = load_method(find("method", "ricap"))


@pytest.mark.parametrize("check", method_checks("ricap"))
def test_contract(check: Callable[[], str]) -> None:
    check()


def test_every_crop_weighs_what_it_covers() -> None:
    """Mix images of one colour each: each colour covers the area that its weights sum to."""
    images = torch.arange(6.0)[:, None, None, None].expand(6, 3, 16, 12).contiguous()
    for seed in range(20):
        mixed = mix(Subject(METHOD), images, seed)
        told = torch.zeros(6, 6).scatter_add_(1, mixed.sources.index, mixed.sources.weight)
        seen = torch.stack([
            (mixed.images == colour).float().mean((1, 2, 3)) for colour in range(6)
        ])
        torch.testing.assert_close(told, seen.T)
