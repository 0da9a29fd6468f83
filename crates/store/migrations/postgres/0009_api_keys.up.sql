-- Keys of the API. What a caller holds is not here: its SHA-256 is.
CREATE TABLE api_keys (
    id           uuid PRIMARY KEY,
    name         text NOT NULL,
    hash         bytea NOT NULL UNIQUE,
    hint         text NOT NULL,          -- the key's beginning, to tell it from others
    scopes       text NOT NULL,          -- as a JSON list
    agents       text,                   -- as a JSON list; all when null
    created_at   timestamptz NOT NULL,
    created_by   text NOT NULL,
    expires_at   timestamptz,
    last_used_at timestamptz,            -- to the minute or so
    revoked_at   timestamptz,
    revoked_by   text
);
CREATE INDEX api_keys_by_time ON api_keys (created_at DESC, id DESC);
