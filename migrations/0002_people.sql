-- People and their use of the audit. `web` keeps no state of its own.

CREATE TABLE IF NOT EXISTS people
(
    name                String,
    password_hash       String                  COMMENT 'Argon2id, PHC string',
    role                LowCardinality(String)  COMMENT 'viewer, auditor, admin',
    disabled            Bool,
    changed_at          DateTime64(9, 'UTC')
)
ENGINE = ReplacingMergeTree(changed_at)
ORDER BY name;

-- Browser sessions and API tokens: only the SHA-256 of the secret is kept.
CREATE TABLE IF NOT EXISTS credentials
(
    secret_hash         FixedString(32),
    kind                LowCardinality(String)  COMMENT 'session, api_token',
    person              String,
    label               String,
    created_at          DateTime64(9, 'UTC'),
    expires_at          Nullable(DateTime64(9, 'UTC')),
    revoked             Bool,
    changed_at          DateTime64(9, 'UTC')
)
ENGINE = ReplacingMergeTree(changed_at)
ORDER BY secret_hash;

-- The audit of the audit: every sign-in, read, report and export.
CREATE TABLE IF NOT EXISTS audit_reads
(
    at                  DateTime64(9, 'UTC'),
    request_id          UUID,
    person              String,
    address             String                  COMMENT 'peer of the request',
    action              LowCardinality(String)  COMMENT 'sign_in, sign_in_failed, sign_out, search, event, report, export, api …',
    query               String                  COMMENT 'the filter, as in the URL',
    rows                Nullable(UInt64)        COMMENT 'rows handed out',
    result              LowCardinality(String)  COMMENT 'ok, denied, failed, cut_off'
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(at)
ORDER BY at;
