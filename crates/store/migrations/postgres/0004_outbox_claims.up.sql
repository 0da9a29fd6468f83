-- Until when a relay has an event to itself; NULL when it is anybody's.
ALTER TABLE outbox ADD COLUMN claimed_until timestamptz;
