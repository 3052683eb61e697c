-- Which ingest writes a collector's batches: see crates/store/src/claim.rs. A few rows per collector and start of an ingest.

CREATE TABLE IF NOT EXISTS claims
(
    collector_id        UUID,
    writer_id           UUID                    COMMENT 'name of the ClickHouse session under which the ingest writes',
    account             String                  COMMENT 'of ClickHouse, to which the session belongs',
    leaps               Bool                    COMMENT 'the ingest took a batch that did not follow the newest',
    claimed_at          DateTime64(9, 'UTC')
)
ENGINE = MergeTree
ORDER BY collector_id;
