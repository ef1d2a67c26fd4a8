-- The projections of the domain: what is read without folding the log. Written in the transaction of the events.
CREATE TABLE jobs (
    id          TEXT PRIMARY KEY,
    seq         INTEGER NOT NULL UNIQUE,  -- of job.submitted
    updated_seq INTEGER NOT NULL,         -- of the newest event of its stream
    state       TEXT NOT NULL,
    live        INTEGER NOT NULL,
    deleted     INTEGER NOT NULL,
    kind        TEXT NOT NULL,
    name        TEXT,
    priority    INTEGER NOT NULL,
    retry_of    TEXT,
    document    BLOB NOT NULL             -- the whole job as JSON
) WITHOUT ROWID;
CREATE INDEX jobs_live ON jobs (live) WHERE live = 1;
CREATE INDEX jobs_counted ON jobs (state, kind);
CREATE INDEX jobs_by_state ON jobs (state, seq);
CREATE INDEX jobs_by_kind ON jobs (kind, seq);

CREATE TABLE devices (
    id       TEXT PRIMARY KEY,
    document BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE registers (
    register TEXT NOT NULL,  -- models, datasets, templates, tokens, requests
    key      TEXT NOT NULL,
    document BLOB NOT NULL,
    PRIMARY KEY (register, key)
) WITHOUT ROWID;
