//! Counts what a message holds before it is decoded: an empty element takes two bytes of protobuf and hundreds of
//! bytes of memory, so that a small body could fill all memory before any field is looked at.

use prost::DecodeError;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// How many elements a batch has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    pub servers: usize,
    pub events: usize,
    pub spans: usize,
    /// Tables of statements, reasons of losses, and rules.
    pub details: usize,
}

#[derive(Clone, Copy)]
enum Level {
    Batch,
    Event,
    Statement,
    Coverage,
}

impl Census {
    /// Counts the elements of the batch in `bytes`.
    pub fn take(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut census = Self::default();
        census.visit(bytes, Level::Batch)?;
        Ok(census)
    }

    /// As deep as the levels, which is no more than three.
    fn visit(&mut self, mut bytes: &[u8], level: Level) -> Result<(), DecodeError> {
        while bytes.has_remaining() {
            let (tag, wire_type) = decode_key(&mut bytes)?;
            if wire_type != WireType::LengthDelimited {
                skip_field(wire_type, tag, &mut bytes, DecodeContext::default())?;
                continue;
            }
            let length = usize::try_from(decode_varint(&mut bytes)?).unwrap_or(usize::MAX);
            let Some((field, rest)) = bytes.split_at_checked(length) else {
                // The decoder says what is wrong with it.
                return Ok(());
            };
            bytes = rest;
            match (level, tag) {
                (Level::Batch, 9) => self.servers += 1,
                (Level::Batch, 10) => {
                    self.events += 1;
                    self.visit(field, Level::Event)?;
                }
                (Level::Batch, 11) => {
                    self.spans += 1;
                    self.visit(field, Level::Coverage)?;
                }
                (Level::Event, 16) => self.visit(field, Level::Statement)?,
                (Level::Statement, 4) | (Level::Coverage, 9 | 11) => self.details += 1,
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::message;

    #[test]
    fn elements_are_counted_at_every_level() {
        let statement = message::Statement { tables: vec![vec![], b"t".to_vec()], ..Default::default() };
        let event = message::Event { statement: Some(statement), ..Default::default() };
        let span = message::Coverage {
            lost: vec![message::Gap::default()],
            filtered_by: vec![message::Filtered::default()],
            ..Default::default()
        };
        let batch = message::Batch {
            number: 7,
            servers: vec![message::Server::default(); 2],
            events: vec![event, message::Event::default()],
            coverage: vec![span],
            ..Default::default()
        };
        let census = Census::take(&batch.encode_to_vec()).unwrap();
        assert_eq!(census, Census { servers: 2, events: 2, spans: 1, details: 4 });
    }
}
