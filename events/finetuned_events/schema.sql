-- The log itself. Rows of `events` and `streams` are written once and never touched again.
CREATE TABLE streams (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    stream INTEGER NOT NULL REFERENCES streams (id),
    version INTEGER NOT NULL,
    type TEXT NOT NULL,
    schema INTEGER NOT NULL,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    cause TEXT,
    data TEXT NOT NULL,
    hash BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX events_by_stream ON events (stream, version);

-- Which shapes of data occur, so that opening need not scan the log to find one that it does not know.
CREATE TABLE kinds (
    type TEXT NOT NULL,
    schema INTEGER NOT NULL,
    PRIMARY KEY (type, schema)
) STRICT, WITHOUT ROWID;

-- How far each follower has come.
CREATE TABLE cursors (
    follower TEXT PRIMARY KEY,
    position INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Which projections the tables beside these belong to, and up to where they are folded.
CREATE TABLE projections (
    name TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    position INTEGER NOT NULL,
    tables TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER events_refuse_update BEFORE UPDATE ON events
BEGIN
    SELECT raise(ABORT, 'events are never changed');
END;

CREATE TRIGGER events_refuse_delete BEFORE DELETE ON events
BEGIN
    SELECT raise(ABORT, 'events are never deleted');
END;

CREATE TRIGGER streams_refuse_update BEFORE UPDATE ON streams
BEGIN
    SELECT raise(ABORT, 'streams are never renamed');
END;

CREATE TRIGGER streams_refuse_delete BEFORE DELETE ON streams
BEGIN
    SELECT raise(ABORT, 'streams are never deleted');
END;
