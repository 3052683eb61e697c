//! From a request to the bytes of a batch: headers, size and time checked.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::IngestConfig;
use crate::refusal::Refusal;

/// Header by which a collector says that the batches `from-to` will never come.
pub const MISSING_HEADER: &str = "whence-missing-batches";
/// Header by which a collector says that batch N, which the first of these follows, is on its way in another request: this one
/// waits for it, and is decompressed and checked meanwhile.
const FOLLOWS_HEADER: &str = "whence-follows-batch";
/// A body that is too large is read on up to this many times its limit, so that its sender sees the answer.
const PATIENCE: usize = 8;

/// Whether the headers say that this is a batch.
pub fn check_headers(headers: &HeaderMap) -> Result<(), Refusal> {
    require(headers, &header::CONTENT_TYPE, "Content-Type", whence_wire::CONTENT_TYPE)?;
    require(headers, &header::CONTENT_ENCODING, "Content-Encoding", whence_wire::CONTENT_ENCODING)
}

fn require(
    headers: &HeaderMap,
    name: &HeaderName,
    field: &'static str,
    expected: &'static str,
) -> Result<(), Refusal> {
    let text =
        headers.get(name).map_or(String::new(), |value| String::from_utf8_lossy(value.as_bytes()).into());
    let essence = text.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    let found = text.chars().take(64).collect();
    Err(Refusal::UnsupportedMediaType { field, found, expected })
}

/// The batches that the sender declares missing, first and last. None when it declares none that can be read.
pub fn declared_missing(headers: &HeaderMap) -> Option<(u64, u64)> {
    let (from, to) = headers.get(MISSING_HEADER)?.to_str().ok()?.split_once('-')?;
    Some((from.trim().parse().ok()?, to.trim().parse().ok()?))
}

/// The batch before these that is on its way. None when none is, or it cannot be read.
pub fn follows(headers: &HeaderMap) -> Option<u64> {
    headers.get(FOLLOWS_HEADER)?.to_str().ok()?.trim().parse().ok()
}

/// All of the body.
pub async fn body(config: &IngestConfig, body: Body, limit: usize) -> Result<Bytes, Refusal> {
    let seconds = config.body_timeout.as_secs();
    timeout(config.body_timeout, read(body, limit)).await.map_err(|_| Refusal::BodyTimeout { seconds })?
}

async fn read(mut body: Body, limit: usize) -> Result<Bytes, Refusal> {
    let mut bytes = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Refusal::BodyBrokenOff)?.into_data() else { continue };
        length += data.len();
        if length <= limit {
            bytes.extend_from_slice(&data);
        } else if length > limit.saturating_mul(PATIENCE) {
            break;
        }
    }
    if length > limit { Err(Refusal::BodyTooLarge { limit }) } else { Ok(bytes.freeze()) }
}
