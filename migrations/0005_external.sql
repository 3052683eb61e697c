-- Events of senders that sign nothing (POST /v1/events). What they say may be true; nobody can prove it.

ALTER TABLE events
    ADD COLUMN IF NOT EXISTS signed Bool ALIAS provider != 'external'
        COMMENT 'false: from another sender than a collector, and in no chain';

-- One row per request that was stored, written last. It tells a request that is sent again from a new one.
CREATE TABLE IF NOT EXISTS external_batches
(
    batch_id            UUID,
    source              LowCardinality(String)  COMMENT 'name of the sender, which its token stands for',
    event_count         UInt32,
    body_hash           FixedString(32)         COMMENT 'BLAKE3 of the body, decompressed',
    received_at         DateTime64(9, 'UTC')
)
ENGINE = ReplacingMergeTree(received_at)
ORDER BY (batch_id, body_hash)
SETTINGS non_replicated_deduplication_window = 10000;
