-- Which batches were lost on the way, where retention removed what said so.

ALTER TABLE expiries ADD COLUMN IF NOT EXISTS
    lost_batches        Array(Tuple(UInt64, UInt64)) COMMENT 'first and last of those that their collector had signed to be lost'
    AFTER declared_at;
