-- Keys of the API. What a caller holds is not here: its SHA-256 is.
CREATE TABLE api_keys (
    id           BLOB PRIMARY KEY NOT NULL,
    name         TEXT NOT NULL,
    hash         BLOB NOT NULL UNIQUE,
    hint         TEXT NOT NULL,          -- the key's beginning, to tell it from others
    scopes       TEXT NOT NULL,          -- as a JSON list
    agents       TEXT,                   -- as a JSON list; all when null
    created_at   INTEGER NOT NULL,
    created_by   TEXT NOT NULL,
    expires_at   INTEGER,
    last_used_at INTEGER,                -- to the minute or so
    revoked_at   INTEGER,
    revoked_by   TEXT
) WITHOUT ROWID;
CREATE INDEX api_keys_by_time ON api_keys (created_at DESC, id DESC);
