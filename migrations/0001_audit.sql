-- The audit: events, the batches that brought them, coverage, and the collectors that are trusted.

CREATE TABLE IF NOT EXISTS events
(
    -- identity
    collector_id        UUID,
    sequence            UInt64                  CODEC(Delta, ZSTD(1)),
    event_id            UUID,
    batch_id            UUID,
    kind                LowCardinality(String)  COMMENT 'connect, connect_failed, disconnect, change_user, command, gap',
    provider            LowCardinality(String)  COMMENT 'usdt, functions, collector',
    -- time
    started_at          DateTime64(9, 'UTC')    CODEC(Delta, ZSTD(1)),
    duration_ns         Nullable(UInt64)        CODEC(ZSTD(1)),
    received_at         DateTime64(9, 'UTC')    CODEC(Delta, ZSTD(1)),
    -- server
    host                LowCardinality(String),
    instance_id         UUID,
    product             LowCardinality(String),
    version             LowCardinality(Nullable(String)),
    server_ip           Nullable(IPv6),
    server_port         Nullable(UInt16),
    server_process_id   UInt32,
    server_started_at   DateTime64(9, 'UTC')    CODEC(ZSTD(1)),
    -- principal
    user                LowCardinality(Nullable(String)) COMMENT 'account that applied (priv_user); empty is the anonymous account',
    login_user          LowCardinality(Nullable(String)) COMMENT 'name given at login',
    client_host         LowCardinality(Nullable(String)) COMMENT 'client host as the server names it',
    client_ip           Nullable(IPv6)          COMMENT 'IPv4 as ::ffff:a.b.c.d',
    client_port         Nullable(UInt16),
    transport           LowCardinality(Nullable(String)) COMMENT 'tcp, unix',
    tls                 Nullable(Bool),
    -- session
    connection_id       Nullable(UInt64)        CODEC(ZSTD(1)),
    database            LowCardinality(Nullable(String)),
    -- command
    command             LowCardinality(Nullable(String)) COMMENT 'Query, Ping, Stmt_execute, Init_db, Quit …',
    command_code        Nullable(UInt32),
    statement_class     LowCardinality(Nullable(String)) COMMENT 'read, write, ddl, privileges, transaction, admin, other, unknown',
    sql_text            Nullable(String)        CODEC(ZSTD(3)),
    sql_original_bytes  Nullable(UInt64)        CODEC(ZSTD(1)),
    sql_truncated       Nullable(Bool),
    fingerprint         Nullable(UInt64)        CODEC(ZSTD(1)),
    tables              Array(LowCardinality(String)),
    -- result
    result              LowCardinality(Nullable(String)) COMMENT 'ok, error, unfinished',
    error_code          Nullable(UInt32)        CODEC(ZSTD(1)),
    sqlstate            LowCardinality(Nullable(String)),
    error_message       Nullable(String)        CODEC(ZSTD(3)),
    error_message_original_bytes Nullable(UInt64) CODEC(ZSTD(1)),
    error_message_truncated Nullable(Bool),
    rows_sent           Nullable(UInt64)        CODEC(ZSTD(1)),
    rows_affected       Nullable(UInt64)        CODEC(ZSTD(1)),
    -- gap
    gap_reason          LowCardinality(Nullable(String)),
    gap_events          Nullable(UInt64),
    -- integrity
    event_hash          FixedString(32)         COMMENT 'BLAKE3 of the canonical encoding',

    INDEX user_index (user) TYPE set(100) GRANULARITY 1,
    INDEX client_host_index (client_host) TYPE set(100) GRANULARITY 1,
    INDEX client_ip_index (client_ip) TYPE minmax GRANULARITY 1,
    INDEX event_id_index (event_id) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX batch_id_index (batch_id) TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(started_at)
ORDER BY (started_at, collector_id, sequence)
SETTINGS non_replicated_deduplication_window = 10000;

-- One row per accepted batch: the manifest that the collector signed. Its hash is in the order, so that another batch
-- of the same number would show and replace nothing.
CREATE TABLE IF NOT EXISTS batches
(
    batch_id            UUID,
    collector_id        UUID,
    number              UInt64                  COMMENT '1, 2, 3 … within the collector',
    first_sequence      UInt64,
    event_count         UInt32,
    coverage_count      UInt32,
    first_started_at    Nullable(DateTime64(9, 'UTC')),
    last_started_at     Nullable(DateTime64(9, 'UTC')),
    sealed_at           DateTime64(9, 'UTC'),
    received_at         DateTime64(9, 'UTC'),
    content_hash        FixedString(32)         COMMENT 'BLAKE3 of the hashes of its events and coverage spans',
    previous_hash       FixedString(32)         COMMENT 'batch_hash of the batch before; zeros for the first',
    batch_hash          FixedString(32),
    signature           FixedString(64)         COMMENT 'Ed25519 by the collector over batch_hash'
)
ENGINE = ReplacingMergeTree(received_at)
ORDER BY (collector_id, number, batch_hash)
SETTINGS non_replicated_deduplication_window = 10000;

-- What each server was watched by, span by span. A time without a span was not watched.
CREATE TABLE IF NOT EXISTS coverage
(
    collector_id        UUID,
    batch_id            UUID,
    position            UInt32                  COMMENT 'place in its batch, from 0',
    instance_id         UUID,
    host                LowCardinality(String),
    product             LowCardinality(String),
    version             LowCardinality(Nullable(String)),
    server_ip           Nullable(IPv6),
    server_port         Nullable(UInt16),
    server_process_id   UInt32,
    server_started_at   DateTime64(9, 'UTC'),
    state               LowCardinality(String)  COMMENT 'watched, not_running, unattachable',
    provider            LowCardinality(Nullable(String)),
    span_from           DateTime64(9, 'UTC'),
    span_to             DateTime64(9, 'UTC'),
    seen                UInt64,
    stored              UInt64,
    filtered            UInt64,
    lost                Map(LowCardinality(String), UInt64),
    detail              Nullable(String),
    received_at         DateTime64(9, 'UTC')
)
ENGINE = ReplacingMergeTree(received_at)
ORDER BY (instance_id, span_from, collector_id, batch_id, position)
SETTINGS non_replicated_deduplication_window = 10000;

-- The collectors that enrolled. The first key of one counts: the key is in the order, so that no later key replaces it.
CREATE TABLE IF NOT EXISTS collectors
(
    collector_id        UUID,
    host                String,
    public_key          FixedString(32)         COMMENT 'Ed25519',
    enrolled_at         DateTime64(9, 'UTC'),
    revoked_at          Nullable(DateTime64(9, 'UTC')),
    changed_at          DateTime64(9, 'UTC')
)
ENGINE = ReplacingMergeTree(changed_at)
ORDER BY (collector_id, public_key);
