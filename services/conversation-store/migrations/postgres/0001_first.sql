-- Every table of a principal's data begins its key with (tenant_id, user_id), so that no row can be reached, or referred to,
-- without saying whose it is. Times are milliseconds since 1970. An empty text is "none".

CREATE TABLE users (
    tenant_id  TEXT   NOT NULL,
    user_id    TEXT   NOT NULL,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, user_id)
);

CREATE TABLE conversations (
    tenant_id  TEXT   NOT NULL,
    user_id    TEXT   NOT NULL,
    id         TEXT   NOT NULL,
    title      TEXT   NOT NULL,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL,
    -- How many messages it has: also the next message's `seq`.
    messages   BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, user_id, id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, user_id) ON DELETE CASCADE
);
CREATE INDEX conversations_by_change ON conversations (tenant_id, user_id, updated_ms DESC, id DESC);

-- `seq` counts a conversation's messages in the order of time, without a gap: the key is the index by (conversation, time).
-- The message that an answer is has `is_answer` 1; what it says stands in `answers`.
CREATE TABLE messages (
    tenant_id       TEXT   NOT NULL,
    user_id         TEXT   NOT NULL,
    conversation_id TEXT   NOT NULL,
    seq             BIGINT NOT NULL,
    created_ms      BIGINT NOT NULL,
    stream_id       TEXT   NOT NULL,
    is_answer       BIGINT NOT NULL,
    role            BIGINT NOT NULL,
    text            TEXT   NOT NULL,
    reasoning       TEXT   NOT NULL,
    tool_calls      TEXT   NOT NULL,
    tool_call_id    TEXT   NOT NULL,
    name            TEXT   NOT NULL,
    PRIMARY KEY (tenant_id, user_id, conversation_id, seq),
    FOREIGN KEY (tenant_id, user_id, conversation_id) REFERENCES conversations (tenant_id, user_id, id) ON DELETE CASCADE
);

CREATE TABLE answers (
    tenant_id         TEXT   NOT NULL,
    user_id           TEXT   NOT NULL,
    stream_id         TEXT   NOT NULL,
    conversation_id   TEXT   NOT NULL,
    -- Where its turn begins: the `seq` of the turn's first message.
    first_seq         BIGINT NOT NULL,
    state             TEXT   NOT NULL,
    -- Of who wrote it last; `claims` knows who may write it next.
    epoch             BIGINT NOT NULL,
    position          BIGINT NOT NULL,
    model             TEXT   NOT NULL,
    text              TEXT   NOT NULL,
    reasoning         TEXT   NOT NULL,
    tool_calls        TEXT   NOT NULL,
    -- Encoded `chat.v1` messages: a list of ResumePoint, and a ChatRequest.
    resume            BYTEA  NOT NULL,
    request           BYTEA  NOT NULL,
    finish_reason     TEXT   NOT NULL,
    prompt_tokens     BIGINT NOT NULL,
    completion_tokens BIGINT NOT NULL,
    reasoning_tokens  BIGINT NOT NULL,
    cached_tokens     BIGINT NOT NULL,
    created_ms        BIGINT NOT NULL,
    updated_ms        BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, user_id, stream_id)
);
-- Answers outside of conversations go with age.
CREATE INDEX answers_by_age ON answers (updated_ms) WHERE conversation_id = '';

-- Who may write an answer. It holds no principal's data: a router claims on behalf of nobody, before it knows more than the id.
CREATE TABLE claims (
    stream_id  TEXT   NOT NULL PRIMARY KEY,
    epoch      BIGINT NOT NULL,
    owner      TEXT   NOT NULL,
    claimed_ms BIGINT NOT NULL
);

CREATE TABLE request_log (
    tenant_id         TEXT   NOT NULL,
    user_id           TEXT   NOT NULL,
    stream_id         TEXT   NOT NULL,
    request_id        TEXT   NOT NULL,
    conversation_id   TEXT   NOT NULL,
    model             TEXT   NOT NULL,
    state             TEXT   NOT NULL,
    finish_reason     TEXT   NOT NULL,
    prompt_tokens     BIGINT NOT NULL,
    completion_tokens BIGINT NOT NULL,
    reasoning_tokens  BIGINT NOT NULL,
    cached_tokens     BIGINT NOT NULL,
    started_ms        BIGINT NOT NULL,
    ttft_ms           BIGINT NOT NULL,
    duration_ms       BIGINT NOT NULL,
    worker            TEXT   NOT NULL,
    epoch             BIGINT NOT NULL,
    logged_ms         BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, user_id, stream_id)
);
CREATE INDEX request_log_by_age ON request_log (logged_ms);
