-- The log's incarnation and the number of its last entry.
CREATE TABLE head (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    epoch INTEGER NOT NULL,
    seq   INTEGER NOT NULL
) STRICT;

-- kind: 1 token, 2 session, 3 subject before, 4 issuer before, 5 claims before.
-- instant: a cut-off in ms, a version for kind 5, else 0. expires: in s. except_key: empty for none.
CREATE TABLE log (
    seq        INTEGER PRIMARY KEY,
    kind       INTEGER NOT NULL,
    key        BLOB NOT NULL,
    except_key BLOB NOT NULL,
    instant    INTEGER NOT NULL,
    expires    INTEGER NOT NULL
) STRICT;
CREATE INDEX log_by_key ON log (key, kind);
CREATE INDEX log_by_expiry ON log (expires);

-- What logins and cut-offs of a subject or issuer are stamped against, in ms.
CREATE TABLE stamp (
    key     BLOB PRIMARY KEY,
    created INTEGER NOT NULL,
    cutoff  INTEGER NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX stamp_by_expiry ON stamp (expires);

-- Live sessions; an ended one has no row. Times in ms.
CREATE TABLE session (
    id                 BLOB PRIMARY KEY,
    session_key        BLOB NOT NULL UNIQUE,
    subject_key        BLOB NOT NULL,
    issuer_key         BLOB NOT NULL,
    issuer             TEXT NOT NULL,
    subject            TEXT NOT NULL,
    policy             TEXT NOT NULL,
    client_id          TEXT NOT NULL,
    device             TEXT NOT NULL,
    attributes         TEXT NOT NULL,
    attributes_version INTEGER NOT NULL,
    created_at         INTEGER NOT NULL,
    last_active_at     INTEGER NOT NULL,
    idle               INTEGER NOT NULL,
    absolute_end       INTEGER NOT NULL,
    ends_at            INTEGER NOT NULL,
    generation         INTEGER NOT NULL,
    generation_began   INTEGER NOT NULL
) STRICT;
CREATE INDEX session_by_subject ON session (subject_key, created_at, id);
CREATE INDEX session_by_issuer ON session (issuer_key, created_at);
CREATE INDEX session_by_end ON session (ends_at);
