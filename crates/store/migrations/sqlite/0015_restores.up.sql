-- Which backups this database came from. Work that was caused before the latest restore may have been done before:
-- crates/domain/src/restored.rs.
CREATE TABLE restores (
    id        BLOB PRIMARY KEY NOT NULL,
    at        INTEGER NOT NULL,
    backup_at INTEGER NOT NULL, -- the moment of the backup
    source    TEXT NOT NULL     -- the name of its file
) WITHOUT ROWID;
