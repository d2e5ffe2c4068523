"""The one thread that starts and ends trainings, and writes down what it sees."""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence

from dora_diffusion.errors import DoraError
from dora_diffusion.studio import queue
from dora_diffusion.studio.board import Board
from dora_diffusion.studio.database import Database
from dora_diffusion.studio.home import Home, InstanceLock
from dora_diffusion.studio.jobs import Jobs
from dora_diffusion.studio.observe import ACTIVE
from dora_diffusion.studio.slots import CPU
from dora_diffusion.studio.subjects import Subjects
from dora_diffusion.studio.trainers import Trainers

TURN_S = 0.5
PATIENCE_S = 60.0  # a trainer that has not left this long after it was asked is ended by force
PURGE_S = 600.0

log = logging.getLogger(__name__)


def _nothing() -> None:
    pass


class Scheduler:
    """Starts queued jobs on free slots, asks jobs to stop, notes what is.

    Only the instance that holds the home's lock does so; another one tries at every turn to become it.

    Args:
        slots: where trainings may run at the same time: the names of GPUs, or "cpu".
        before_gpu: called before a training starts on a GPU, to make room there.
    """

    def __init__(
        self,
        home: Home,
        database: Database,
        subjects: Subjects,
        jobs: Jobs,
        board: Board,
        trainers: Trainers,
        slots: Sequence[str],
        before_gpu: Callable[[], None] = _nothing,
    ):
        self._home, self._database, self._subjects = home, database, subjects
        self._jobs, self._board, self._trainers, self._slots = jobs, board, trainers, tuple(slots)
        self.before_gpu = before_gpu
        self.patience_s = PATIENCE_S
        self._lock: InstanceLock | None = None
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._purged = 0.0

    def start(self) -> None:
        """Take a first turn, so that everything shown is true from the beginning, and go on in a thread."""
        if self._thread is not None:
            return
        self._ending.clear()
        self.turn()
        self._thread = threading.Thread(target=self._go_on, name="scheduler", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and let another instance schedule. Trainings go on."""
        self._ending.set()
        self._jobs.on_change.set()
        if self._thread is not None:
            self._thread.join(timeout=30)
            self._thread = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def turn(self) -> None:
        """Look at everything once. What goes wrong with one job must not keep the others."""
        if not self._may_schedule():
            return
        for row in self._board.active_rows():
            self._guarded(self._look_after, row)
        self._guarded(self._start_what_can)
        if time.monotonic() - self._purged > PURGE_S or not self._purged:
            self._purged = time.monotonic()
            self._guarded(self._purge)

    def _go_on(self) -> None:
        while not self._ending.is_set():
            self._jobs.on_change.wait(TURN_S)
            self._jobs.on_change.clear()
            if not self._ending.is_set():
                self._guarded(self.turn)
        self._database.close()

    def _may_schedule(self) -> bool:
        if self._lock is None:
            self._lock = self._home.instance_lock()
            self._database.read_only = self._lock is None
            if self._lock is not None:
                self._jobs.drop_drafts()
        return self._lock is not None

    def _guarded(self, do: Callable[..., None], *values: object) -> None:
        try:
            do(*values)
        except Exception as error:  # whatever it was: a scheduler that has ended starts and shows nothing more
            log.exception("The scheduler could not do its turn's part: %s", error)

    def _look_after(self, row: sqlite3.Row) -> None:
        """Note a job's state; ask it to leave if somebody wants that, and end it if it does not."""
        id = f"job-{row['number']}"
        if self._board.note(id) not in ACTIVE or row["stop_asked"] is None:
            return
        if row["stop_sent"] is None:
            # Noted before it is sent: a second SIGTERM would end the trainer before it has saved.
            if self._trainers.can_be_asked(id, row["pid"]):
                self._set(row, "stop_sent", time.time())
                self._trainers.ask_to_leave(id, row["pid"])
        elif time.time() - row["stop_sent"] > self.patience_s:
            log.warning("%s did not leave in %.0f s and is ended.", id, self.patience_s)
            self._trainers.end(id, row["pid"])

    def _start_what_can(self) -> None:
        used = {row["slot"] for row in self._board.active_rows()}
        free = [slot for slot in self._slots if slot not in used]
        for row in queue.waiting(self._database) if free else ():
            if not free:
                return
            if self._launch(row["number"], free[0]):
                free.pop(0)

    def _launch(self, number: int, slot: str) -> bool:
        """Start a waiting job. Returns: whether the slot is taken now.

        The lock is taken before the row is claimed and closed here after the trainer has it: whoever looks at a claimed
        job finds its lock held, and a crash anywhere leaves a waiting job, an interrupted one or a live trainer.
        """
        id = f"job-{number}"
        descriptor = self._trainers.reserve(id)
        if descriptor is None:  # something of its last trainer lives on
            return False
        try:
            with self._database.transaction() as connection:
                if not queue.claim(connection, number, slot, self._trainers.oom_kills()):
                    return False
            if slot != CPU:
                self.before_gpu()
            pid = self._trainers.launch(id, descriptor, slot)
        except DoraError as error:
            self._note_not_started(number, str(error))
            return False
        finally:
            self._trainers.release(descriptor)
        with self._database.transaction() as connection:
            connection.execute("update jobs set pid = ? where number = ?", (pid, number))
        log.info("%s was started as process %d.", id, pid)
        return True

    def _note_not_started(self, number: int, why: str) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                "update jobs set state = 'failed', code = 'broken', message = ?, ended = ?, slot = null "
                f"where number = ? and state in {ACTIVE}",
                (why, time.time(), number),
            )

    def _set(self, row: sqlite3.Row, column: str, value: float) -> None:
        with self._database.transaction() as connection:
            connection.execute(f"update jobs set {column} = ? where number = ?", (value, row["number"]))

    def _purge(self) -> None:
        for id in self._subjects.purge(time.time()):
            log.info("%s has left the trash for good.", id)
