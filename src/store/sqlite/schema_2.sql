-- Leases of relayed refreshes, by a digest of issuer and refresh token. What is sealed in a register opens with that token alone.
-- expires in ms.
CREATE TABLE lease (
    key      BLOB PRIMARY KEY,
    register BLOB NOT NULL,
    expires  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX lease_by_expiry ON lease (expires);
