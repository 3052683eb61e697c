-- Which container a server runs in. Rows of before say null: nobody looked, and their hashes hold without it.

ALTER TABLE events
    ADD COLUMN IF NOT EXISTS container_id LowCardinality(Nullable(String))
    COMMENT 'of the server; null: it runs in none, or it was recorded before there was this column'
    AFTER server_started_at;

ALTER TABLE coverage
    ADD COLUMN IF NOT EXISTS container_id LowCardinality(Nullable(String))
    COMMENT 'of the server; null: it runs in none, or it was recorded before there was this column'
    AFTER server_started_at;
