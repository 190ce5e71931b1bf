"""Show how far the work is: a live table on a terminal, plain lines elsewhere."""

import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from mixbench.engines.engine import Engine
from mixbench.engines.run_state import RunState
from mixbench.engines.scheduler import gpu_hours
from mixbench.plan.status import Status
from mixbench.storage.notes import Progress

LIVE_EVERY_S, PLAIN_EVERY_S = 0.25, 15.0
MEASURED, LONG_S = 30, 600.0  # steps that tell a speed, and what is worth a word beforehand
STALLED_S = 120.0  # without a new line, which a stage writes twice a second while it works
SHORT_S = 3.0  # taken for a stage without training until one of its kind has ended
ENDINGS: Mapping[Status, str] = {
    "done": "done",
    "failed": "FAILED",
    "diverged": "DIVERGED",
    "skipped": "skipped",
}


def duration(seconds: float) -> str:
    """Return a time span as people say it: 45 s, 3 m 20 s, 2 h 05 m."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} m"
    return f"{minutes} m {rest:02d} s" if minutes else f"{rest} s"


def remaining_s(board: RunState) -> float | None:
    """Estimate the seconds until everything is settled; None as long as no training has begun.

    A cell's stages run one after the other.
    """
    left = left_s(board)
    return None if left is None else _in_slots(board, left)


def _in_slots(board: RunState, left: Mapping[str, float]) -> float:
    """Return the seconds that so much work takes in the slots that are used."""
    unsettled = sum(not board.settled(number) for number in range(len(board.plan.cells)))
    return sum(left.values()) / max(min(board.num_slots, unsettled), 1)


def left_s(board: RunState) -> dict[str, float] | None:
    """Estimate the seconds of work that are left, by kind of stage; None before any training.

    Stages of one kind are taken to cost the same per epoch; a running one counts with the part
    that its progress leaves, at its measured speed.
    """
    spent: dict[str, float] = defaultdict(float)
    amount: dict[str, float] = defaultdict(float)
    left: dict[str, float] = defaultdict(float)
    for key, state in board.states.items():
        stage = board.plan.stages[key]
        size = max(stage.num_epochs, 1)
        share, seconds = _done(board, key)
        if seconds:
            spent[stage.kind] += seconds
            amount[stage.kind] += share * size
        if state.status in {"waiting", "running"}:
            left[stage.kind] += (1 - share) * size
    if "train" in left and not amount["train"]:
        return None
    costs = {kind: spent[kind] / amount[kind] for kind in amount if amount[kind]}
    return {kind: costs.get(kind, SHORT_S) * size for kind, size in left.items()}


def _done(board: RunState, key: str) -> tuple[float, float]:
    """Return how much of a stage is done, in [0, 1], and the seconds that it took, start-up apart.

    The seconds are its part of those of its process, and 0 as long as they are not known.
    """
    state = board.states[key]
    line = board.store.progress(key) if state.status == "running" else None
    if line and line.steps_per_s:
        share, seconds = line.step / line.of, line.step / line.steps_per_s
    else:
        share, seconds = float(state.status == "done"), state.duration_s or 0.0
    return share, seconds / state.sharing


def forecast(board: RunState) -> str:
    """Return how long it all takes at the speed that was measured; empty if that is short."""
    running = (key for key, state in board.states.items() if state.status == "running")
    training = (key for key in running if board.plan.stages[key].kind == "train")
    lines = [line for key in training if (line := board.store.progress(key))]
    left = remaining_s(board) if any(line.step - line.first >= MEASURED for line in lines) else None
    if left is None or left < LONG_S:
        return ""
    speed = sum(line.steps_per_s for line in lines) / len(lines)
    return (
        f"At the measured {speed:.3g} steps/s of a training stage, this takes about "
        f"{duration(left)} in {board.num_slots} slots. It may be stopped at any time: the same "
        "command goes on from the last checkpoints."
    )


def summary(board: RunState) -> str:
    """Return one line: how many stages are where, and the time that is left."""
    counts = {
        "cached": board.count("cached"),
        "done": board.count("done"),
        "running": board.count("running"),
        "waiting": board.count("waiting"),
        "failed": board.count("failed", "diverged", "skipped"),
    }
    text = ", ".join(f"{name} {number}" for name, number in counts.items() if number)
    left = left_s(board) if board.count("waiting", "running") else None
    return f"stages: {text}{_gpu_hours(board, left)}" + (
        f"   about {duration(_in_slots(board, left))} left" if left is not None else ""
    )


def _gpu_hours(board: RunState, left: Mapping[str, float] | None) -> str:
    """Say what GPU-hours are spent, and how many it will be in all as far as can be told."""
    if not board.gpus:
        return ""
    spent = gpu_hours(board)
    if not left:
        return f"   {spent:.2f} GPU-hours"
    more = sum(board.gpus_of(kind) * seconds for kind, seconds in left.items())
    return f"   {spent:.2f} of about {spent + more / 3600:.2f} GPU-hours"


def position(line: Progress | None) -> tuple[str, str, str, str]:
    """Return a stage's step, speed, time left and the numbers that it shows, from its progress."""
    if line is None:
        return "", "", "", ""
    shown = ", ".join(f"{name} {value:.4g}" for name, value in line.shown.items())
    speed = line.steps_per_s
    left = duration((line.of - line.step) / speed) if speed else ""
    return f"{line.step}/{line.of}", f"{speed:.1f}/s", left, shown


class StallMonitor:
    """When each stage was last heard of, by the launcher's own clock."""

    def __init__(self) -> None:
        self._last_change: dict[str, tuple[Progress | None, float]] = {}

    def age_s(self, key: str, line: Progress | None, now: float) -> float:
        """Return for how long a stage's progress has been what it is."""
        before, since = self._last_change.get(key, (None, now))
        if key not in self._last_change or before != line:
            self._last_change[key] = line, now
            return 0.0
        return now - since


def stall_label(age_s: float, started: bool) -> str:  # noqa: FBT001  # a fact of the line
    """Return what the age of a stage's last line means."""
    if age_s < STALLED_S:
        return "" if started else "starting"
    return f"stalled: silent for {duration(age_s)}"


class Show:
    """Tells the user what happens.

    On a terminal a table of the running stages is redrawn in place; elsewhere every stage that
    ends is a line, with a summary now and then. A stage that went wrong is a line in both.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, transient=True) if console.is_terminal else None
        self._told: set[str] = set()
        self._stall_monitor = StallMonitor()
        self._estimate_shown = False
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def notice(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)

    def update(self, board: RunState, engine: Engine) -> None:
        """Say what is new since the last call."""
        for key, state in board.states.items():
            if state.status in ENDINGS and key not in self._told:
                self._told.add(key)
                if state.reason or not self._live:
                    self.notice(_ending(board, key))
        if time.monotonic() - self._last < (LIVE_EVERY_S if self._live else PLAIN_EVERY_S):
            return
        self._last = time.monotonic()
        if not self._estimate_shown and (text := forecast(board)):
            self._estimate_shown = True
            self.notice(text)
        if self._live:
            self._live.update(_table(board, engine, self._stall_monitor))
        else:
            self.notice(summary(board))


def _ending(board: RunState, key: str) -> str:
    """Return the line about a stage that ended."""
    stage, state = board.plan.stages[key], board.states[key]
    took = f" in {duration(state.duration_s)}" if state.duration_s else ""
    why = f": {state.reason}" if state.reason else ""
    return f"{ENDINGS[state.status]:8} {stage.kind:8} {stage.label}{took}{why}"


def _table(board: RunState, engine: Engine, stall_monitor: StallMonitor) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("cell", "stage", "where", "step", "speed", "left", "so far", ""):
        table.add_column(name, no_wrap=True)
    now = time.monotonic()
    for key, state in board.states.items():
        if state.status == "running":
            stage = board.plan.stages[key]
            line = board.store.progress(key)
            said = stall_label(stall_monitor.age_s(key, line, now), started=bool(line))
            table.add_row(stage.label, stage.kind, engine.place(key), *position(line), said)
    table.caption = summary(board)
    table.caption_justify = "left"
    return table
