"""Changes are whole or not at all, and every thread and instance sees the same."""

import sqlite3
import threading
from pathlib import Path

import pytest

from dora_diffusion.errors import MachineError, StudioError
from dora_diffusion.studio import database
from dora_diffusion.studio.database import MIGRATIONS, Database

INSERT = (
    "insert into subjects (id, name, class_noun, trigger, base, created, worked_on) values (?, '', '', '', '', 0, 0)"
)


def ids(made: Database) -> list[str]:
    return [row["id"] for row in made.rows("select id from subjects order by id")]


def test_a_failed_transaction_changes_nothing(tmp_path: Path) -> None:
    made = Database(tmp_path / "studio.db")
    with pytest.raises(ValueError), made.transaction() as connection:
        connection.execute(INSERT, ("a",))
        raise ValueError
    assert ids(made) == [] and made.changes() == 0
    with made.transaction() as connection:
        connection.execute(INSERT, ("a",))
    assert ids(made) == ["a"] and made.changes() == 1


def test_threads_write_one_after_another(tmp_path: Path) -> None:
    made = Database(tmp_path / "studio.db")

    def write(number: int) -> None:
        for k in range(20):
            with made.transaction() as connection:
                connection.execute(INSERT, (f"{number}-{k}",))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids(made)) == 160 == made.changes()


def test_an_open_transaction_of_another_does_not_keep_readers(tmp_path: Path) -> None:
    first, second = Database(tmp_path / "studio.db"), Database(tmp_path / "studio.db")
    with first.transaction() as connection:
        connection.execute(INSERT, ("a",))
        assert ids(second) == []
    assert ids(second) == ["a"]


def test_a_writer_that_waits_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.1)
    first, second = Database(tmp_path / "studio.db"), Database(tmp_path / "studio.db")
    with first.transaction(), pytest.raises(StudioError, match="Try again"), second.transaction():
        pass


def test_reading_only(tmp_path: Path) -> None:
    made = Database(tmp_path / "studio.db")
    made.read_only = True
    with pytest.raises(StudioError, match="Another instance"), made.transaction():
        pass
    assert ids(made) == []


def test_references_hold(tmp_path: Path) -> None:
    made = Database(tmp_path / "studio.db")
    photo = "insert into photos values ('a', '01.jpg', 'x', 1, 1, '', '[]')"
    with pytest.raises(sqlite3.IntegrityError), made.transaction() as connection:
        connection.execute(photo)
    with made.transaction() as connection:
        connection.execute(INSERT, ("a",))
        connection.execute(photo)
        connection.execute("delete from subjects")
    assert made.rows("select * from photos") == []


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    Database(tmp_path / "studio.db")
    connection = sqlite3.connect(tmp_path / "studio.db")
    connection.execute(f"pragma user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    before = (tmp_path / "studio.db").read_bytes()
    with pytest.raises(MachineError, match="newer version"):
        Database(tmp_path / "studio.db")
    assert (tmp_path / "studio.db").read_bytes() == before


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "studio.db").write_text("words " * 1000)
    with pytest.raises(MachineError, match="cannot be used"):
        Database(tmp_path / "studio.db")
    assert (tmp_path / "studio.db").read_text() == "words " * 1000


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Database(tmp_path / "studio.db").close()
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, "create table more (x);\nnonsense;\n"))
    with pytest.raises(MachineError):
        Database(tmp_path / "studio.db")
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, "create table more (x);\n"))
    assert Database(tmp_path / "studio.db").rows("select * from more") == []


def test_trainings_of_an_older_version_get_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MIGRATIONS", MIGRATIONS[:1])
    old = Database(tmp_path / "studio.db")
    columns = (
        "subject_id, created, state, quality, overrides, settings, base, resolution, batch, prompts, options, total"
    )
    with old.transaction() as connection:
        for id in ("a", "b"):
            connection.execute(INSERT, (id,))
        for id in ("a", "b", "a"):
            connection.execute(
                f"insert into jobs ({columns}) values (?, 0, 'done', '', '{{}}', '', '', 1, 1, '', '', 1)", (id,)
            )
    old.close()
    monkeypatch.setattr(database, "MIGRATIONS", MIGRATIONS)
    rows = Database(tmp_path / "studio.db").rows("select subject_id, ordinal, images from jobs order by number")
    assert [tuple(row) for row in rows] == [("a", 1, 0), ("b", 1, 0), ("a", 2, 0)]


def test_many_start_at_once(tmp_path: Path) -> None:
    errors = []

    def open_it() -> None:
        try:
            Database(tmp_path / "studio.db").rows("select * from jobs")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
