//! Statements over many rows at once. The rows travel as one JSON array, `$1`, so that 512 turns cost as many statements as one;
//! what differs between the databases is only how an array becomes a table `t`. Used by the [`store`](crate::store).

/// A statement over the log, with the columns that `store::requests` reads.
macro_rules! select {
    ($($rest:literal),+) => {
        concat!(
            "SELECT tenant_id, user_id, stream_id, request_id, conversation_id, model, state, finish_reason, worker, door, key_id,
                prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens, started_ms, ttft_ms, duration_ms, epoch, status,
                logged_ms
            FROM request_log WHERE ",
            $($rest),+
        )
    };
}
pub(crate) use select;

/// The statements that close turns, and that read of many.
pub(crate) struct Batch {
    /// Of `log` rows: those that are no longer to be logged (`1`: logged before, or of an epoch that has ended), those before which what
    /// was logged gives way (`2`: it had failed, and turns out to be whole; or it had never begun, and did so elsewhere), and those outside
    /// of a conversation that have an answer to close all the same (`0`). The others, nearly all, do not appear.
    pub(crate) known: &'static str,
    /// Of `log` rows: takes the lines that give way out of the log again.
    pub(crate) unlog: &'static str,
    /// Of `log` rows: opens the answers again that were closed with those.
    pub(crate) reopen: &'static str,
    /// Of `log` rows: writes the request log. `$2` is the time.
    pub(crate) log: &'static str,
    /// Of `answer` rows: marks their conversations as changed at `$2`.
    pub(crate) touch: &'static str,
    /// Of `answer` rows: closes those that run; one that brings no message (`said` 0) keeps that of its last checkpoint. `$2` is the time.
    pub(crate) close: &'static str,
    /// Of `answer` rows: the entries that were kept while they ran.
    pub(crate) drop_entries: &'static str,
    /// Of `answer` rows: those whose turn was never opened, though their conversation is there.
    pub(crate) unopened: &'static str,
    /// What the request log says of a principal's answers; `$3` is a list of their names.
    pub(crate) logged: &'static str,
    /// Of `use` rows: notes when keys were used, where that is later than what is known.
    pub(crate) used: &'static str,
}

macro_rules! batch {
    (log: $log:literal, answer: $answer:literal, names: $names:literal, uses: $uses:literal) => {
        Batch {
            known: concat!(
                "WITH t AS (",
                $log,
                ") SELECT t.i, CAST(CASE
                    WHEN EXISTS (SELECT 1 FROM claims c WHERE c.stream_id = t.stream_id AND c.epoch > t.epoch) THEN 1
                    WHEN EXISTS (SELECT 1 FROM request_log r WHERE r.tenant_id = t.tenant_id AND r.user_id = t.user_id
                        AND r.stream_id = t.stream_id AND NOT (r.state = 'failed' AND t.state = 'finished' AND r.epoch <= t.epoch)
                        AND NOT (r.state IN ('failed', 'cancelled') AND r.prompt_tokens = 0 AND r.completion_tokens = 0
                            AND (t.state = 'finished' OR t.prompt_tokens > 0 OR t.completion_tokens > 0) AND r.epoch <= t.epoch)) THEN 1
                    WHEN EXISTS (SELECT 1 FROM request_log r WHERE r.tenant_id = t.tenant_id AND r.user_id = t.user_id
                        AND r.stream_id = t.stream_id) THEN 2
                    ELSE 0 END AS BIGINT)
                FROM t
                WHERE EXISTS (SELECT 1 FROM claims c WHERE c.stream_id = t.stream_id AND c.epoch > t.epoch)
                    OR EXISTS (SELECT 1 FROM request_log r WHERE r.tenant_id = t.tenant_id AND r.user_id = t.user_id
                        AND r.stream_id = t.stream_id)
                    OR (t.conversation_id = '' AND EXISTS (SELECT 1 FROM answers a WHERE a.tenant_id = t.tenant_id
                        AND a.user_id = t.user_id AND a.stream_id = t.stream_id))"
            ),
            unlog: concat!(
                "WITH t AS (",
                $log,
                ") DELETE FROM request_log WHERE state IN ('failed', 'cancelled') AND (tenant_id, user_id, stream_id) IN
                    (SELECT tenant_id, user_id, stream_id FROM t)"
            ),
            reopen: concat!(
                "WITH t AS (",
                $log,
                ") UPDATE answers SET state = 'running' FROM t
                WHERE answers.tenant_id = t.tenant_id AND answers.user_id = t.user_id AND answers.stream_id = t.stream_id
                    AND answers.state IN ('failed', 'cancelled') AND answers.epoch <= t.epoch"
            ),
            log: concat!(
                "WITH t AS (",
                $log,
                ") INSERT INTO request_log (tenant_id, user_id, stream_id, request_id, conversation_id, model, state, finish_reason,
                    prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens, started_ms, ttft_ms, duration_ms, worker, epoch,
                    door, key_id, status, logged_ms)
                SELECT tenant_id, user_id, stream_id, request_id, conversation_id, model, state, finish_reason,
                    prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens, started_ms, ttft_ms, duration_ms, worker, epoch,
                    door, key_id, status, $2
                FROM t WHERE true ON CONFLICT DO NOTHING"
            ),
            touch: concat!(
                "WITH t AS (",
                $answer,
                ") UPDATE conversations SET updated_ms = CASE WHEN updated_ms < $2 THEN $2 ELSE updated_ms END
                WHERE (tenant_id, user_id, id) IN (SELECT tenant_id, user_id, conversation_id FROM t)"
            ),
            close: concat!(
                "WITH t AS (",
                $answer,
                ") UPDATE answers SET state = t.state, epoch = t.epoch, model = t.model,
                    text = CASE WHEN t.said = 1 THEN t.text ELSE answers.text END,
                    reasoning = CASE WHEN t.said = 1 THEN t.reasoning ELSE answers.reasoning END,
                    tool_calls = CASE WHEN t.said = 1 THEN t.tool_calls ELSE answers.tool_calls END, finish_reason = t.finish_reason, prompt_tokens = t.prompt_tokens,
                    completion_tokens = t.completion_tokens, reasoning_tokens = t.reasoning_tokens,
                    cached_tokens = t.cached_tokens, updated_ms = $2
                FROM t
                WHERE answers.tenant_id = t.tenant_id AND answers.user_id = t.user_id AND answers.stream_id = t.stream_id
                    AND answers.state = 'running' AND answers.epoch <= t.epoch"
            ),
            drop_entries: concat!(
                "WITH t AS (",
                $answer,
                ") DELETE FROM answer_entries WHERE (tenant_id, user_id, stream_id) IN
                    (SELECT a.tenant_id, a.user_id, a.stream_id FROM t JOIN answers a ON a.tenant_id = t.tenant_id
                        AND a.user_id = t.user_id AND a.stream_id = t.stream_id AND a.state <> 'running')"
            ),
            unopened: concat!(
                "WITH t AS (",
                $answer,
                ") SELECT t.i FROM t
                JOIN conversations c ON c.tenant_id = t.tenant_id AND c.user_id = t.user_id AND c.id = t.conversation_id
                WHERE NOT EXISTS (SELECT 1 FROM answers a WHERE a.tenant_id = t.tenant_id AND a.user_id = t.user_id
                    AND a.stream_id = t.stream_id)
                ORDER BY t.i"
            ),
            logged: select!("tenant_id = $1 AND user_id = $2 AND stream_id IN (", $names, ")"),
            used: concat!(
                "UPDATE api_keys SET last_used_ms = t.used_ms
                FROM (SELECT id, MAX(used_ms) AS used_ms FROM (",
                $uses,
                ") AS u GROUP BY id) AS t
                WHERE api_keys.id = t.id AND api_keys.last_used_ms < t.used_ms"
            ),
        }
    };
}

/// As SQLite reads an array. Each row is taken apart once, into JSONB, and lies there while its columns are read: `value` is made anew each time
/// that somebody reads it.
pub(crate) static SQLITE: Batch = batch! {
    log: "WITH r AS MATERIALIZED (SELECT value AS v FROM jsonb_each($1))
        SELECT v->>'i' AS i, v->>'tenant_id' AS tenant_id, v->>'user_id' AS user_id, v->>'stream_id' AS stream_id,
        v->>'request_id' AS request_id, v->>'conversation_id' AS conversation_id, v->>'model' AS model,
        v->>'state' AS state, v->>'finish_reason' AS finish_reason, v->>'prompt_tokens' AS prompt_tokens,
        v->>'completion_tokens' AS completion_tokens, v->>'reasoning_tokens' AS reasoning_tokens,
        v->>'cached_tokens' AS cached_tokens, v->>'started_ms' AS started_ms, v->>'ttft_ms' AS ttft_ms,
        v->>'duration_ms' AS duration_ms, v->>'worker' AS worker, v->>'epoch' AS epoch,
        v->>'door' AS door, v->>'key_id' AS key_id, v->>'status' AS status
        FROM r",
    answer: "WITH r AS MATERIALIZED (SELECT value AS v FROM jsonb_each($1))
        SELECT v->>'i' AS i, v->>'tenant_id' AS tenant_id, v->>'user_id' AS user_id, v->>'stream_id' AS stream_id,
        v->>'conversation_id' AS conversation_id, v->>'model' AS model, v->>'state' AS state, v->>'epoch' AS epoch,
        v->>'said' AS said, v->>'text' AS text, v->>'reasoning' AS reasoning, v->>'tool_calls' AS tool_calls,
        v->>'finish_reason' AS finish_reason, v->>'prompt_tokens' AS prompt_tokens,
        v->>'completion_tokens' AS completion_tokens, v->>'reasoning_tokens' AS reasoning_tokens,
        v->>'cached_tokens' AS cached_tokens
        FROM r",
    names: "SELECT value FROM json_each($3)",
    uses: "SELECT value->>'id' AS id, value->>'used_ms' AS used_ms FROM json_each($1)"
};

/// As PostgreSQL reads an array.
pub(crate) static POSTGRES: Batch = batch! {
    log: "SELECT * FROM json_to_recordset($1::json) AS r(i BIGINT, tenant_id TEXT, user_id TEXT, stream_id TEXT, request_id TEXT,
        conversation_id TEXT, model TEXT, state TEXT, finish_reason TEXT, prompt_tokens BIGINT, completion_tokens BIGINT,
        reasoning_tokens BIGINT, cached_tokens BIGINT, started_ms BIGINT, ttft_ms BIGINT, duration_ms BIGINT, worker TEXT,
        epoch BIGINT, door TEXT, key_id TEXT, status BIGINT)",
    answer: "SELECT * FROM json_to_recordset($1::json) AS r(i BIGINT, tenant_id TEXT, user_id TEXT, stream_id TEXT,
        conversation_id TEXT, model TEXT, state TEXT, epoch BIGINT, said BIGINT, text TEXT, reasoning TEXT, tool_calls TEXT, finish_reason TEXT,
        prompt_tokens BIGINT, completion_tokens BIGINT, reasoning_tokens BIGINT, cached_tokens BIGINT)",
    names: "SELECT json_array_elements_text($3::json)",
    uses: "SELECT * FROM json_to_recordset($1::json) AS r(id TEXT, used_ms BIGINT)"
};
