-- Leases of relayed refreshes, by a digest of issuer and refresh token. What is sealed in a register opens with that token alone.
-- expires in ms.
CREATE TABLE lease (
    key      BYTEA PRIMARY KEY,
    register BYTEA NOT NULL,
    expires  BIGINT NOT NULL
);
CREATE INDEX lease_by_expiry ON lease (expires);
