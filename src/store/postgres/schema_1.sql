-- The log's incarnation and the number of its last entry. schema_version: of these tables. born: when the epoch began,
-- in ms; 0 for long ago. incarnation: the server and timeline that the epoch belongs to.
CREATE TABLE head (
    one            SMALLINT PRIMARY KEY CHECK (one = 1),
    schema_version INTEGER NOT NULL,
    epoch          BIGINT NOT NULL,
    seq            BIGINT NOT NULL,
    born           BIGINT NOT NULL,
    incarnation    TEXT NOT NULL
);

-- kind: 1 token, 2 session, 3 subject before, 4 issuer before, 5 claims before.
-- instant: a cut-off in ms, a version for kind 5, else 0. expires: in s. except_key: empty for none.
CREATE TABLE log (
    seq        BIGINT PRIMARY KEY,
    kind       SMALLINT NOT NULL,
    key        BYTEA NOT NULL,
    except_key BYTEA NOT NULL,
    instant    BIGINT NOT NULL,
    expires    BIGINT NOT NULL
);
CREATE INDEX log_by_key ON log (key, kind);
CREATE INDEX log_by_expiry ON log (expires);

-- What logins and cut-offs are stamped against, in ms. A subject's row has the latest login that left no session row, and
-- its issuer's key where that is known; an issuer's row has its own key there. A recorded login writes none.
CREATE TABLE stamp (
    key        BYTEA PRIMARY KEY,
    issuer_key BYTEA NOT NULL,
    created    BIGINT NOT NULL,
    cutoff     BIGINT NOT NULL,
    expires    BIGINT NOT NULL
);
CREATE INDEX stamp_by_issuer ON stamp (issuer_key, created);
CREATE INDEX stamp_of_issuers ON stamp (key) WHERE issuer_key = key;
CREATE INDEX stamp_by_expiry ON stamp (expires);

-- Sessions. An ended one has no row, but for those that an issuer's cut-off ended: they count as gone at once, and are
-- deleted bit by bit. Times in ms.
CREATE TABLE session (
    id                 BYTEA PRIMARY KEY,
    session_key        BYTEA NOT NULL UNIQUE,
    subject_key        BYTEA NOT NULL,
    issuer_key         BYTEA NOT NULL,
    issuer             TEXT NOT NULL,
    subject            TEXT NOT NULL,
    policy             TEXT NOT NULL,
    client_id          TEXT NOT NULL,
    device             TEXT NOT NULL,
    attributes         TEXT NOT NULL,
    attributes_version BIGINT NOT NULL,
    created_at         BIGINT NOT NULL,
    last_active_at     BIGINT NOT NULL,
    idle               BIGINT NOT NULL,
    absolute_end       BIGINT NOT NULL,
    ends_at            BIGINT NOT NULL,
    generation         BIGINT NOT NULL,
    generation_began   BIGINT NOT NULL
);
CREATE INDEX session_by_subject ON session (subject_key, created_at, id);
CREATE INDEX session_by_issuer ON session (issuer_key, created_at);
CREATE INDEX session_by_end ON session (ends_at);
