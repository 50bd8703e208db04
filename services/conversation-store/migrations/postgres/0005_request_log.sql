-- The request log knows by which door and with which key a request came, and what was refused: with which HTTP status.
ALTER TABLE request_log ADD COLUMN door TEXT NOT NULL DEFAULT '';
ALTER TABLE request_log ADD COLUMN key_id TEXT NOT NULL DEFAULT '';
ALTER TABLE request_log ADD COLUMN status BIGINT NOT NULL DEFAULT 0;

-- It is read from the latest on: all of it, a tenant's, or a principal's.
DROP INDEX request_log_by_age;
CREATE INDEX request_log_by_age ON request_log (logged_ms, stream_id);
CREATE INDEX request_log_by_tenant ON request_log (tenant_id, logged_ms, stream_id);
