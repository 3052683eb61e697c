//! A long series of changes that nobody chose: each is made with real statements, and each must be found.
//!
//! `cargo xtask tamper --rounds N [--seed S]` runs more of it. A seed makes the same series of choices again.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use whence_chain::SigningKey;
use whence_model::BatchId;
use whence_store::row::{BatchRow, EventRow};
use whence_store::verify::{Outside, Scope};
use whence_testkit::Sender;

use crate::heads::{outside, rewrite};
use crate::retention::{retention, write_months};
use crate::verify::{Audit, BATCHES, EVENTS, copy, delete, update, verify_against};

/// Rounds without [`ROUNDS_VARIABLE`].
const ROUNDS: u32 = 40;
const ROUNDS_VARIABLE: &str = "WHENCE_TAMPER_ROUNDS";
const SEED_VARIABLE: &str = "WHENCE_TAMPER_SEED";

/// Columns of an event outside the table's order, each with another value for it.
const EVENT_COLUMNS: &[&str] = &[
    "event_id = generateUUIDv4()",
    "batch_id = generateUUIDv4()",
    "kind = if(kind = 'command', 'connect', 'command')",
    "provider = if(provider = 'usdt', 'functions', 'usdt')",
    "provider = 'external'",
    "duration_ns = ifNull(duration_ns, 0) + 1",
    "duration_ns = if(duration_ns IS NULL, 0, NULL)",
    "received_at = received_at + toIntervalSecond(1)",
    "host = concat(host, 'x')",
    "instance_id = generateUUIDv4()",
    "product = concat(product, ' ')",
    "version = if(version IS NULL, '', NULL)",
    "server_ip = if(server_ip IS NULL, toIPv6('::1'), NULL)",
    "server_port = ifNull(server_port, 0) + 1",
    "server_process_id = server_process_id + 1",
    "server_started_at = server_started_at + toIntervalNanosecond(1)",
    "container_id = if(container_id IS NULL, '', NULL)",
    "user = if(ifNull(user, '') = 'root', 'nobody', 'root')",
    "user = if(user IS NULL, '', NULL)",
    "login_user = if(login_user IS NULL, 'root', NULL)",
    "client_host = concat(ifNull(client_host, ''), 'x')",
    "client_ip = if(client_ip IS NULL, toIPv6('10.0.0.1'), NULL)",
    "client_port = ifNull(client_port, 0) + 1",
    "transport = if(ifNull(transport, '') = 'tcp', 'unix', 'tcp')",
    "tls = NOT ifNull(tls, false)",
    "connection_id = ifNull(connection_id, 0) + 1",
    "database = concat(ifNull(database, ''), 'x')",
    "command = if(ifNull(command, '') = 'Ping', 'Query', 'Ping')",
    "command_code = ifNull(command_code, 0) + 1",
    "statement_class = if(ifNull(statement_class, '') = 'ddl', 'read', 'ddl')",
    "statement_class = if(statement_class IS NULL, 'unknown', NULL)",
    "sql_text = concat(ifNull(sql_text, ''), ' ')",
    "sql_text = unhex('ff')",
    "sql_original_bytes = ifNull(sql_original_bytes, 0) + 1",
    "sql_truncated = NOT ifNull(sql_truncated, false)",
    "fingerprint = ifNull(fingerprint, 0) + 1",
    "tables = arrayPushBack(tables, 'mysql.user')",
    "result = if(ifNull(result, '') = 'ok', 'error', 'ok')",
    "error_code = ifNull(error_code, 0) + 1",
    "sqlstate = concat(ifNull(sqlstate, ''), 'x')",
    "error_message = concat(ifNull(error_message, ''), 'x')",
    "error_message_original_bytes = ifNull(error_message_original_bytes, 0) + 1",
    "error_message_truncated = NOT ifNull(error_message_truncated, false)",
    "rows_sent = ifNull(rows_sent, 0) + 1",
    "rows_affected = ifNull(rows_affected, 0) + 1",
    "gap_reason = if(gap_reason IS NULL, 'ring_full', NULL)",
    "gap_events = ifNull(gap_events, 0) + 1",
    "sampled_one_in = ifNull(sampled_one_in, 1) + 1",
    "event_hash = reverse(event_hash)",
];

/// Columns in the order of `events`: a row with another value for one takes the place of the old one.
const EVENT_KEYS: &[&str] = &[
    "started_at + toIntervalNanosecond(7) AS started_at",
    "started_at + toIntervalDay(40) AS started_at",
    "generateUUIDv4() AS collector_id",
    "sequence + 1 AS sequence",
    "sequence + 1000 AS sequence",
];

const BATCH_COLUMNS: &[&str] = &[
    "batch_id = generateUUIDv4()",
    "first_sequence = first_sequence + 1",
    "event_count = event_count + 1",
    "event_count = 0",
    "event_count = 4294967295",
    "coverage_count = coverage_count - 1",
    "first_started_at = first_started_at - toIntervalDay(1)",
    "first_started_at = NULL",
    "last_started_at = last_started_at + toIntervalDay(1)",
    "last_started_at = first_started_at",
    "sealed_at = sealed_at + toIntervalNanosecond(1)",
    "content_hash = reverse(content_hash)",
    "previous_hash = content_hash",
    "signature = reverse(signature)",
];

const BATCH_KEYS: &[&str] = &[
    "generateUUIDv4() AS collector_id",
    "number + 1 AS number",
    "number + 1000 AS number",
    "toUInt64(18446744073709551615) AS number",
    "toUInt64(0) AS number",
    "reverse(batch_hash) AS batch_hash",
];

const COVERAGE_COLUMNS: &[&str] = &[
    "host = concat(host, 'x')",
    "product = ''",
    "version = NULL",
    "server_ip = NULL",
    "server_port = 1",
    "server_process_id = server_process_id + 1",
    "server_started_at = server_started_at + toIntervalNanosecond(1)",
    "container_id = if(container_id IS NULL, '', NULL)",
    "state = 'unattachable'",
    "state = 'x'",
    "provider = 'usdt'",
    "provider = NULL",
    "span_to = span_to + toIntervalNanosecond(1)",
    "seen = seen + 1",
    "seen = seen + 1, stored = stored + 1",
    "stored = stored + 1",
    "filtered = filtered + 1, stored = stored - 1",
    "filtered_by = map('x', filtered + 1)",
    "filtered_by = map('x', 1), filtered = 1, stored = stored - 1",
    "lost = map('ring_full', 1, 'table_full', 1)",
    "lost = map(), seen = 8",
    "lost = map('ring_full', 7, 'ring_full', 2)",
    "detail = 'all is well'",
    "detail = unhex('80')",
];

const COVERAGE_KEYS: &[&str] = &[
    "generateUUIDv4() AS collector_id",
    "generateUUIDv4() AS batch_id",
    "generateUUIDv4() AS instance_id",
    "position + 1 AS position",
    "position + 9 AS position",
    "span_from - toIntervalNanosecond(1) AS span_from",
    "received_at + toIntervalSecond(1) AS received_at",
];

const EXPIRY_COLUMNS: &[&str] = &[
    "events = events + 1",
    "last_sequence = last_sequence + 1",
    "head = reverse(head)",
    "before = before + toIntervalDay(1)",
    "reason = 'because'",
    "declared_at = now64(9)",
    "lost_batches = arrayPushBack(lost_batches, (1, 2))",
    "public_key = reverse(public_key)",
    "signature = reverse(signature)",
];

const EXPIRY_KEYS: &[&str] = &[
    "generateUUIDv4() AS collector_id",
    "if(what = 'contents', 'batches', 'contents') AS what",
    "first_batch - 1 AS first_batch",
    "last_batch + 1 AS last_batch",
    "last_batch - 1 AS last_batch",
];

/// Somewhere in the audit.
struct Target<'a> {
    sender: &'a Sender,
    number: u64,
    batch_id: BatchId,
    batch: String,
    contents: String,
    /// Of the batch's first event, and of the one chosen.
    first_sequence: u64,
    sequence: u64,
    event: String,
    span: String,
}

impl<'a> Target<'a> {
    fn choose(audit: &'a Audit, random: &mut StdRng) -> Self {
        let sender = &audit.senders[random.gen_range(0..audit.senders.len())];
        let number = random.gen_range(1..=BATCHES);
        let batch_id = BatchId::derive(sender.id, number);
        let first_sequence = (number - 1) * EVENTS + 1;
        let sequence = first_sequence + random.gen_range(0..EVENTS);
        let collector = format!("collector_id = '{}'", sender.id);
        Self {
            sender,
            number,
            batch_id,
            batch: format!("{collector} AND number = {number}"),
            contents: format!("batch_id = '{batch_id}'"),
            first_sequence,
            sequence,
            event: format!("{collector} AND sequence = {sequence}"),
            span: format!("batch_id = '{batch_id}' AND position = {}", random.gen_range(0..2)),
        }
    }

    /// Statements that change something here.
    fn tamper(&self, random: &mut StdRng) -> Vec<String> {
        let mut pick = |from: &'static [&'static str]| *from.choose(random).unwrap();
        let (event_column, event_key) = (pick(EVENT_COLUMNS), pick(EVENT_KEYS));
        let (batch_column, batch_key) = (pick(BATCH_COLUMNS), pick(BATCH_KEYS));
        let (span_column, span_key) = (pick(COVERAGE_COLUMNS), pick(COVERAGE_KEYS));
        let (expiry_column, expiry_key) = (pick(EXPIRY_COLUMNS), pick(EXPIRY_KEYS));
        // One of the collector of which a part has expired.
        let expiry = if random.gen_bool(0.5) { "what = 'contents'" } else { "what = 'batches'" };
        let other = format!("collector_id != '{}'", self.sender.id);
        let own = format!("collector_id = '{}'", self.sender.id);
        match random.gen_range(0..27) {
            0..=5 => vec![update("events", event_column, &self.event)],
            6 => vec![delete("events", &self.event), copy("events", event_key, &self.event)],
            7 => vec![copy("events", event_key, &self.event)],
            8 => vec![delete("events", &self.event)],
            9 => vec![copy("events", "event_id AS event_id", &self.event)],
            10 => vec![delete("events", &self.contents)],
            11..=12 => vec![update("batches", batch_column, &self.batch)],
            13 => vec![delete("batches", &self.batch), copy("batches", batch_key, &self.batch)],
            14 => vec![copy("batches", batch_key, &self.batch)],
            15 => vec![delete("batches", &self.batch)],
            16 => ["batches", "events", "coverage"]
                .map(|table| delete(table, if table == "batches" { &self.batch } else { &self.contents }))
                .into(),
            17 => vec![update("coverage", span_column, &self.span)],
            18 => vec![delete("coverage", &self.span), copy("coverage", span_key, &self.span)],
            19 => vec![copy("coverage", "'elsewhere' AS host", &self.span)],
            20 => vec![delete("coverage", &self.span)],
            21 => vec![update("expiries", expiry_column, expiry)],
            22 => vec![delete("expiries", expiry), copy("expiries", expiry_key, expiry)],
            23 => vec![delete("expiries", expiry)],
            // More than was declared is gone.
            24 => vec![delete(
                "events",
                "collector_id IN (SELECT collector_id FROM expiries) AND sequence <= 8",
            )],
            // Two events change places.
            25 => {
                let next = format!(
                    "collector_id = '{}' AND sequence = {}",
                    self.sender.id,
                    self.sequence % EVENTS + self.first_sequence
                );
                vec![
                    delete("events", &self.event),
                    delete("events", &next),
                    copy(
                        "events",
                        &format!("toUInt64({}) AS sequence", self.sequence % EVENTS + self.first_sequence),
                        &self.event,
                    ),
                    copy("events", &format!("toUInt64({}) AS sequence", self.sequence), &next),
                ]
            }
            _ => {
                let key =
                    format!("(SELECT any(public_key) FROM collectors_kept WHERE {other}) AS public_key");
                vec![delete("collectors", &own), copy("collectors", &key, &own)]
            }
        }
    }

    /// What someone does who knows how the hashes are made: another SQL text with all hashes that follow from it,
    /// signed with a key that is not the collector's, or not at all.
    async fn forge(&self, audit: &Audit, random: &mut StdRng) -> String {
        let mut rows: Vec<EventRow> =
            audit.rows("events", &format!("{} ORDER BY sequence", self.contents)).await;
        let mut batch: BatchRow = audit.rows("batches", &self.batch).await.remove(0);
        let depth = random.gen_range(0..3);
        let place = random.gen_range(0..rows.len());
        rows[place].user = Some("innocent".into());
        rows[place].event_hash = whence_chain::event_hash(&rows[place].to_event().unwrap());
        if depth > 0 {
            let spans: Vec<_> = audit.rows("coverage", &format!("{} ORDER BY position", self.contents)).await;
            Sender::default().reseal(&mut batch, &rows, &spans, depth > 1);
        }
        audit.run(&delete("events", &self.contents)).await;
        audit.run(&delete("batches", &self.batch)).await;
        audit.insert("events", &rows).await;
        audit.insert("batches", &[batch]).await;
        format!("forged batch {} of {} ({}), depth {depth}", self.number, self.sender.id, self.batch_id)
    }
}

/// Every column of the tables is tried, those of later migrations too; but for `received_at` of a batch, which
/// nothing proves.
async fn every_column_is_there(audit: &Audit) {
    for (table, columns, keys) in [
        ("events", EVENT_COLUMNS, EVENT_KEYS),
        ("batches", BATCH_COLUMNS, BATCH_KEYS),
        ("coverage", COVERAGE_COLUMNS, COVERAGE_KEYS),
        ("expiries", EXPIRY_COLUMNS, EXPIRY_KEYS),
    ] {
        let set = columns.iter().filter_map(|column| column.split_once(" = ").map(|(name, _)| name));
        let replaced = keys.iter().filter_map(|key| key.rsplit_once(" AS ").map(|(_, name)| name));
        let tried: HashSet<&str> = set.chain(replaced).collect();
        for column in audit.columns(table).await {
            let is_proven = (table, column.as_str()) != ("batches", "received_at");
            assert!(!is_proven || tried.contains(column.as_str()), "{table}.{column} is not tried");
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[tokio::test]
async fn every_random_change_is_found() {
    let rounds = number(ROUNDS_VARIABLE).map_or(ROUNDS, |rounds| u32::try_from(rounds).unwrap());
    let seed = number(SEED_VARIABLE).unwrap_or_else(rand::random);
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut audit = Audit::new("tamper").await;
    let key = SigningKey::generate();
    write_months(audit.store()).await;
    audit.store().retain(retention(&key, 60, 60)).await.unwrap();
    audit.keep().await;
    every_column_is_there(&audit).await;
    // What a careful owner keeps elsewhere.
    let outside = Outside { service_keys: vec![key.public()], ..outside(audit.store()).await };
    let verify = async || verify_against(audit.store(), Scope::default(), &outside).await;
    assert_eq!(verify().await.tampering(), []);
    let mut found = 0;
    for round in 1..=rounds {
        let target = Target::choose(&audit, &mut random);
        let done = if random.gen_ratio(1, 10) {
            target.forge(&audit, &mut random).await
        } else if random.gen_ratio(1, 30) {
            rewrite(&audit, target.sender).await;
            format!("rewrote all of {}", target.sender.id)
        } else {
            let statements = target.tamper(&mut random);
            for sql in &statements {
                audit.run(sql).await;
            }
            statements.join(";\n")
        };
        if verify().await.summary.findings > 0 {
            found += 1;
        } else {
            println!("round {round} of seed {seed} was not found:\n{done}");
        }
        audit.restore().await;
    }
    println!("found {found} of {rounds}");
    assert_eq!(found, rounds, "seed {seed}");
    assert_eq!(verify().await.tampering(), []);
}
