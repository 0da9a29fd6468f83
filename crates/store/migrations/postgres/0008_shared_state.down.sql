DROP TABLE shared_state;
