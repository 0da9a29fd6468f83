-- What the tools of MCP servers were when they were approved, and what they became; for each agent.
CREATE TABLE tool_pins (
    agent_name         TEXT NOT NULL,
    server             TEXT NOT NULL,    -- the entry's name and where it leads
    tool               TEXT NOT NULL,
    approved           TEXT NOT NULL,    -- SHA-256 of the definition
    definition         TEXT NOT NULL,    -- as JSON
    approved_at        INTEGER NOT NULL,
    approved_by        TEXT,             -- nobody, when it is what was seen first
    changed            TEXT,             -- what it became; withheld when not null
    changed_definition TEXT,
    changed_at         INTEGER,
    PRIMARY KEY (agent_name, server, tool)
);
CREATE INDEX tool_pins_changed ON tool_pins (agent_name) WHERE changed IS NOT NULL;
