//! A JSON document with a signature over its exact bytes: `{"signed": …, "public_key": "…", "signature": "…"}`.
//!
//! There is one way to write it, and nothing else is accepted: not one byte can be changed, a space neither.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use whence_chain::{PublicKey, Signature, SigningKey, document_hash};

/// The text is no document that was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignedError {
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("it is not written as Whence writes it")]
    Rewritten,
    #[error("its key {0:?} is no Ed25519 key in 64 hexadecimal digits")]
    NoKey(String),
    #[error("its signature is not by the key {0} that it names")]
    WrongSignature(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    signed: &'a RawValue,
    public_key: String,
    signature: String,
}

/// The document with its signature, as text.
pub fn sign(document: &impl Serialize, key: &SigningKey) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string_pretty(document)?;
    Ok(compose(&text, key.public(), &key.sign(&document_hash(&text))))
}

fn compose(document: &str, key: PublicKey, signature: &Signature) -> String {
    let signature = hex::encode(signature);
    format!("{{\n\"signed\": {document},\n\"public_key\": \"{key}\",\n\"signature\": \"{signature}\"\n}}\n")
}

/// The document in `text` and the key that signed it. Whose key that is, the caller must know.
pub fn read_signed<T: DeserializeOwned>(text: &str) -> Result<(T, PublicKey), SignedError> {
    let envelope: Envelope = serde_json::from_str(text)?;
    let key = PublicKey::parse(&envelope.public_key).ok_or(SignedError::NoKey(envelope.public_key))?;
    let mut signature = [0; 64];
    let wrong = || SignedError::WrongSignature(key.to_string());
    hex::decode_to_slice(&envelope.signature, &mut signature).map_err(|_| wrong())?;
    let document = envelope.signed.get();
    if compose(document, key, &signature) != text {
        return Err(SignedError::Rewritten);
    }
    if !key.verify(&document_hash(document), &signature) {
        return Err(wrong());
    }
    Ok((serde_json::from_str(document)?, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_byte_is_found() {
        let key = SigningKey::generate();
        let document = serde_json::json!({ "rows": 3, "by": "ada \u{1f600}", "list": ["a", null] });
        let text = sign(&document, &key).unwrap();
        let (read, by) = read_signed::<serde_json::Value>(&text).unwrap();
        assert_eq!((read, by), (document, key.public()));
        for place in 0..text.len() {
            for change in [1_u8, 0x20, 0x80] {
                let mut bytes = text.clone().into_bytes();
                bytes[place] ^= change;
                let Ok(changed) = String::from_utf8(bytes) else { continue };
                assert!(read_signed::<serde_json::Value>(&changed).is_err(), "{place}: {changed}");
            }
        }
        assert!(read_signed::<serde_json::Value>(&format!("{text} ")).is_err());
    }
}
