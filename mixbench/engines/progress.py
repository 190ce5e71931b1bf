"""The progress display of a run: a live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from mixbench.engines.engine import Engine
from mixbench.engines.run_state import RunState
from mixbench.engines.scheduler import gpu_hours
from mixbench.plan.status import Status
from mixbench.storage.notes import STALLED_S, Progress

LIVE_EVERY_S, PLAIN_EVERY_S = 0.25, 15.0
LEAST_NAME = 16  # characters of a cell in the table
MEASURED, LONG_S = 30, 600.0  # steps before the speed is reliable; shortest run with a forecast
SHORT_S = 3.0  # assumed for a stage without training until one of its kind has ended
ENDINGS: Mapping[Status, str] = {
    "done": "done",
    "failed": "FAILED",
    "diverged": "DIVERGED",
    "skipped": "skipped",
}


def duration(seconds: float) -> str:
    """Format a time span in seconds, as in 45 s, 3 m 20 s or 2 h 05 m."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} m"
    return f"{minutes} m {rest:02d} s" if minutes else f"{rest} s"


def remaining_s(board: RunState) -> float | None:
    """Estimate the seconds until all cells are settled; None until the first training has begun.

    The estimate assumes that the stages of one cell run one after the other.
    """
    left = left_s(board)
    return None if left is None else _in_slots(board, left)


def _in_slots(board: RunState, left: Mapping[str, float]) -> float:
    """Return the wall-clock seconds that the remaining work takes in the slots in use."""
    return sum(left.values()) / max(min(board.num_slots, board.num_open), 1)


def left_s(board: RunState) -> dict[str, float] | None:
    """Estimate the remaining seconds of work by kind of stage; None before the first training.

    The estimate assumes that all stages of one kind cost the same per epoch. A running stage
    counts with the fraction of its steps that is left, at its measured speed.
    """
    spent: dict[str, float] = {kind: work.done_s for kind, work in board.work.items()}
    amount: dict[str, float] = {kind: work.done for kind, work in board.work.items()}
    left: dict[str, float] = {kind: work.waiting for kind, work in board.work.items()}
    for key in board.running:
        stage, line = board.plan.stages[key], board.store.progress(key)
        size = max(stage.num_epochs, 1)
        left[stage.kind] += size
        if line and line.steps_per_s:  # without the start of the process
            share = size * line.step / line.of
            left[stage.kind] -= share
            amount[stage.kind] += share
            spent[stage.kind] += line.step / line.steps_per_s / board.states[key].sharing
    if left.get("train") and not amount["train"]:
        return None
    costs = {kind: spent[kind] / amount[kind] for kind in amount if amount[kind]}
    return {kind: costs.get(kind, SHORT_S) * size for kind, size in left.items() if size}


def forecast(board: RunState) -> str:
    """Return a message with the estimated total time, or an empty text if the run is short."""
    training = (key for key in board.running if board.plan.stages[key].kind == "train")
    lines = [line for key in training if (line := board.store.progress(key))]
    left = remaining_s(board) if any(line.step - line.first >= MEASURED for line in lines) else None
    if left is None or left < LONG_S:
        return ""
    speed = sum(line.steps_per_s for line in lines) / len(lines)
    return (
        f"At the measured {speed:.3g} steps/s of a training stage, this takes about "
        f"{duration(left)} in {board.num_slots} slots. You can stop it at any time: run the same "
        "command again to resume from the last checkpoints."
    )


def summary(board: RunState) -> str:
    """Return one line with the number of stages by status and the ETA."""
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
    """Return the GPU-hours used so far and, if it can be estimated, their total."""
    if not board.gpus:
        return ""
    spent = gpu_hours(board)
    if not left:
        return f"   {spent:.2f} GPU-hours"
    more = sum(board.gpus_of(kind) * seconds for kind, seconds in left.items())
    return f"   {spent:.2f} of about {spent + more / 3600:.2f} GPU-hours"


def position(line: Progress | None) -> tuple[str, str, str, str]:
    """Return a stage's step, speed, ETA and displayed metrics as texts, from its progress."""
    if line is None:
        return "", "", "", ""
    shown = ", ".join(f"{name} {value:.4g}" for name, value in line.shown.items())
    speed = line.steps_per_s
    left = duration((line.of - line.step) / speed) if speed else ""
    return f"{line.step}/{line.of}", f"{speed:.1f}/s", left, shown


class StallMonitor:
    """Measure how long ago the progress of each stage changed, by the launcher's clock."""

    def __init__(self) -> None:
        self._last_change: dict[str, tuple[Progress | None, float]] = {}

    def age_s(self, key: str, line: Progress | None, now: float) -> float:
        """Return the seconds since a stage's progress last changed."""
        before, since = self._last_change.get(key, (None, now))
        if key not in self._last_change or before != line:
            self._last_change[key] = line, now
            return 0.0
        return now - since


def stall_label(age_s: float, started: bool) -> str:  # noqa: FBT001  # not a mode switch
    """Return "starting", "stalled ..." or an empty text, by the age of the last progress line."""
    if age_s < STALLED_S:
        return "" if started else "starting"
    return f"stalled: no progress for {duration(age_s)}"


def stall_notice(board: RunState, key: str, age_s: float) -> str:
    """Return a line about a stage that has stalled, with what to look at."""
    stage = board.plan.stages[key]
    return (
        f"stalled  {stage.kind:8} {stage.label}: no progress for {duration(age_s)}; its log shows "
        f"what it is doing: {board.store.log(key)}"
    )


class Show:
    """Display the progress of a run.

    On a terminal, a table of the running stages is redrawn in place. Elsewhere, one line is
    printed for each stage that ends, and a summary every 15 seconds. A stage that failed, diverged
    or was skipped is printed as a line in both cases.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, transient=True) if console.is_terminal else None
        self._told = 0  # number of endings that were printed
        self._stall_monitor = StallMonitor()
        self._stalled: set[str] = set()  # stages that were said to be stalled
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
        """Print a message on a line."""
        # A line of a log stays one line; on a terminal it breaks between words.
        whole = not self._console.is_terminal
        self._console.print(text, highlight=False, soft_wrap=whole, markup=False)

    def update(self, board: RunState, engine: Engine) -> None:
        """Display what changed since the last call."""
        for key in board.ended[self._told :]:
            state = board.states[key]
            if state.status in ENDINGS and (state.reason or not self._live):
                self.notice(_ending(board, key))
        self._told = len(board.ended)
        if time.monotonic() - self._last < (LIVE_EVERY_S if self._live else PLAIN_EVERY_S):
            return
        self._last = time.monotonic()
        if not self._estimate_shown and (text := forecast(board)):
            self._estimate_shown = True
            self.notice(text)
        if self._live:
            width = self._console.width
            self._live.update(_table(board, engine, self._stall_monitor, width))
        else:
            self._tell_stalled(board)
            self.notice(summary(board))

    def _tell_stalled(self, board: RunState) -> None:
        """Print a line about each stage that has stalled since the last call."""
        now = time.monotonic()
        ages = {
            key: self._stall_monitor.age_s(key, board.store.progress(key), now)
            for key in board.running
        }
        stalled = {key for key, age_s in ages.items() if age_s >= STALLED_S}
        for key in sorted(stalled - self._stalled):
            self.notice(stall_notice(board, key, ages[key]))
        self._stalled = stalled


def _ending(board: RunState, key: str) -> str:
    """Return the line about a stage that ended."""
    stage, state = board.plan.stages[key], board.states[key]
    took = f" in {duration(state.duration_s)}" if state.duration_s else ""
    why = f": {state.reason}" if state.reason else ""
    return f"{ENDINGS[state.status]:8} {stage.kind:8} {stage.label}{took}{why}"


def _table(board: RunState, engine: Engine, stall_monitor: StallMonitor, width: int) -> Table:
    """Return the table of the running stages, in at most so many columns of text.

    Empty columns are left out. In a narrow terminal, the device and the metrics are left out next;
    then names of cells lose their beginning, as their end tells the seed.
    """
    heads = ["cell", "stage", "step", "speed", "ETA", "metrics", "where", ""]
    now, rows = time.monotonic(), []
    for key in board.running:
        stage = board.plan.stages[key]
        line = board.store.progress(key)
        said = stall_label(stall_monitor.age_s(key, line, now), started=bool(line))
        step, speed, left, metrics = position(line)
        rows.append([stage.label, stage.kind, step, speed, left, metrics, engine.place(key), said])
    needed = [max([len(head), *(len(row[i]) for row in rows)]) for i, head in enumerate(heads)]
    kept = [i for i in range(len(heads)) if i < 2 or any(row[i] for row in rows)]
    for name in ("where", "metrics"):
        if sum(needed[i] + 1 for i in kept) > width and (at := heads.index(name)) in kept:
            kept.remove(at)
    room = max(width - sum(needed[i] + 1 for i in kept[1:]), LEAST_NAME)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for i in kept:
        table.add_column(heads[i], no_wrap=True)
    for row in rows:
        name = row[0] if len(row[0]) <= room else f"…{row[0][1 - room :]}"
        table.add_row(name, *(row[i] for i in kept[1:]))
    table.caption = summary(board)
    table.caption_justify = "left"
    return table
