-- What was asked, in the words of the door that took it, beside the answer of the same `stream_id`. Kept for a time of its own.
CREATE TABLE records (
    tenant_id       TEXT   NOT NULL,
    user_id         TEXT   NOT NULL,
    stream_id       TEXT   NOT NULL,
    -- The answer that it goes on from.
    previous_id     TEXT   NOT NULL,
    conversation_id TEXT   NOT NULL,
    document        BYTEA  NOT NULL,
    fingerprint     BYTEA  NOT NULL,
    created_ms      BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, user_id, stream_id)
);
CREATE INDEX records_by_age ON records (created_ms);

-- A JSON object of texts. Empty: none.
ALTER TABLE conversations ADD COLUMN metadata TEXT NOT NULL DEFAULT '';
-- Messages that were taken out again: `messages` counts on, for it is also the next message's `seq`.
ALTER TABLE conversations ADD COLUMN removed BIGINT NOT NULL DEFAULT 0;
