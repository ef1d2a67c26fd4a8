-- insert_events --
-- Rows of ten parameters follow.
INSERT INTO events (seq, stream, version, type, schema, at, actor, cause, data, hash) VALUES

-- insert_stream --
INSERT INTO streams (id, name) VALUES (?, ?)

-- insert_kind --
INSERT INTO kinds (type, schema) VALUES (?, ?)

-- move_cursor --
INSERT INTO cursors (follower, position) VALUES (?, ?)
ON CONFLICT (follower) DO UPDATE SET position = excluded.position

-- fetch_cursor --
SELECT position FROM cursors WHERE follower = ?

-- fetch_head --
SELECT seq, hash, at FROM events ORDER BY seq DESC LIMIT 1

-- fetch_hash --
SELECT hash FROM events WHERE seq = ?

-- fetch_last_stream --
SELECT coalesce(max(id), 0) FROM streams

-- fetch_stream --
-- A stream's number and version (0 for one without events; all of them may be in archives).
SELECT id, coalesce(
    (SELECT max(version) FROM events WHERE stream = streams.id),
    (SELECT version FROM sealed_streams WHERE stream = streams.id),
    0
)
FROM streams WHERE name = ?

-- fetch_kinds --
SELECT type, schema FROM kinds

-- select_events --
-- Conditions, an order and a limit follow.
SELECT
    seq, (SELECT name FROM streams WHERE id = stream), version, type, schema, at, actor, cause, data
FROM events

-- select_events_of_stream --
SELECT
    seq, (SELECT name FROM streams WHERE id = stream), version, type, schema, at, actor, cause, data
FROM events INDEXED BY events_by_stream

-- select_raw_events --
-- For verification: with the stored hash, straight by position.
SELECT
    seq, (SELECT name FROM streams WHERE id = stream), version, type, schema, at, actor, cause, data, hash
FROM events WHERE seq > ? ORDER BY seq LIMIT ?

-- where_range --
seq > ? AND seq < ?

-- where_range_of_stream --
-- Within a stream positions grow with versions (without gaps, with an index): the last version up to a position is
-- searched by halves, from the first that is not in an archive. A walk over all of them would take ever longer.
stream = (SELECT id FROM streams WHERE name = ?1) AND version > (
    WITH RECURSIVE halves (version, half) AS (
        SELECT
            coalesce(
                (SELECT min(version) - 1 FROM events WHERE stream = (SELECT id FROM streams WHERE name = ?1)), 0
            ),
            1 << 40
        UNION ALL
        SELECT
            version + iif(
                (
                    SELECT seq FROM events
                    WHERE stream = (SELECT id FROM streams WHERE name = ?1) AND version = halves.version + half
                ) <= ?2, half, 0
            ),
            half / 2
        FROM halves WHERE half > 0
    )
    SELECT version FROM halves WHERE half = 0
) AND seq < ?3

-- where_prefix --
-- The plus keeps the scan in order of position.
+stream IN (SELECT id FROM streams WHERE name >= ? AND name < ?)

-- where_types --
type IN (SELECT value FROM json_each(?))

-- select_broken_streams --
-- Streams whose versions are not 1, 2, 3, … (the index alone answers).
SELECT (SELECT name FROM streams WHERE id = stream), count(*), min(version), max(version)
FROM events GROUP BY stream HAVING min(version) <> 1 OR max(version) <> count(*)

-- select_broken_streams_of_sealed --
-- The same where the beginning is in archives.
SELECT (SELECT name FROM streams WHERE id = events.stream), count(*), min(events.version), max(events.version)
FROM events LEFT JOIN sealed_streams ON sealed_streams.stream = events.stream
WHERE events.seq > ?
GROUP BY events.stream
HAVING
    min(events.version) <> coalesce(max(sealed_streams.version), 0) + 1
    OR max(events.version) <> coalesce(max(sealed_streams.version), 0) + count(*)

-- select_undeclared_kinds --
SELECT DISTINCT type, schema FROM events EXCEPT SELECT type, schema FROM kinds

-- fetch_sequence --
-- The highest position ever used: more than the head means that the end was cut off.
SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'

-- select_projections --
SELECT name, version, position, tables FROM projections

-- move_projection --
UPDATE projections SET position = ? WHERE name = ?

-- replace_projection --
INSERT INTO projections (name, version, position, tables) VALUES (?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE
SET version = excluded.version, position = excluded.position, tables = excluded.tables

-- fetch_database_bytes --
SELECT page_count * page_size FROM pragma_page_count, pragma_page_size

-- has_seals --
SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'seals'

-- select_seals --
SELECT seq, hash, at, previous, previous_hash, file, bytes, sha256 FROM seals ORDER BY seq

-- insert_seal --
INSERT INTO seals (seq, hash, at, previous, previous_hash, file, bytes, sha256) VALUES (?, ?, ?, ?, ?, ?, ?, ?)

-- seal_streams --
-- Of each stream the newest version and position up to the seal (versions and positions grow together).
INSERT INTO sealed_streams (stream, version, seq)
SELECT stream, max(version), max(seq) FROM events WHERE seq > ?1 AND seq <= ?2 GROUP BY stream
ON CONFLICT (stream) DO UPDATE SET version = excluded.version, seq = excluded.seq

-- fetch_sealed_stream --
SELECT coalesce(max(seq), 0) FROM sealed_streams WHERE stream = (SELECT id FROM streams WHERE name = ?)

-- select_sealed_projections --
SELECT name, version, tables FROM sealed_projections

-- clear_sealed_projections --
DELETE FROM sealed_projections

-- insert_sealed_projection --
INSERT INTO sealed_projections (name, version, tables) VALUES (?, ?, ?)

-- allow_sealed_deletes_1 --
DROP TRIGGER events_refuse_delete

-- allow_sealed_deletes_2 --
CREATE TRIGGER events_refuse_delete BEFORE DELETE ON events
WHEN old.seq > (SELECT coalesce(max(seq), 0) FROM seals)
BEGIN
    SELECT raise(ABORT, 'events are never deleted');
END

-- sweep_sealed --
-- The oldest events that are sealed, so many at most; from the oldest on, so that what is left has no gaps.
DELETE FROM events WHERE seq <= ?1 AND seq <= (SELECT min(seq) FROM events) + ?2 - 1
