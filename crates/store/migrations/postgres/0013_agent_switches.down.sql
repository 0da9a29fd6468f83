DROP TABLE agent_switches;
