-- What the collectors' rules leave out, and the events that a rule lets through as a sample.

ALTER TABLE events ADD COLUMN IF NOT EXISTS
    sampled_one_in      Nullable(UInt32)        COMMENT 'a rule let one of so many events like this through'
    AFTER gap_events;

ALTER TABLE coverage ADD COLUMN IF NOT EXISTS
    filtered_by         Map(LowCardinality(String), UInt64) COMMENT 'filtered, by the name of the rule'
    AFTER filtered;
