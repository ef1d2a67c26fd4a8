-- What an archived beginning of the log leaves behind. Made in every file that is written; a file without them is whole.

-- Each archive: up to where the log was moved out, with the hash there, and the file that holds it.
CREATE TABLE IF NOT EXISTS seals (
    seq INTEGER PRIMARY KEY,
    hash BLOB NOT NULL,
    at INTEGER NOT NULL,
    previous INTEGER NOT NULL,
    previous_hash BLOB NOT NULL,
    file TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL
) STRICT;

-- How far each stream is in the archives.
CREATE TABLE IF NOT EXISTS sealed_streams (
    stream INTEGER PRIMARY KEY REFERENCES streams (id),
    version INTEGER NOT NULL,
    seq INTEGER NOT NULL
) STRICT;

-- Which projections the tables `sealed:…` are copies of, as they were at the newest seal.
CREATE TABLE IF NOT EXISTS sealed_projections (
    name TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    tables TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER IF NOT EXISTS seals_refuse_update BEFORE UPDATE ON seals
BEGIN
    SELECT raise(ABORT, 'seals are never changed');
END;

CREATE TRIGGER IF NOT EXISTS seals_refuse_delete BEFORE DELETE ON seals
BEGIN
    SELECT raise(ABORT, 'seals are never deleted');
END;
