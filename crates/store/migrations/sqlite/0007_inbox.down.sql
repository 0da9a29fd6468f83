DROP INDEX inputs_open;
