-- What the tools of MCP servers were when they were approved, and what they became; for each agent.
CREATE TABLE tool_pins (
    agent_name         text NOT NULL,
    server             text NOT NULL,    -- the entry's name and where it leads
    tool               text NOT NULL,
    approved           text NOT NULL,    -- SHA-256 of the definition
    definition         text NOT NULL,    -- as JSON
    approved_at        timestamptz NOT NULL,
    approved_by        text,             -- nobody, when it is what was seen first
    changed            text,             -- what it became; withheld when not null
    changed_definition text,
    changed_at         timestamptz,
    PRIMARY KEY (agent_name, server, tool)
);
CREATE INDEX tool_pins_changed ON tool_pins (agent_name) WHERE changed IS NOT NULL;
