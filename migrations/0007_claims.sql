-- Which ingest writes a collector's batches: see crates/store/src/claim.rs. A few rows per collector and day.

CREATE TABLE IF NOT EXISTS claims
(
    collector_id        UUID,
    writer_id           UUID                    COMMENT 'name of the ClickHouse session under which the ingest writes',
    account             String                  DEFAULT currentUser() COMMENT 'of ClickHouse, to which the session belongs',
    server              UUID                    DEFAULT serverUUID() COMMENT 'of ClickHouse, which has the session',
    leaps               Bool                    COMMENT 'the ingest took a batch that did not follow the newest',
    claimed_at          DateTime64(9, 'UTC')    DEFAULT now64(9)
)
ENGINE = MergeTree
ORDER BY collector_id
TTL toDateTime(claimed_at) + INTERVAL 30 DAY DELETE WHERE NOT leaps;
