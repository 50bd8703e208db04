-- API keys: who a key speaks for, and a keyed hash of its secret part. Looked up by id, before anybody knows whose it is, so the key of
-- the table does not begin with a principal.
CREATE TABLE api_keys (
    id           TEXT    NOT NULL PRIMARY KEY,
    hash         BYTEA   NOT NULL,
    -- Which of the gateways' secrets the hash is of.
    secret_id    TEXT    NOT NULL,
    tenant_id    TEXT    NOT NULL,
    user_id      TEXT    NOT NULL,
    role         BIGINT  NOT NULL,
    tier         TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    created_ms   BIGINT  NOT NULL,
    -- 0: never.
    expires_ms   BIGINT  NOT NULL,
    revoked_ms   BIGINT  NOT NULL,
    last_used_ms BIGINT  NOT NULL
);
CREATE INDEX api_keys_by_time ON api_keys (created_ms DESC, id DESC);
CREATE INDEX api_keys_by_revocation ON api_keys (revoked_ms) WHERE revoked_ms > 0;

-- Tickets that have opened a socket, until they would be refused as too old.
CREATE TABLE taken_tickets (
    id         TEXT    NOT NULL PRIMARY KEY,
    expires_ms BIGINT  NOT NULL
);
CREATE INDEX taken_tickets_by_age ON taken_tickets (expires_ms);
