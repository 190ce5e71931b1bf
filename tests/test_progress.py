"""What the user is told of the time that is left."""

import fcntl
import json
import os
import pty
import re
import struct
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

import pytest

from mixbench.engines.progress import (
    StallMonitor,
    duration,
    forecast,
    position,
    remaining_s,
    stall_label,
    summary,
)
from mixbench.engines.run_state import RunState, StageState
from mixbench.plan.graph import plan
from mixbench.plan.request import Request, cells_of
from mixbench.storage.notes import Progress
from mixbench.storage.store import Store


@pytest.fixture
def board(tmp_path: Path) -> RunState:
    """Four cells of 60 epochs, of which the first two are running in two slots."""
    planned = plan(cells_of(Request(["none"], ["digits"], seeds=range(4))))
    store = Store(tmp_path)
    store.open()
    board = RunState(planned, store, 2)
    for key in planned.stages:
        board.put(key, StageState())
    for key in trainings(board)[:2]:
        board.put(key, StageState("running", started=0.0))
    return board


def trainings(board: RunState) -> list[str]:
    return [key for key, stage in board.plan.stages.items() if stage.kind == "train"]


def finish_all_but_first(board: RunState) -> None:
    for key in list(board.states)[2:]:
        board.put(key, StageState("done"))


def note(board: RunState, key: str, step: int, of: int, speed: float, first: int = 0) -> None:
    path = board.store.work(key) / "progress.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    line = {"step": step, "of": of, "first": first, "steps_per_s": speed, "shown": {}}
    path.write_text(json.dumps(line) + "\n")


def test_nothing_is_foretold_before_a_speed_is_measured(board: RunState) -> None:
    assert remaining_s(board) is None
    assert forecast(board) == ""


def test_the_time_left_follows_from_the_measured_speed(board: RunState) -> None:
    for key in trainings(board)[:2]:
        note(board, key, 100, 1000, speed=0.5)

    left = remaining_s(board)

    # Two runs with 900 steps left and two with 1000, at two seconds a step, in two slots; and
    # four evaluations, taken for 3 s each.
    assert left == pytest.approx((2 * 900 + 2 * 1000) * 2 / 2 + 4 * 3 / 2)


def test_runs_of_one_process_share_its_slot(board: RunState) -> None:
    board.num_slots = 1
    for key in trainings(board)[:2]:
        board.put(key, StageState("running", started=0.0, sharing=2))
        note(board, key, 100, 1000, speed=0.5)

    # Each does a step in two seconds, so that the slot does one in a second.
    assert remaining_s(board) == pytest.approx(2 * 900 + 2 * 1000 + 4 * 3)


def test_a_long_run_is_foretold_with_its_measured_speed(board: RunState) -> None:
    note(board, trainings(board)[0], 100, 1000, speed=0.5)

    assert "measured 0.5 steps/s" in forecast(board)
    assert "about 1 h 05 m in 2 slots" in forecast(board)


def test_a_short_run_or_a_first_step_is_not(board: RunState) -> None:
    note(board, trainings(board)[0], 100, 1000, speed=100)
    assert forecast(board) == ""

    note(board, trainings(board)[0], 502, 1000, speed=0.1, first=500)
    assert forecast(board) == ""


def test_gpu_hours_are_foretold_of_the_nodes_that_train(board: RunState) -> None:
    finish_all_but_first(board)
    first = trainings(board)[0]
    note(board, first, 3600, 7200, speed=1)
    board.put(first, StageState("running", started=time.monotonic()))
    board.gpus, board.nodes = 0.5, 4

    # An hour is left of training on half a GPU of each of four nodes; 3 s of evaluation on one.
    assert "0.00 of about 2.00 GPU-hours" in summary(board)


def test_one_cell_does_not_use_two_slots(board: RunState) -> None:
    finish_all_but_first(board)
    first = trainings(board)[0]
    note(board, first, 100, 1000, speed=1)

    assert remaining_s(board) == pytest.approx(900 + 3)


@pytest.mark.parametrize(("seconds", "text"), [(45, "45 s"), (200, "3 m 20 s"), (7500, "2 h 05 m")])
def test_durations_are_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_row_tells_step_speed_and_time_left() -> None:
    line = Progress(40, 100, steps_per_s=0.5, shown={"top1": 61.234})

    assert position(line) == ("40/100", "0.5/s", "2 m 00 s", "top1 61.23")


def test_a_stage_that_says_nothing_new_is_stalled() -> None:
    stall_monitor, line = StallMonitor(), Progress(1, 10)

    ages = [stall_monitor.age_s("a", line, now) for now in (1000.0, 1001.0, 1200.0)]
    again = stall_monitor.age_s("a", Progress(2, 10), 1201.0)

    assert ages == [0, 1, 200]
    assert again == 0
    assert stall_label(0.0, started=False) == "starting"
    assert stall_label(1.0, started=True) == ""
    assert stall_label(200.0, started=True) == "stalled: no progress for 3 m 20 s"


WIDE = 80


def in_terminal(*command: str) -> str:
    """Return what a command writes to a terminal of 80 columns, without its colours."""
    child, terminal = pty.fork()
    if not child:
        os.execv(sys.executable, [sys.executable, "-P", "-m", "mixbench", *command])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, WIDE, 0, 0))
    written = b""
    with suppress(OSError):  # the end of a terminal
        while part := os.read(terminal, 1 << 16):
            written += part
    os.waitpid(child, 0)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", written.decode())


@pytest.mark.full
@pytest.mark.parametrize(
    "command",
    [
        "plan -m guided_patchmix,none -t clothing --set guided_patchmix.search=random --seeds 3",
        "plan --suite field_wsol",
        "plan -m none,mixup -t digits --seeds 2 --tune lr=0.1,0.2",
        "info guided_patchmix",
        "report --suite clothing_finetune",
        "list tasks",
        "run -m nonee -t digits",
    ],
)
def test_nothing_is_wider_than_the_terminal(command: str) -> None:
    written = in_terminal(*command.split())

    assert len(written) > 200
    assert [line for line in written.splitlines() if len(line) > WIDE] == []
