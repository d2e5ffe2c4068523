"""The studio's tables: one SQLite file that every thread reads and one transaction at a time writes."""

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dora_diffusion.errors import MachineError, StudioError

BUSY_S = 10.0

# Each entry takes a database from one version to the next; none is ever changed once it is released.
MIGRATIONS = (
    """
    create table counters (name text primary key, value integer not null) strict;
    insert into counters values ('changes', 0);

    create table subjects (
        id text primary key,
        name text not null,
        class_noun text not null,
        trigger text not null,
        base text not null,
        created real not null,
        worked_on real not null,            -- when it was made, trained or changed last
        deleted real,
        trashed text,                       -- name of its folder in trash/
        chosen_job text,
        chosen_step integer
    ) strict;
    create index subjects_by_work on subjects (worked_on desc) where deleted is null;

    create table photos (
        subject_id text not null references subjects (id) on delete cascade,
        name text not null,                 -- NN.jpg
        given_name text not null,
        width integer not null,
        height integer not null,
        digest text not null,               -- SHA-256 of the file as it was given
        findings text not null,             -- JSON: [[code, words], ...]
        primary key (subject_id, name)
    ) strict;

    create table jobs (
        number integer primary key autoincrement,   -- the id is "job-" and this
        subject_id text not null references subjects (id) on delete cascade,
        created real not null,
        started real,
        ended real,
        state text not null,                -- as it was noted last; an active job's is observed
        place real,                         -- in the queue, smallest first
        attempt integer not null default 0,
        pid integer,
        slot text,
        stop_asked real,
        stop_sent real,
        oom_kills integer,                  -- the kernel's counter at the start
        quality text not null,
        overrides text not null,            -- JSON, by dotted names of TrainConfig
        settings text not null,             -- in short words
        note text not null default '',      -- what a remedy changed
        base text not null,
        resolution integer not null,
        batch integer not null,             -- photos a step: train_batch_size * gradient_accumulation_steps
        prompts text not null,              -- JSON: the previews' prompts
        options text not null,              -- JSON: names of the remedies that this job's settings leave room for
        total integer not null,
        step integer not null default 0,
        loss real,
        step_ms real,
        memory_gib real,
        device text not null default '',
        likeness real,
        best_step integer,
        seconds real not null default 0,    -- of work, all attempts together
        message text not null default '',
        code text
    ) strict;
    create index jobs_by_state on jobs (state, place);
    create index jobs_by_subject on jobs (subject_id, number desc);
    create index jobs_done on jobs (base, number desc) where state = 'done';
    create unique index one_job_of_a_subject on jobs (subject_id)
        where state in ('queued', 'starting', 'running', 'saving');

    create table pictures (
        id integer primary key autoincrement,
        created real not null,
        subject_id text references subjects (id) on delete cascade,
        base text not null,
        job_id text,
        step integer,
        prompt text not null,
        words text not null,                -- the prompt as it was sent
        negative_prompt text not null,
        strength real not null,
        seed integer not null,
        num_inference_steps integer not null,
        guidance_scale real,
        sampler text not null,
        width integer,
        height integer,
        path text not null,                 -- inside media/
        thumb text not null
    ) strict;
    create index pictures_by_subject on pictures (subject_id, id desc);

    create table exports (
        number integer primary key autoincrement,   -- the id is "export-" and this
        subject_id text not null references subjects (id) on delete cascade,
        job_id text,
        step integer,
        created real not null,
        format text not null,
        precision text not null,
        strength real,
        rank integer,
        path text not null,                 -- inside media/
        size integer not null,
        sha256 text not null,
        verdicts text not null,             -- JSON
        seconds real not null,
        note text not null
    ) strict;
    create index exports_by_subject on exports (subject_id, number desc);

    create table bases (
        name text primary key,
        label text not null,
        family text not null,
        place text not null,
        size integer not null,              -- side of the pictures it was trained on, pixels
        added real not null,
        note text not null default ''
    ) strict;

    create table measurements (
        key text primary key,               -- base, settings and device in short
        created real not null,
        seconds real not null,
        memory_gib real not null,
        total_gib real not null,
        device text not null
    ) strict;
    """,
    """
    alter table jobs add column images integer not null default 0;  -- class images that it drew, all attempts together
    alter table jobs add column images_s real not null default 0;   -- seconds of its work that they took
    alter table jobs add column expected_s real;                    -- what all its work should take, told before
    alter table jobs add column ordinal integer not null default 1; -- among the trainings of its subject, from 1
    update jobs set ordinal = (
        select count(*) from jobs as other where other.subject_id = jobs.subject_id and other.number <= jobs.number
    );
    """,
)


class Database:
    """Rows by name, a connection a thread, changes counted.

    ``read_only`` is set while another instance has the right to change things; transactions are refused then.

    Raises:
        MachineError: the file cannot be opened, or belongs to a newer version.
    """

    def __init__(self, path: Path):
        self.path = path
        self.read_only = False
        self._own = threading.local()
        try:
            self._migrate()
        except sqlite3.DatabaseError as error:
            raise MachineError(f"The studio's database {path} cannot be used: {error}.") from error

    def rows(self, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[sqlite3.Row]:
        """What a query finds.

        Raises:
            StudioError: the file cannot be read now.
        """
        try:
            return self._connection().execute(sql, values).fetchall()
        except sqlite3.OperationalError as error:
            raise StudioError(f"The studio cannot read its database now ({error}). Try again in a moment.") from error

    def row(self, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> sqlite3.Row | None:
        """The first that a query finds, if any."""
        found = self.rows(sql, values)
        return found[0] if found else None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Changes that are made whole or not at all; others wait. What a page shows may have changed afterwards.

        Raises:
            StudioError: another instance of the studio uses this home, or the disk is full.
        """
        self.check_writable()
        connection = self._connection()
        try:
            connection.execute("begin immediate")
        except sqlite3.OperationalError as error:
            raise StudioError(f"The studio cannot write now ({error}). Try again in a moment.") from error
        try:
            yield connection
            connection.execute("update counters set value = value + 1 where name = 'changes'")
            connection.execute("commit")
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("rollback")
            if isinstance(error, sqlite3.OperationalError):
                raise StudioError(f"The studio could not write that down: {error}.") from error
            raise

    def check_writable(self) -> None:
        """Raise StudioError while another instance has the right to change things."""
        if self.read_only:
            raise StudioError(
                "Another instance of the studio uses this home, so this one only shows what happens. "
                "Use the other one, or end it."
            )

    def changes(self) -> int:
        """How many transactions there were, of any process."""
        found = self.row("select value from counters where name = 'changes'")
        return int(found["value"]) if found else 0

    def close(self) -> None:
        """Close this thread's connection; another thread's is closed when that ends."""
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is not None:
            connection.close()
            del self._own.connection

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = self._open()
        return connection

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = normal")
        connection.execute("pragma foreign_keys = on")
        return connection

    def _migrate(self) -> None:
        connection = self._connection()
        if self._version(connection) == len(MIGRATIONS):
            return
        connection.execute("begin exclusive")
        version = self._version(connection)  # another instance may have been faster
        if version > len(MIGRATIONS):
            connection.execute("rollback")
            raise MachineError(
                f"{self.path} was written by a newer version of the studio (its tables are version {version}, this one "
                f"knows {len(MIGRATIONS)}). Update dora-diffusion, or set DORA_HOME to another folder."
            )
        try:
            for script in MIGRATIONS[version:]:
                for statement in _statements(script):
                    connection.execute(statement)
            connection.execute(f"pragma user_version = {len(MIGRATIONS)}")
            connection.execute("commit")
        except BaseException:
            connection.execute("rollback")
            raise

    @staticmethod
    def _version(connection: sqlite3.Connection) -> int:
        return int(connection.execute("pragma user_version").fetchone()[0])


def _statements(script: str) -> Iterator[str]:
    """The statements of a script one by one: ``executescript`` would end the transaction around them."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
