//! The protobuf messages. Strings are `bytes` where the reader checks UTF-8 itself, to say which field is wrong.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub struct Batch {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub collector: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub number: u64,
    #[prost(uint64, tag = "3")]
    pub first_sequence: u64,
    /// Nanoseconds since 1970.
    #[prost(sint64, tag = "4")]
    pub sealed_at: i64,
    /// 32 bytes.
    #[prost(bytes = "vec", tag = "5")]
    pub content_hash: Vec<u8>,
    /// 32 bytes.
    #[prost(bytes = "vec", tag = "6")]
    pub previous_hash: Vec<u8>,
    /// 32 bytes.
    #[prost(bytes = "vec", tag = "7")]
    pub batch_hash: Vec<u8>,
    /// 64 bytes.
    #[prost(bytes = "vec", tag = "8")]
    pub signature: Vec<u8>,
    /// Servers that events and spans refer to by index.
    #[prost(message, repeated, tag = "9")]
    pub servers: Vec<Server>,
    /// Event `i` has sequence number `first_sequence + i`.
    #[prost(message, repeated, tag = "10")]
    pub events: Vec<Event>,
    #[prost(message, repeated, tag = "11")]
    pub coverage: Vec<Coverage>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Server {
    #[prost(bytes = "vec", tag = "1")]
    pub host: Vec<u8>,
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub instance: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub product: Vec<u8>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub version: Option<Vec<u8>>,
    /// 4 or 16 bytes.
    #[prost(bytes = "vec", optional, tag = "5")]
    pub address: Option<Vec<u8>>,
    #[prost(uint32, optional, tag = "6")]
    pub port: Option<u32>,
    #[prost(uint32, tag = "7")]
    pub process_id: u32,
    #[prost(sint64, tag = "8")]
    pub process_started_at: i64,
    #[prost(bytes = "vec", optional, tag = "9")]
    pub container_id: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Event {
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(string, tag = "2")]
    pub provider: String,
    #[prost(sint64, tag = "3")]
    pub started_at: i64,
    #[prost(uint64, optional, tag = "4")]
    pub duration_ns: Option<u64>,
    #[prost(uint32, tag = "5")]
    pub server: u32,
    #[prost(bytes = "vec", optional, tag = "6")]
    pub user: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "7")]
    pub login_user: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "8")]
    pub client_host: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "9")]
    pub client_ip: Option<Vec<u8>>,
    #[prost(uint32, optional, tag = "10")]
    pub client_port: Option<u32>,
    #[prost(string, optional, tag = "11")]
    pub transport: Option<String>,
    #[prost(bool, optional, tag = "12")]
    pub tls: Option<bool>,
    #[prost(uint64, optional, tag = "13")]
    pub connection_id: Option<u64>,
    #[prost(bytes = "vec", optional, tag = "14")]
    pub database: Option<Vec<u8>>,
    #[prost(uint32, optional, tag = "15")]
    pub command: Option<u32>,
    #[prost(message, optional, tag = "16")]
    pub statement: Option<Statement>,
    #[prost(message, optional, tag = "17")]
    pub outcome: Option<Outcome>,
    #[prost(message, optional, tag = "18")]
    pub gap: Option<Gap>,
    #[prost(uint32, optional, tag = "19")]
    pub sampled_one_in: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Text {
    #[prost(bytes = "vec", tag = "1")]
    pub text: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub original_bytes: u64,
    #[prost(bool, tag = "3")]
    pub truncated: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Statement {
    #[prost(string, tag = "1")]
    pub class: String,
    #[prost(message, optional, tag = "2")]
    pub sql: Option<Text>,
    #[prost(fixed64, optional, tag = "3")]
    pub fingerprint: Option<u64>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub tables: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Outcome {
    /// `ok`, `error` or `unfinished`.
    #[prost(string, tag = "1")]
    pub result: String,
    #[prost(uint64, optional, tag = "2")]
    pub rows_sent: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    pub rows_affected: Option<u64>,
    #[prost(uint32, optional, tag = "4")]
    pub code: Option<u32>,
    #[prost(bytes = "vec", optional, tag = "5")]
    pub sqlstate: Option<Vec<u8>>,
    #[prost(message, optional, tag = "6")]
    pub message: Option<Text>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Gap {
    #[prost(string, tag = "1")]
    pub reason: String,
    #[prost(uint64, tag = "2")]
    pub events: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Coverage {
    #[prost(uint32, tag = "1")]
    pub server: u32,
    #[prost(string, tag = "2")]
    pub state: String,
    #[prost(string, optional, tag = "3")]
    pub provider: Option<String>,
    #[prost(sint64, tag = "4")]
    pub from: i64,
    #[prost(sint64, tag = "5")]
    pub to: i64,
    #[prost(uint64, tag = "6")]
    pub seen: u64,
    #[prost(uint64, tag = "7")]
    pub stored: u64,
    #[prost(uint64, tag = "8")]
    pub filtered: u64,
    #[prost(message, repeated, tag = "9")]
    pub lost: Vec<Gap>,
    #[prost(bytes = "vec", optional, tag = "10")]
    pub detail: Option<Vec<u8>>,
    #[prost(message, repeated, tag = "11")]
    pub filtered_by: Vec<Filtered>,
}

/// Events that a rule left out.
#[derive(Clone, PartialEq, Message)]
pub struct Filtered {
    /// The rule's name.
    #[prost(bytes = "vec", tag = "1")]
    pub rule: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub events: u64,
}
