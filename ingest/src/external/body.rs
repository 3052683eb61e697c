//! A body with its headers goes in, its decompressed text comes out, no longer than is allowed.

use std::io::{self, Read};

use axum::http::{HeaderMap, header};
use flate2::read::MultiGzDecoder;
use whence_wire::WireError;

use crate::refusal::Refusal;

const CONTENT_TYPES: [&str; 4] =
    ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/json"];

#[derive(Clone, Copy, Debug)]
pub enum Encoding {
    Plain,
    Gzip,
    Zstd,
}

/// Whether the headers say that these are JSON lines, and how they are compressed.
pub fn encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    let text = |name| {
        let value = headers.get(name).map(axum::http::HeaderValue::as_bytes).unwrap_or_default();
        String::from_utf8_lossy(value).trim().to_ascii_lowercase()
    };
    let refuse = |field, found: String, expected| {
        Err(Refusal::UnsupportedMediaType { field, found: found.chars().take(64).collect(), expected })
    };
    let content_type = text(header::CONTENT_TYPE);
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !CONTENT_TYPES.contains(&essence) {
        return refuse("Content-Type", content_type, "application/x-ndjson");
    }
    match text(header::CONTENT_ENCODING).as_str() {
        "" | "identity" => Ok(Encoding::Plain),
        "gzip" => Ok(Encoding::Gzip),
        "zstd" => Ok(Encoding::Zstd),
        other => refuse("Content-Encoding", other.to_owned(), "gzip, zstd or none"),
    }
}

pub fn decompress(bytes: &[u8], encoding: Encoding, limit: usize) -> Result<Vec<u8>, Refusal> {
    let text = match encoding {
        Encoding::Plain => Ok(bytes.to_vec()),
        Encoding::Gzip => read(MultiGzDecoder::new(bytes), limit),
        Encoding::Zstd => zstd::Decoder::new(bytes).and_then(|decoder| read(decoder, limit)),
    };
    let text = text.map_err(|source| Refusal::Undecodable { source })?;
    if text.len() > limit { Err(WireError::TooLarge { limit }.into()) } else { Ok(text) }
}

/// Reads one byte beyond the limit at most, which tells that it was exceeded.
fn read(decoder: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    decoder.take(limit as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}
