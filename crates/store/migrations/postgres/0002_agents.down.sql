DROP TABLE agent_state_writes;
DROP TABLE agent_states;
DROP TABLE messages;
DROP TABLE conversations;
DROP TABLE agent_configs;
