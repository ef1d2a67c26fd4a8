-- upsert_job --
-- Write a job as it is after the batch.
INSERT INTO jobs (id, seq, updated_seq, state, live, deleted, kind, name, priority, retry_of, document)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    updated_seq = excluded.updated_seq, state = excluded.state, live = excluded.live, deleted = excluded.deleted,
    priority = excluded.priority, document = excluded.document;

-- select_job --
-- One job by id, live or ended.
SELECT document FROM jobs WHERE id = ?;

-- select_jobs --
-- A page of jobs, newest first: before a seq, of a state, a kind, a name (each off when NULL), at most so many.
SELECT document FROM jobs
WHERE seq < ?1 AND deleted = 0
  AND (?2 IS NULL OR state = ?2) AND (?3 IS NULL OR kind = ?3) AND (?4 IS NULL OR name = ?4)
ORDER BY seq DESC LIMIT ?5;

-- select_jobs_of_kinds --
-- A page of jobs, newest first: before a seq, of some kinds, with all of some metadata (JSON), at most so many.
SELECT document FROM jobs
WHERE seq < ?1 AND deleted = 0 AND kind IN (SELECT value FROM json_each(?2))
  AND NOT EXISTS (
      SELECT 1 FROM json_each(?3) AS wanted WHERE wanted.value IS NOT (
          SELECT value FROM json_each(CAST(jobs.document AS TEXT), '$.metadata') WHERE key = wanted.key
      )
  )
ORDER BY seq DESC LIMIT ?4;

-- count_ended_jobs --
-- How many jobs have ended, deleted ones too, by state and kind.
SELECT state, kind, COUNT(*) FROM jobs WHERE state IN ('succeeded', 'failed', 'cancelled') GROUP BY state, kind;

-- select_position --
-- The newest position up to a time. Times never decrease with positions (without gaps), so it is searched by halves,
-- from the first that is not in an archive.
WITH RECURSIVE halves (seq, half) AS (
    SELECT coalesce((SELECT min(seq) - 1 FROM events), 0), 1 << 40
    UNION ALL
    SELECT seq + iif((SELECT at FROM events WHERE events.seq = halves.seq + half) <= ?1, half, 0), half / 2
    FROM halves WHERE half > 0
)
SELECT seq FROM halves WHERE half = 0;

-- select_newest --
-- Of each of some streams the newest event up to a position, and the data of its newest progress. Within a stream
-- positions grow with versions: the newest version is searched by halves.
WITH asked AS (
    SELECT value AS name, (SELECT id FROM streams WHERE streams.name = value) AS id FROM json_each(?1)
),
found AS (
    SELECT name, id, (
        WITH RECURSIVE halves (version, half) AS (
            SELECT
                coalesce((SELECT min(events.version) - 1 FROM events WHERE stream = asked.id), 0), 1 << 40
            UNION ALL
            SELECT
                version + iif(
                    (
                        SELECT seq FROM events
                        WHERE stream = asked.id AND events.version = halves.version + half
                    ) <= ?2, half, 0
                ),
                half / 2
            FROM halves WHERE half > 0
        )
        SELECT version FROM halves WHERE half = 0
    ) AS newest FROM asked
)
SELECT found.name, events.version, events.seq, events.at, (
    SELECT data FROM events AS progress
    WHERE progress.stream = found.id AND progress.version <= found.newest AND progress.type = 'job.progress'
    ORDER BY progress.version DESC LIMIT 1
)
FROM found JOIN events ON events.stream = found.id AND events.version = found.newest;

-- select_sealed_world --
-- Everything as it was where the beginning of the log was archived, ended jobs too, and that position.
SELECT 'seq', NULL, max(seq) FROM seals
UNION ALL SELECT 'job', id, document FROM "sealed:jobs"
UNION ALL SELECT 'device', id, document FROM "sealed:devices"
UNION ALL SELECT register, key, document FROM "sealed:registers";

-- select_sealed_job --
-- As it was where the beginning of the log was archived, if it was there, and that position.
SELECT (SELECT document FROM "sealed:jobs" WHERE id = ?), (SELECT max(seq) FROM seals);

-- select_sealed_entry --
-- An entry of a register as it was where the beginning of the log was archived, if it was there.
SELECT document FROM "sealed:registers" WHERE register = ? AND key = ?;

-- select_ends --
-- Of the jobs of these ids (a JSON array): whether each lives, and when it ended; null once its files were removed.
SELECT id, live, iif(
    deleted OR json_extract(CAST(document AS TEXT), '$.files_removed') IS NOT NULL,
    NULL,
    json_extract(CAST(document AS TEXT), '$.finished_at')
)
FROM jobs WHERE id IN (SELECT value FROM json_each(?1));

-- clear_devices --
DELETE FROM devices;

-- insert_device --
INSERT INTO devices (id, document) VALUES (?, ?);

-- upsert_entry --
-- Write an entry of a register.
INSERT INTO registers (register, key, document) VALUES (?, ?, ?)
ON CONFLICT (register, key) DO UPDATE SET document = excluded.document;

-- delete_entry --
DELETE FROM registers WHERE register = ? AND key = ?;

-- select_world --
-- Everything alive, with the position it stands at, in one snapshot.
SELECT 'seq' AS what, NULL AS key, COALESCE(MAX(seq), 0) AS document FROM events
UNION ALL SELECT 'job', id, document FROM jobs WHERE live = 1
UNION ALL SELECT 'device', id, document FROM devices
UNION ALL SELECT register, key, document FROM registers;
