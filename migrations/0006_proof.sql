-- What proves something beside the chains: the keys of Whence's services, the manifests of exports, and what retention
-- removed.

CREATE TABLE IF NOT EXISTS service_keys
(
    public_key          FixedString(32)         COMMENT 'Ed25519',
    host                String                  COMMENT 'where it was first used',
    first_used_at       DateTime64(9, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (public_key, first_used_at);

CREATE TABLE IF NOT EXISTS exports
(
    export_id           UUID                    COMMENT 'request id, as in audit_reads',
    finished_at         DateTime64(9, 'UTC'),
    person              String,
    file_name           String,
    manifest            String                  COMMENT 'JSON, signed' CODEC(ZSTD(3))
)
ENGINE = MergeTree
ORDER BY export_id;

CREATE TABLE IF NOT EXISTS expiries
(
    collector_id        UUID,
    what                LowCardinality(String)  COMMENT 'contents, batches',
    first_batch         UInt64,
    last_batch          UInt64,
    events              UInt64,
    last_sequence       UInt64                  COMMENT 'of the last event in them',
    head                FixedString(32)         COMMENT 'batch_hash of last_batch',
    before              DateTime64(9, 'UTC')    COMMENT 'everything in them was sealed earlier',
    reason              String,
    declared_at         DateTime64(9, 'UTC'),
    public_key          FixedString(32)         COMMENT 'of the service that declared it',
    signature           FixedString(64)         COMMENT 'Ed25519'
)
ENGINE = MergeTree
ORDER BY (collector_id, what, first_batch, last_batch);
