"""Death at any moment: the n-th thing done to the disk does not happen, and nothing after it does."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from training_runs import Killed


class Life:
    """Counts what is done to the disk. After ``moments`` of it every further try raises ``Killed``."""

    def __init__(self, moments: int):
        self.moments = moments
        self.died = False

    def tick(self) -> None:
        self.moments -= 1
        if self.moments < 0:
            self.died = True
            raise Killed


@contextmanager
def life_of(moments: int) -> Iterator[Life]:
    """Within the block a process lives for ``moments``; then it is as if by SIGKILL, half-deleted folders and all."""
    life = Life(moments)
    with pytest.MonkeyPatch.context() as patch:
        for owner, names in ((Path, ("mkdir", "open", "replace", "unlink")), (os, ("fsync",)), (shutil, ("copyfile",))):
            for name in names:
                patch.setattr(owner, name, _counted(life, getattr(owner, name)))
        patch.setattr(shutil, "rmtree", _file_by_file(life, shutil.rmtree))
        try:
            yield life
        except Killed:
            assert life.died


def _counted(life: Life, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        life.tick()
        return real(*arguments, **options)

    return call


def _file_by_file(life: Life, real: Callable[..., None]) -> Callable[..., None]:
    def remove(folder: Path, ignore_errors: bool = False) -> None:
        life.tick()
        for file in sorted(Path(folder).glob("*")):
            os.remove(file)  # noqa: PTH107 - Path.unlink is counted
            life.tick()
        real(folder, ignore_errors=ignore_errors)

    return remove
