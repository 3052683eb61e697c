//! Batches as they travel from a collector to ingest: protobuf messages, compressed with zstd.
