"""Nothing outside of the home is ever named by an id."""

import stat
from pathlib import Path

import pytest

from dora_diffusion.errors import MachineError, StudioError
from dora_diffusion.studio.home import Home

HOSTILE = ["", ".", "..", "../x", "a/b", "/etc", "a\\b", "A", "-a", "a.b", "a" * 65, "a\n", "\x00", "a b", "ä", None, 3]


def test_the_folders_are_their_owners(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    for folder in (home.path, home.path / "subjects", home.path / "jobs", home.media, home.trash, home.tmp):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    Home(tmp_path / "home")  # again


@pytest.mark.parametrize("id", HOSTILE)
def test_hostile_ids(tmp_path: Path, id: str) -> None:
    home = Home(tmp_path / "home")
    for kind in ("subject", "job", "export"):
        with pytest.raises(StudioError, match=f"id of a {kind}"):
            home.path_of(kind, id)
    with pytest.raises(StudioError):
        home.media_of("previews", id)


def test_good_ids_lie_inside(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert home.path_of("job", "job-1") == home.path / "jobs" / "job-1"
    assert home.path_of("export", "export-1") == home.media / "exports" / "export-1"
    assert home.media_of("thumbs", "a" * 64).is_dir()


def test_a_link_leads_nowhere(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    (home.path / "jobs" / "job-1").symlink_to(tmp_path)
    with pytest.raises(StudioError, match="no job called"):
        home.path_of("job", "job-1")


def test_a_home_behind_a_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    home = Home(tmp_path / "link")
    assert home.path_of("job", "job-1").name == "job-1"


def test_one_instance_schedules(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    lock = home.instance_lock()
    assert lock is not None and home.instance_lock() is None and Home(tmp_path / "home").instance_lock() is None
    lock.close()
    lock.close()
    assert home.instance_lock() is not None


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="DORA_HOME"):
        Home(tmp_path / "file")
