"""What a job's state is, decided by what is: pure."""

from typing import Literal

State = Literal["draft", "queued", "starting", "running", "saving", "done", "failed", "cancelled", "interrupted"]
ACTIVE: tuple[State, ...] = ("starting", "running", "saving")
ENDED: tuple[State, ...] = ("done", "failed", "cancelled", "interrupted")
