"""Checks of the data that a stage reads, beyond those of its readers.

Before anything is trained, the files of all splits are listed (`worker.preflight`). Beside the
first epoch, the validation and test images are decoded once. Before a stage is published, its files
are compared with those for which it was planned.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mixbench.contract import Part, Task
from mixbench.datasets.locate import data_of, data_state, path_state
from mixbench.declare import Data
from mixbench.errors import DamagedImage, DataError
from mixbench.plan.graph import card_of, part_read
from mixbench.registry.cards import TaskCard
from mixbench.storage.lease import Lease
from mixbench.storage.spec import Stage
from mixbench.vision.images.decode import read_image
from mixbench.worker.job import Job, make_task, parameters_of

NICENESS = 10  # so that training and its DataLoader workers come first
DECODED: tuple[Part, ...] = ("validation", "test")  # training decodes the others itself


def check_unchanged(stage: Stage) -> None:
    """Check that the files that a stage read are still those for which it was planned.

    Raises
    ------
    DataError
        If a file of the data, or a file that a parameter names, has changed or is gone.
    """
    changed = [path for path, state in stage.paths.file_states.items()
               if path_state(Path(path)) != state]  # fmt: skip
    if stage.paths.data is not None and stage.identity.run is not None:
        part, data = part_read(stage.kind), _data(stage)
        if data_state(data, Path(stage.paths.data), part) != stage.paths.data_states[part]:
            changed.append(f"the {part} data in {stage.paths.data}")
    if changed:
        raise DataError(
            f"Files have changed since the run was planned: {', '.join(changed)}. No result was "
            "stored. Run the same command again to plan it with the files as they are now."
        )


def _data(stage: Stage) -> Data:
    """Return the data set of a stage; an evaluation may share that of its base task."""
    card = card_of(stage, "task")
    assert isinstance(card, TaskCard)
    if stage.identity.base_task is not None:
        base = card_of(stage, "base_task")
        assert isinstance(base, TaskCard)
        if base.declared.data == card.declared.data:
            return data_of(base, parameters_of(stage, "base_task"))
    return data_of(card, parameters_of(stage, "task"))


class ImageCheck(threading.Thread):
    """A thread that decodes the validation and test images of a stage's task once.

    Parameters
    ----------
    task
        Task of the stage, used by this thread alone.
    folder
        Folder of the data.
    seed
        Seed of the validation split.
    done
        File that is written once all images have been decoded.
    lease
        Lock of the check, so that one of several stages decodes the images.
    """

    def __init__(self, task: Task, folder: Path, seed: int, done: Path, lease: Lease) -> None:
        super().__init__(daemon=True)
        self._task, self._folder, self._seed = task, folder, seed
        self._done, self._lease = done, lease
        self._fault: DataError | None = None
        self._decodes, self._stopped = threading.Event(), threading.Event()

    def run(self) -> None:
        """Wait until no other stage decodes the images, and decode them unless that was done."""
        with self._lease.held(lambda: None):
            if not (self._done.exists() or self._stopped.is_set()):
                self._decodes.set()
                self._decode()

    def _decode(self) -> None:
        """Decode the images; keep the error of the first damaged one."""
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        try:
            for part in DECODED if self._task.has_validation else ("test",):
                self._decode_part(part)
            if not self._stopped.is_set():
                self._done.touch()
        except DataError as error:
            self._fault = error
        except Exception as error:  # noqa: BLE001  # a task may raise anything
            self._fault = DataError(f"The check of the images failed: {error!r}.")

    def _decode_part(self, part: Part) -> None:
        split = self._task.load(part, self._folder, self._seed)
        # Without resizing, which would use the threads of the training. If there are no files,
        # loading has decoded the images.
        for path in getattr(split, "files", ()):
            if self._stopped.is_set():
                return
            read_image(path)

    def raise_fault(self) -> None:
        """Raise the error of the first damaged image that has been found so far.

        Raises
        ------
        DamagedImage
            If a validation or test image is damaged.
        """
        if self._fault is not None:
            raise DamagedImage(str(self._fault)) from self._fault

    def finish(self) -> None:
        """Wait for the last image if this thread decodes; another stage reports its own result."""
        if self._decodes.is_set():
            self.join()
        self.raise_fault()

    def stop(self) -> None:
        """Stop decoding."""
        self._stopped.set()


@contextmanager
def images_checked(job: Job) -> Iterator[None]:
    """Decode the validation and test images beside a training, unless this store has seen them.

    Raises
    ------
    DamagedImage
        If an image is damaged; training ends at its next step.
    """
    stage, store = job.stage, job.store
    done = store.data_note(stage.data_key, "decoded")
    if stage.paths.data is None or done.exists() or not job.distributed.is_main:
        yield
        return
    lease = store.lease(f"data-{stage.data_key}")
    check = ImageCheck(make_task(stage), job.data, stage.run.seed, done, lease)
    job.journal.each_step.append(check.raise_fault)
    check.start()
    try:
        yield
        check.finish()
    finally:
        check.stop()
