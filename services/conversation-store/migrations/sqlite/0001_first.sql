-- Every table of a principal's data begins its key with (tenant_id, user_id), so that no row can be reached, or referred to,
-- without saying whose it is. Times are milliseconds since 1970. An empty text is "none".

CREATE TABLE users (
    tenant_id  TEXT    NOT NULL,
    user_id    TEXT    NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, user_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE conversations (
    tenant_id  TEXT    NOT NULL,
    user_id    TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    title      TEXT    NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    -- How many messages it has: also the next message's `seq`.
    messages   INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, user_id, id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, user_id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX conversations_by_change ON conversations (tenant_id, user_id, updated_ms DESC, id DESC);

-- `seq` counts a conversation's messages in the order of time, without a gap: the key is the index by (conversation, time).
-- The message that an answer is has `is_answer` 1; what it says stands in `answers`.
CREATE TABLE messages (
    tenant_id       TEXT    NOT NULL,
    user_id         TEXT    NOT NULL,
    conversation_id TEXT    NOT NULL,
    seq             INTEGER NOT NULL,
    created_ms      INTEGER NOT NULL,
    stream_id       TEXT    NOT NULL,
    is_answer       INTEGER NOT NULL,
    role            INTEGER NOT NULL,
    text            TEXT    NOT NULL,
    reasoning       TEXT    NOT NULL,
    tool_calls      TEXT    NOT NULL,
    tool_call_id    TEXT    NOT NULL,
    name            TEXT    NOT NULL,
    PRIMARY KEY (tenant_id, user_id, conversation_id, seq),
    FOREIGN KEY (tenant_id, user_id, conversation_id) REFERENCES conversations (tenant_id, user_id, id) ON DELETE CASCADE
) STRICT;

CREATE TABLE answers (
    tenant_id         TEXT    NOT NULL,
    user_id           TEXT    NOT NULL,
    stream_id         TEXT    NOT NULL,
    conversation_id   TEXT    NOT NULL,
    -- Where its turn begins: the `seq` of the turn's first message.
    first_seq         INTEGER NOT NULL,
    state             TEXT    NOT NULL,
    -- Of who wrote it last; `claims` knows who may write it next.
    epoch             INTEGER NOT NULL,
    position          INTEGER NOT NULL,
    model             TEXT    NOT NULL,
    text              TEXT    NOT NULL,
    reasoning         TEXT    NOT NULL,
    tool_calls        TEXT    NOT NULL,
    -- Encoded `chat.v1` messages: a list of ResumePoint, and a ChatRequest.
    resume            BLOB    NOT NULL,
    request           BLOB    NOT NULL,
    finish_reason     TEXT    NOT NULL,
    prompt_tokens     INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    reasoning_tokens  INTEGER NOT NULL,
    cached_tokens     INTEGER NOT NULL,
    created_ms        INTEGER NOT NULL,
    updated_ms        INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, user_id, stream_id)
) STRICT;
-- Answers outside of conversations go with age.
CREATE INDEX answers_by_age ON answers (updated_ms) WHERE conversation_id = '';

-- Who may write an answer. It holds no principal's data: a router claims on behalf of nobody, before it knows more than the id.
CREATE TABLE claims (
    stream_id  TEXT    NOT NULL PRIMARY KEY,
    epoch      INTEGER NOT NULL,
    owner      TEXT    NOT NULL,
    claimed_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE request_log (
    tenant_id         TEXT    NOT NULL,
    user_id           TEXT    NOT NULL,
    stream_id         TEXT    NOT NULL,
    request_id        TEXT    NOT NULL,
    conversation_id   TEXT    NOT NULL,
    model             TEXT    NOT NULL,
    state             TEXT    NOT NULL,
    finish_reason     TEXT    NOT NULL,
    prompt_tokens     INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    reasoning_tokens  INTEGER NOT NULL,
    cached_tokens     INTEGER NOT NULL,
    started_ms        INTEGER NOT NULL,
    ttft_ms           INTEGER NOT NULL,
    duration_ms       INTEGER NOT NULL,
    worker            TEXT    NOT NULL,
    epoch             INTEGER NOT NULL,
    logged_ms         INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, user_id, stream_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX request_log_by_age ON request_log (logged_ms);
