-- Which backups this database came from. Work that was caused before the latest restore may have been done before:
-- crates/domain/src/restored.rs.
CREATE TABLE restores (
    id        uuid PRIMARY KEY,
    at        timestamptz NOT NULL,
    backup_at timestamptz NOT NULL, -- the moment of the backup
    source    text NOT NULL         -- the name of its file
);
