-- A running answer has a lease, which its router renews by saving it. One whose lease is over has nobody who makes it.
ALTER TABLE answers ADD COLUMN lease_ms INTEGER NOT NULL DEFAULT 0;
CREATE INDEX answers_by_lease ON answers (lease_ms) WHERE state = 'running';

-- The entries of a background answer that runs, as they were saved: each row has some, from `position` on, as an encoded `chat.v1`
-- message with a list of Entry. Appended to, so that a long answer is not written again and again.
CREATE TABLE answer_entries (
    tenant_id TEXT    NOT NULL,
    user_id   TEXT    NOT NULL,
    stream_id TEXT    NOT NULL,
    position  INTEGER NOT NULL,
    entries   BLOB    NOT NULL,
    PRIMARY KEY (tenant_id, user_id, stream_id, position),
    FOREIGN KEY (tenant_id, user_id, stream_id) REFERENCES answers (tenant_id, user_id, stream_id) ON DELETE CASCADE
) STRICT;
