-- The pictures that a message shows: an encoded `chat.v1` Message with nothing but its images. Empty for nearly all.
ALTER TABLE messages ADD COLUMN images BYTEA NOT NULL DEFAULT '';
