//! How our types travel in ClickHouse's row format, for `#[serde(with = …)]`.

/// [`whence_model::Timestamp`] as `DateTime64(9)`.
pub mod timestamp {
    use serde::{Deserialize, Deserializer, Serializer};
    use whence_model::Timestamp;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives the field as it is")]
    pub fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(at.0)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(deserializer).map(Timestamp)
    }

    /// … as `Nullable(DateTime64(9))`.
    pub mod option {
        use serde::{Deserialize, Deserializer, Serialize, Serializer};
        use whence_model::Timestamp;

        #[expect(clippy::ref_option, reason = "serde gives the field as it is")]
        pub fn serialize<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
            at.map(|at| at.0).serialize(serializer)
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Timestamp>, D::Error> {
            Ok(Option::<i64>::deserialize(deserializer)?.map(Timestamp))
        }
    }
}

/// `[u8; N]` as `FixedString(N)`, for every length.
pub mod fixed {
    use std::fmt;

    use serde::de::{Error, SeqAccess, Visitor};
    use serde::ser::SerializeTuple;
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(N)?;
        for byte in bytes {
            tuple.serialize_element(byte)?;
        }
        tuple.end()
    }

    pub fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<[u8; N], D::Error> {
        struct Bytes<const N: usize>;

        impl<'de, const N: usize> Visitor<'de> for Bytes<N> {
            type Value = [u8; N];

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{N} bytes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<[u8; N], A::Error> {
                let mut value = [0; N];
                for (position, byte) in value.iter_mut().enumerate() {
                    *byte = bytes.next_element()?.ok_or_else(|| A::Error::invalid_length(position, &self))?;
                }
                Ok(value)
            }
        }

        deserializer.deserialize_tuple(N, Bytes::<N>)
    }
}
