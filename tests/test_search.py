"""The search against a plain reference: Algorithm 2 as a list of bits, one individual at a time."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.landscape import Landscape
from mixbench.contract import SINGLE, ClassIndex
from mixbench.errors import DataError, UsageError
from mixbench.kernels import compose_grid
from mixbench.search.direct import pairs_within, screened, solve, unordered_pairs
from mixbench.search.evolve import evolve
from mixbench.search.fitness import HeldOut, Known, Scorer
from mixbench.search.genetic import Draws, Genetic, Settings, first_population
from mixbench.search.result import SearchResult, from_file, to_json
from mixbench.search.space import Space
from mixbench.search.strategies import STATE, Progress, random_pairs, saved_scores
from mixbench.streams import generator
from mixbench.vision.images.splits import IMAGENET_NORMALIZATION, ResidentSplit
from mixbench.vision.models.residual import ResidualNet

C, P, PER_PAIR = 4, 4, 6
SPACE = Space(C, P, num_pairs=4, same_class=True)
SETTINGS = Settings(
    population=40, generations=8, crossover=0.5, mutation=0.3, tournament=3, patience=0,
    maximise=False, reading="dynamics", exchanged=1, budget=10**9,
)  # fmt: skip
Bits = list[int]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ResidualNet(8, channels=3, classes=C, strides=(1, 2, 1))
    return net.eval()


@pytest.fixture(scope="module")
def held_out() -> HeldOut:
    classes = torch.arange(8 * C) % C
    images = torch.randn(8 * C, 3, 16, 12, generator=generator(0, "synthetic"))
    images += classes[:, None, None, None]
    return HeldOut(images, ClassIndex(classes, C), seed=0)


def patches_of(model: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    def patches(x: torch.Tensor) -> torch.Tensor:
        pooled = torch.nn.functional.adaptive_avg_pool2d(model(x).features, P)
        return model.get_submodule("classifier")(pooled.flatten(2).transpose(1, 2))  # type: ignore[no-any-return]

    return patches


def scorer(model: torch.nn.Module, held_out: HeldOut, **options: Any) -> Scorer:
    asked: dict[str, Any] = {"by_loss": False, "rows": 48} | options
    return Scorer(SPACE, held_out, patches_of(model), PER_PAIR, **asked)


class Reference:
    """Algorithm 2 with a genome of Python lists: heads (one bit per pair), tails (P² bits each).

    It evaluates each individual by itself, pair by pair, and shares with the program only the
    random numbers. Inactive tails are never read.
    """

    def __init__(self, model: torch.nn.Module, held_out: HeldOut, settings: Settings) -> None:
        self.model, self.held_out, self.settings = model, held_out, settings
        self.forwards = 0

    def individual(self, pairs: Sequence[int], masks: Sequence[int]) -> dict[str, Any]:
        tails = [[0] * (P * P) for _ in range(C * C)]
        for pair, mask in zip([*pairs, *self.same], masks, strict=True):
            tails[pair] = [(mask >> bit) & 1 for bit in range(P * P)]
        return {"slots": list(pairs), "tails": tails, "fitness": None}

    same = tuple(i * C + i for i in range(C))

    def active(self, x: dict[str, Any]) -> list[int]:
        return [*x["slots"], *self.same]

    @torch.no_grad()
    def fitness(self, x: dict[str, Any]) -> float:
        scores = []
        for pair in self.active(x):
            one, other = self.held_out.image_pairs(*divmod(pair, C), PER_PAIR)
            first, second = self.held_out.images[one], self.held_out.images[other]
            rows = []
            for row in range(P):
                cells = [torch.full((4, 3), float(x["tails"][pair][row * P + c])) for c in range(P)]
                rows.append(torch.cat(cells, 1))
            mask = torch.cat(rows)
            logits = patches_of(self.model)(first * mask + second * (1 - mask))
            self.forwards += len(first)
            target = torch.tensor([pair // C if bit else pair % C for bit in x["tails"][pair]])
            scores.append(float((logits.argmax(-1) == target).double().mean()))
        return float(np.mean(scores))

    def generation(self, population: list[dict[str, Any]], draws: Draws) -> list[dict[str, Any]]:
        chosen = [
            min((population[i] for i in row), key=lambda x: x["fitness"])
            for row in draws.contestants.tolist()
        ]
        offspring = [
            {"slots": list(x["slots"]), "tails": [list(t) for t in x["tails"]],
             "fitness": x["fitness"]}
            for x in chosen
        ]  # fmt: skip
        for i, crossed in enumerate(draws.crosses):
            if crossed:
                self.cross(offspring[2 * i], offspring[2 * i + 1], draws, i)
        for i, x in enumerate(offspring):
            if draws.mutates[i]:
                self.mutate(x, draws, i)
        for x in offspring:
            if x["fitness"] is None:
                x["fitness"] = self.fitness(x)
        return offspring

    def cross(self, a: dict[str, Any], b: dict[str, Any], draws: Draws, i: int) -> None:
        for pair in set(self.active(a)) & set(self.active(b)):
            for row in range(P):
                for k in range(row * P + P // 2, row * P + P):
                    a["tails"][pair][k], b["tails"][pair][k] = (
                        b["tails"][pair][k], a["tails"][pair][k],
                    )  # fmt: skip
        if self.settings.reading == "dynamics":
            only_a = [k for k, pair in enumerate(a["slots"]) if pair not in b["slots"]]
            only_b = [k for k, pair in enumerate(b["slots"]) if pair not in a["slots"]]
            order, swapped = draws.swaps(i, len(only_a))
            for n, k in enumerate(only_a):
                if swapped[n]:
                    m = only_b[order[n]]
                    mine, theirs = a["slots"][k], b["slots"][m]
                    a["tails"][theirs], b["tails"][mine] = b["tails"][theirs], a["tails"][mine]
                    a["slots"][k], b["slots"][m] = theirs, mine
        a["fitness"] = b["fitness"] = None

    def mutate(self, x: dict[str, Any], draws: Draws, i: int) -> None:
        active = self.active(x)
        if self.settings.reading == "dynamics":
            active = [active[draws.item[i]]]
        flips = draws.tails(i, len(active), SPACE)
        operator = draws.operator[i]
        for number, pair in enumerate(active):
            old = x["tails"][pair]
            if operator == 0:
                x["tails"][pair] = [1 - bit for bit in old]
            elif operator == 1:
                x["tails"][pair] = [old[c * P + r] for r in range(P) for c in range(P)]
            elif operator == 3:
                x["tails"][pair] = [b ^ int(f) for b, f in zip(old, flips[number], strict=True)]
        if operator == 2:
            free = [p for p in range(C * C) if p // C != p % C and p not in x["slots"]]
            slots, ranks, masks = draws.heads(i, self.settings.exchanged, SPACE)
            for slot, rank, mask in zip(slots, ranks, masks.tolist(), strict=True):
                x["slots"][slot] = free[rank]
                x["tails"][free[rank]] = [(mask >> bit) & 1 for bit in range(P * P)]
        x["fitness"] = None

    def genome(self, x: dict[str, Any]) -> tuple[list[int], list[int]]:
        masks = [sum(b << k for k, b in enumerate(x["tails"][p])) for p in self.active(x)]
        return x["slots"], masks


@pytest.mark.parametrize(("reading", "exchanged"), [("text", 1), ("text", 3), ("dynamics", 1)])
def test_the_search_is_algorithm_2_exactly(
    model: torch.nn.Module, held_out: HeldOut, reading: Any, exchanged: int
) -> None:
    """Equal populations and fitness, bit for bit, over 40 individuals and 8 generations."""
    fast = scorer(model, held_out)
    asked = replace(SETTINGS, reading=reading, exchanged=exchanged)
    search = Genetic(7, SPACE, asked, fast)
    search.start()
    reference = Reference(model, held_out, asked)
    start = first_population(7, SPACE, asked, search.fitness)
    population = [reference.individual(x.pairs.tolist(), x.masks.tolist()) for x in start]
    for x in population:
        x["fitness"] = reference.fitness(x)

    for generation in range(9):
        ours = [(x.pairs.tolist(), x.masks.tolist()) for x in search.population]
        assert ours == [reference.genome(x) for x in population]
        assert [x.fitness.values[0] for x in search.population] == [
            x["fitness"] for x in population
        ]
        if generation < 8:
            search.step()
            draws = Draws(7, generation + 1, SPACE, asked)
            population = reference.generation(population, draws)

    assert fast.num_forwards == fast.num_items * PER_PAIR
    assert fast.num_requests * PER_PAIR == reference.forwards
    assert fast.num_items < fast.num_requests


def test_every_item_is_forwarded_exactly_once(held_out: HeldOut, model: torch.nn.Module) -> None:
    rows = []

    def counting(x: torch.Tensor) -> torch.Tensor:
        rows.append(len(x))
        return patches_of(model)(x)

    score = Scorer(SPACE, held_out, counting, PER_PAIR, by_loss=False, rows=12)
    ids, masks = np.array([1, 2, 1, 1], np.int32), np.array([5, 5, 5, 6], np.uint16)

    first = score(ids, masks)
    again = score(ids[::-1].copy(), masks[::-1].copy())

    assert score.num_items == 3
    assert score.num_forwards == 3 * PER_PAIR
    assert rows == [12, 12]  # batches are always full: two items a batch, the second filled up
    assert first.tolist() == again[::-1].tolist()
    assert first[0] == first[2]


def test_a_score_does_not_depend_on_the_company(held_out: HeldOut, model: torch.nn.Module) -> None:
    rng = np.random.default_rng(0)
    ids = SPACE.cross(rng.integers(SPACE.num_cross, size=30))
    masks = rng.integers(SPACE.full, size=30, dtype=np.uint16)

    together = scorer(model, held_out)(ids, masks)
    alone = [scorer(model, held_out)(ids[i : i + 1], masks[i : i + 1])[0] for i in range(30)]

    assert together.tolist() == alone


def test_the_loss_is_the_mean_cross_entropy(held_out: HeldOut, model: torch.nn.Module) -> None:
    score = scorer(model, held_out, by_loss=True)
    one, _ = held_out.image_pairs(0, 1, PER_PAIR)
    images = held_out.images[torch.tensor(one.tolist())]
    logits = patches_of(model)(images)  # the full mask: all of the first class

    value = score(np.array([1], np.int32), np.array([SPACE.full], np.uint16))[0]

    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.zeros(PER_PAIR * P * P, dtype=torch.int64)
    )
    assert value == pytest.approx(float(expected.detach()), rel=1e-5)


MASK = st.integers(0, 2**16 - 1)


@given(first=MASK, second=MASK)
def test_halves_and_transposes(first: int, second: int) -> None:
    masks = np.array([first, second], np.uint16)
    cells = SPACE.bits(masks).reshape(2, P, P)

    assert (SPACE.bits(SPACE.transpose(masks)).reshape(2, P, P) == cells.transpose(0, 2, 1)).all()
    assert SPACE.pack(SPACE.bits(masks)).tolist() == [first, second]
    left = SPACE.bits(np.array([SPACE.left], np.uint16)).reshape(P, P)
    assert left.tolist() == [[True, True, False, False]] * P


@given(classes=st.integers(2, 12))
@settings(max_examples=10)
def test_ranks_are_all_cross_pairs(classes: int) -> None:
    space = Space(classes, 2, 1)

    ids = space.cross(np.arange(space.num_cross))

    assert sorted(ids) == [
        i * classes + j for i in range(classes) for j in range(classes) if i != j
    ]


@given(seed=st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_individuals_keep_exactly_n_distinct_cross_pairs(seed: int) -> None:
    score = table_score(seed)
    search = Genetic(seed, SPACE, replace(SETTINGS, mutation=0.9), score)
    search.start()
    for _ in range(5):
        search.step()

    for x in search.population:
        assert len(set(x.pairs.tolist())) == SPACE.num_pairs
        assert all(p // C != p % C for p in x.pairs)


def table_score(seed: int, space: Space = SPACE) -> Callable[..., NDArray[np.float64]]:
    """Return scores that are smooth over the grid, and the same for (j, i) and the complement."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(C * C, P, P))
    across, down = rng.normal(size=(2, C * C, P, P)) / 2
    level = rng.normal(size=C * C)

    def score(ids: NDArray[np.int32], masks: NDArray[np.uint16]) -> NDArray[np.float64]:
        first, second = np.divmod(ids, C)
        turned = first > second
        ids = np.where(turned, second * C + first, ids)
        masks = np.where(turned, masks ^ space.dtype.type(space.full), masks)
        signs = 2.0 * space.bits(masks).reshape(*ids.shape, P, P) - 1
        smooth = (signs * weight[ids]).sum((-1, -2))
        smooth += (signs[..., 1:] * signs[..., :-1] * across[ids][..., 1:]).sum((-1, -2))
        smooth += (signs[..., 1:, :] * signs[..., :-1, :] * down[ids][..., 1:, :]).sum((-1, -2))
        return 0.5 + 0.01 * (smooth + level[ids])  # type: ignore[no-any-return]

    return score


def test_the_search_gets_better_and_keeps_the_best() -> None:
    search = Genetic(0, SPACE, replace(SETTINGS, generations=30), table_score(0))
    search.start()
    while not search.finished:
        search.step()

    bests = [row["best"] for row in search.history]
    assert bests == sorted(bests, reverse=True)
    assert bests[-1] < bests[0]
    assert search.history[-1]["mean"] < search.history[0]["mean"]
    assert bests[-1] == min(row["best_of_generation"] for row in search.history)


def test_maximising_is_the_other_way_round() -> None:
    search = Genetic(0, SPACE, replace(SETTINGS, maximise=True), table_score(0))
    search.start()
    while not search.finished:
        search.step()

    assert search.history[-1]["best"] == max(r["best_of_generation"] for r in search.history)
    assert search.history[-1]["mean"] > search.history[0]["mean"]


def test_patience_ends_the_search() -> None:
    search = Genetic(0, SPACE, replace(SETTINGS, generations=500, patience=5), table_score(0))
    search.start()
    while not search.finished:
        search.step()

    assert search.generation < 500
    assert search.history[-1]["best"] == search.history[-6]["best"]


def test_direct_finds_the_optimum_of_most_pairs() -> None:
    """All 65,536 masks of each pair are enumerated; at most 600 of them are asked for."""
    asked: dict[int, int] = {}
    score = table_score(3)

    def counting(ids: NDArray[np.int32], masks: NDArray[np.uint16]) -> NDArray[np.float64]:
        for pair in ids:
            asked[int(pair)] = asked.get(int(pair), 0) + 1
        return score(ids, masks)

    found = solve(
        replace(SPACE, num_pairs=SPACE.num_cross), counting, 0, unordered_pairs(SPACE),
        maximise=False, report=lambda *_: None,
    )  # fmt: skip

    assert max(asked.values()) <= 600
    assert len(asked) == 6 + 4  # of (i, j) and (j, i) only one is asked for
    assert found.scores is not None
    every = np.arange(2**16, dtype=np.uint16)
    optima = [score(np.full(2**16, pair), every).min() for pair in found.ids]
    exact = found.scores == np.array(optima)
    assert exact.mean() >= 0.75
    assert found.scores.tolist() == score(found.ids, found.masks).tolist()


def test_direct_is_no_worse_than_the_genetic_search() -> None:
    search = Genetic(0, SPACE, replace(SETTINGS, population=60, generations=40), table_score(1))
    search.start()
    while not search.finished:
        search.step()

    found = solve(
        SPACE, table_score(1), 0, unordered_pairs(SPACE), maximise=False, report=lambda *_: None
    )

    assert found.scores is not None
    assert found.scores.mean() <= search.best[0].fitness.values[0]


def searched(
    landscape: Landscape, reading: Any, generations: int
) -> tuple[Genetic, NDArray[np.int64]]:
    """Return a search with 500 individuals, and how many first pairs its best solution has."""
    asked = replace(SETTINGS, population=500, generations=generations, reading=reading, exchanged=1)
    search = Genetic(7, landscape.space, asked, landscape)
    search.start()
    first = [x.pairs for x in search.population]
    while not search.finished:
        search.step()
    found = search.best[0].pairs
    return search, np.array([np.isin(found, pairs).sum() for pairs in first])


@pytest.mark.parametrize(
    ("classes", "most"), [(10, 0.5), pytest.param(100, 0.1, marks=pytest.mark.slow)]
)
def test_the_search_discards_its_first_pairs(classes: int, most: float) -> None:
    """Nearly half of the possible gain at generation 60; few pairs of any one first solution."""
    landscape = Landscape(Space(classes, 4, classes), per_pair=64, noisy=False)

    search, first_pairs = searched(landscape, "dynamics", 250)

    assert landscape.share_of(search.history[60]["best"]) >= 0.45
    assert first_pairs.max() <= most * classes
    assert search.history[-1]["first_pairs"] <= first_pairs.max()
    assert search.history[0]["first_pairs"] == classes


def test_the_search_as_written_keeps_its_first_pairs() -> None:
    landscape = Landscape(Space(100, 4, 100), per_pair=64, noisy=False)

    search, first_pairs = searched(landscape, "text", 60)

    assert landscape.share_of(search.history[-1]["best"]) < 0.3
    assert first_pairs.max() > 50


def solved(landscape: Landscape, budget: int) -> SearchResult:
    number = pairs_within(landscape.space, landscape.per_pair, budget)
    pairs = screened(landscape.space, landscape.screen, 0, number, maximise=False)
    return solve(landscape.space, landscape, 0, pairs, maximise=False, report=lambda *_: None)


def test_the_direct_search_finds_most_of_the_gain_within_its_budget() -> None:
    landscape = Landscape(Space(100, 4, 100), per_pair=64)

    found = solved(landscape, 6_000_000)

    assert landscape.share(found.ids, found.masks) >= 0.85
    assert landscape.num_forwards <= 6_000_000
    assert len(set(found.ids.tolist())) == 100


@pytest.mark.slow
def test_the_direct_search_works_with_a_thousand_classes() -> None:
    landscape = Landscape(Space(1000, 4, 1000), per_pair=64)

    found = solved(landscape, 80_000_000)

    assert landscape.share(found.ids, found.masks) >= 0.75
    assert landscape.num_forwards <= 80_000_000


def test_a_budget_decides_how_many_pairs_are_solved() -> None:
    ten, hundred = Space(10, 4, 10), Space(100, 4, 100)

    assert pairs_within(ten, 64, 80_000_000) == 45  # all
    assert pairs_within(hundred, 64, 80_000_000) == 200  # twice the pairs of a solution
    assert 100 < pairs_within(hundred, 64, 6_000_000) < 200
    with pytest.raises(UsageError, match=r"needs a budget of at least 2,0\d\d,\d\d\d images"):
        pairs_within(hundred, 64, 1_000_000)


def test_a_budget_ends_the_genetic_search(model: torch.nn.Module, held_out: HeldOut) -> None:
    score = scorer(model, held_out)

    found = evolve(SPACE, replace(SETTINGS, budget=2000), score, score, 3, lambda *_: None)

    assert 1 < len(found.history) < 9
    assert score.num_forwards >= 2000


def test_the_last_solutions_are_scored_exactly(model: torch.nn.Module, held_out: HeldOut) -> None:
    """A rough search proposes; the exact scores decide among its last solutions."""
    exact, rough = scorer(model, held_out), scorer(model, held_out)
    rough._patches = lambda x: (10 * patches_of(model)(x)).round()  # many ties

    found = evolve(SPACE, SETTINGS, rough, exact, 3, lambda *_: None)

    assert found.scores is not None
    assert found.scores.tolist() == scorer(model, held_out)(found.ids, found.masks).tolist()
    search = Genetic(3, SPACE, SETTINGS, rough)
    search.start()
    while not search.finished:
        search.step()
    means = [exact(x.ids(SPACE), x.masks).mean() for x in [search.best[0], *search.population]]
    assert found.scores.mean() == min(means)


class Scratch:
    """As much of a preparation as saving needs."""

    processes = SINGLE

    def __init__(self, scratch: Path, stop_after: int) -> None:
        self.scratch = scratch
        self.calls = 0
        self.stop_after = stop_after

    def report(self, *_: object) -> None:
        self.calls += 1
        if self.calls == self.stop_after:
            raise KeyboardInterrupt


def run(score: Scorer, scratch: Path, stop_after: int = 0) -> SearchResult:
    preparation: Any = Scratch(scratch, stop_after)
    progress = Progress({"search": score}, preparation)
    return evolve(SPACE, SETTINGS, score, score, 3, progress.report)


@pytest.mark.parametrize("stop_after", [2, 12])
def test_a_search_that_was_stopped_ends_the_same(
    tmp_path: Path, model: torch.nn.Module, held_out: HeldOut, stop_after: int
) -> None:
    """Also within the first generation; no image is passed through the model again."""
    (tmp_path / "whole").mkdir()
    first = scorer(model, held_out)
    whole = run(first, tmp_path / "whole")

    with pytest.raises(KeyboardInterrupt):
        run(scorer(model, held_out), tmp_path, stop_after)
    known = saved_scores(tmp_path / STATE)["search"]
    again = scorer(model, held_out)
    rows = []
    patches = again._patches

    def counted(x: torch.Tensor) -> torch.Tensor:
        rows.append(len(x))
        return patches(x)

    again._patches = counted
    resumed = run(again, tmp_path)

    assert resumed.ids.tolist() == whole.ids.tolist()
    assert resumed.masks.tolist() == whole.masks.tolist()
    assert resumed.history == whole.history
    assert resumed.snapshots == whole.snapshots
    assert again.num_forwards == first.num_forwards
    assert 0 < len(known.keys) < first.num_items
    assert sum(rows) < first.num_forwards


def test_scores_that_are_not_asked_for_again_stay_saved(
    model: torch.nn.Module, held_out: HeldOut
) -> None:
    """A search that is stopped again while it replays loses nothing."""
    ids = unordered_pairs(SPACE)
    first, second = scorer(model, held_out), scorer(model, held_out)
    first(ids, np.zeros(len(ids), np.uint16))

    second.recall(first.memory)
    second(ids[:1], np.zeros(1, np.uint16))

    assert second.memory.keys.tolist() == first.memory.keys.tolist()
    assert second.memory.scores.tolist() == first.memory.scores.tolist()


def test_a_stopped_screening_ends_the_same(model: torch.nn.Module, held_out: HeldOut) -> None:
    ids = unordered_pairs(SPACE)
    masks = np.random.default_rng(0).integers(SPACE.full, size=(len(ids), 12), dtype=np.uint16)
    first = scorer(model, held_out)
    whole = first.screen(ids, masks)

    second = scorer(model, held_out)
    second.recall(Known(first.memory.keys[:3], first.memory.scores[:3]))

    assert second.screen(ids, masks).tolist() == whole.tolist()
    one, other = held_out.image_pairs(0, 1, 12)
    cells = SPACE.bits(masks[:1])[0]
    mixed = compose_grid(
        held_out.images, torch.from_numpy(np.where(cells, one[:, None], other[:, None])), P
    )
    hits = patches_of(model)(mixed).argmax(-1).numpy() == np.where(cells, 0, 1)
    assert whole[0] == hits.mean()


@pytest.mark.full
def test_a_damaged_state_starts_over(
    tmp_path: Path, model: torch.nn.Module, held_out: HeldOut
) -> None:
    whole = run(scorer(model, held_out), tmp_path)
    (tmp_path / STATE).write_bytes(b"PK\x03\x04 half of a file")

    again = run(scorer(model, held_out), tmp_path)

    assert again.history == whole.history


def test_bytes_are_composed_before_they_are_normalised(model: torch.nn.Module) -> None:
    """The same scores from a quarter of the memory."""
    classes = torch.arange(8 * C) % C
    pixels = torch.randint(256, (8 * C, 3, 16, 12), generator=generator(0, "synthetic")).byte()
    split = ResidentSplit(pixels, classes, ClassIndex(classes, C), IMAGENET_NORMALIZATION)
    read = HeldOut(split.read(torch.arange(8 * C), None), ClassIndex(classes, C), seed=0)

    kept = HeldOut.of(split, 0, torch.device("cpu"))

    assert kept.images.dtype == torch.uint8
    ids = SPACE.cross(np.arange(SPACE.num_cross))
    masks = np.random.default_rng(0).integers(SPACE.full, size=len(ids), dtype=np.uint16)
    assert scorer(model, kept)(ids, masks).tolist() == scorer(model, read)(ids, masks).tolist()


NAMES = ("cat", "dog", "ship", "truck")


def written(folder: Path, found: SearchResult, space: Space = SPACE) -> Path:
    path = folder / "search.json"
    path.write_text(to_json(found, space, NAMES, {"search": "genetic"}))
    return path


def test_a_result_file_is_read_back(tmp_path: Path) -> None:
    found = random_pairs(SPACE, 0)

    again = from_file(written(tmp_path, found), P, C, NAMES)

    assert again.ids.tolist() == found.ids.tolist()
    assert again.masks.tolist() == found.masks.tolist()


def test_a_result_file_is_readable(tmp_path: Path) -> None:
    found = SearchResult(np.array([1], np.int32), np.array([0b0000_0000_0000_0011], np.uint16))

    content = json.loads(written(tmp_path, found).read_text())

    assert content["pairs"][0] == {
        "first": "cat", "second": "dog", "mask": ["1100", "0000", "0000", "0000"], "score": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("grid", "classes", "names", "complaint"),
    [
        (2, C, NAMES, "masks of 4 x 4 cells; grid must be the same (got 2)"),
        (P, 5, None, "is for the 4 classes cat, dog, ship, truck, ...; the task has 5"),
        (P, C, ("a", "b", "c", "d"), "the task has 4 others"),
    ],
)
def test_a_result_for_something_else_is_refused(
    tmp_path: Path, grid: int, classes: int, names: Sequence[str] | None, complaint: str
) -> None:
    path = written(tmp_path, random_pairs(SPACE, 0))

    with pytest.raises(UsageError) as caught:
        from_file(path, grid, classes, names)

    assert complaint in str(caught.value)


Change = Callable[[dict[str, Any]], object]
NO_RESULTS: dict[str, tuple[Change, str]] = {
    "empty": (lambda _: "", "top level"),
    "deep": (lambda _: "[" * 100_000, "top level"),
    "other schema": (lambda c: c | {"schema": "mixbench/search@0"}, "schema"),
    "large grid": (lambda c: c | {"grid": 9}, "grid"),
    "equal classes": (lambda c: c | {"classes": ["cat", "cat", "dog"]}, "different names"),
    "fewer classes": (lambda c: c | {"classes": ["cat", "dog"]}, "is none of the classes"),
    "no pairs": (lambda c: c | {"pairs": []}, "pairs"),
    "short mask": (lambda c: c | {"pairs": [c["pairs"][0] | {"mask": ["1111"] * 3}]}, "pairs.0: m"),
    "no bits": (lambda c: c | {"pairs": [c["pairs"][0] | {"mask": ["2111"] * 4}]}, "pairs.0.mask"),
    "number": (lambda c: c | {"pairs": [c["pairs"][0] | {"first": 7}]}, "pairs.0.first"),
    "no list": (lambda c: c | {"pairs": 5}, "pairs"),
}


@pytest.mark.parametrize("name", NO_RESULTS)
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, name: str) -> None:
    change, said = NO_RESULTS[name]
    path = written(tmp_path, random_pairs(SPACE, 0))
    content = change(json.loads(path.read_text()))
    path.write_text(content if isinstance(content, str) else json.dumps(content))

    with pytest.raises(UsageError) as caught:
        from_file(path, P, C, NAMES)

    assert f"{path} must be the result of a search" in str(caught.value)
    assert said in str(caught.value)


def test_image_pairs_are_fixed_and_never_an_image_with_itself(held_out: HeldOut) -> None:
    same, again = (held_out.image_pairs(2, 2, PER_PAIR) for _ in range(2))
    cross = held_out.image_pairs(0, 3, PER_PAIR)
    assert (held_out.image_pairs(0, 3, 2) == cross[:, :2]).all()

    assert (same == again).all()
    assert (same[0] != same[1]).all()
    assert (held_out.by_class.classes[cross[0]] == 0).all()
    assert (held_out.by_class.classes[cross[1]] == 3).all()
    assert len({tuple(p) for p in cross.T}) == PER_PAIR


def test_too_few_images_to_compose_are_named(held_out: HeldOut) -> None:
    lonely = replace(held_out, by_class=ClassIndex(torch.tensor([0, 1, 1, 2]), C))

    with pytest.raises(DataError, match="classes 0 and 3 have too few held-out images"):
        lonely.image_pairs(0, 3, PER_PAIR)
    with pytest.raises(DataError, match="classes 0 and 0"):
        lonely.image_pairs(0, 0, PER_PAIR)


@pytest.mark.parametrize("classes", [10, 100, 1000])
def test_an_individual_is_small(classes: int) -> None:
    space = Space(classes, 4, classes, same_class=True)

    (individual,) = first_population(0, space, replace(SETTINGS, population=1), float)

    size = individual.pairs.nbytes + individual.masks.nbytes
    assert size <= 16 * classes


def test_images_that_do_not_fit_are_refused_before_any_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = torch.zeros(50, 3, 8, 8, dtype=torch.uint8)
    split = ResidentSplit(images, torch.zeros(50), None, IMAGENET_NORMALIZATION)
    monkeypatch.setattr("mixbench.search.fitness.device_memory", lambda: ("GPU", 4e8))

    HeldOut.check_memory(split, (3, 224, 224))
    monkeypatch.setattr("mixbench.search.fitness.device_memory", lambda: ("GPU", 3e8))
    with pytest.raises(
        UsageError, match=r"keeps 50 held-out images of 224x224 pixels in memory, 0\.393 GB"
    ):
        HeldOut.check_memory(split, (3, 224, 224))
