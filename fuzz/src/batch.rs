//! Batches as collectors send them: the bytes as they are, and as what was compressed.

use whence_wire::{Limits, decode as read, encode};

const LIMITS: Limits =
    Limits { decompressed_bytes: 1 << 20, events: 1000, name_bytes: 1 << 10, text_bytes: 64 << 10 };

pub fn decode(bytes: &[u8]) {
    let _ = read(bytes, &LIMITS);
    let Ok(compressed) = zstd::encode_all(bytes, 1) else { return };
    let Ok(batch) = read(&compressed, &LIMITS) else { return };
    // What was taken can be passed on, and is the same then.
    let Ok(encoded) = encode(&batch) else { return };
    match read(&encoded, &LIMITS) {
        Ok(again) => assert_eq!(format!("{again:?}"), format!("{batch:?}")),
        Err(error) => assert!(encoded.len() > LIMITS.decompressed_bytes, "{error}"),
    }
}
