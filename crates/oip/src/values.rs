//! The small values of a header: texts, shapes and data types, each with an error that says what was expected.

use std::fmt;

use serde::de::{self, DeserializeSeed, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tenantry_types::tensor::MAX_RANK;
use tenantry_types::{DataType, Shape};

/// A text of limited length.
pub(crate) struct Text {
    pub(crate) what: &'static str,
    pub(crate) limit: usize,
}

impl<'de> DeserializeSeed<'de> for Text {
    type Value = String;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Text {
    type Value = String;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of at most {} bytes", self.what, self.limit)
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        if text.len() > self.limit {
            return Err(E::invalid_length(text.len(), &self));
        }
        Ok(text.to_owned())
    }
}

/// The value of `shape`.
pub(crate) struct Extents(pub(crate) Shape);

impl<'de> Deserialize<'de> for Extents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Extents;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a shape: an array of at most {MAX_RANK} whole numbers, zero or more")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Extents, A::Error> {
                let mut shape = Shape::new();
                while let Some(Extent(extent)) = seq.next_element()? {
                    if shape.len() == MAX_RANK {
                        return Err(de::Error::invalid_length(shape.len() + 1, &self));
                    }
                    shape.push(extent);
                }
                Ok(Extents(shape))
            }
        }
        deserializer.deserialize_seq(Reader)
    }
}

/// One extent of a shape.
struct Extent(u64);

impl<'de> Deserialize<'de> for Extent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Extent;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an extent: a whole number, zero or more")
            }
            fn visit_u64<E: de::Error>(self, extent: u64) -> Result<Extent, E> {
                // The protocol's extents are signed 64-bit numbers.
                if i64::try_from(extent).is_err() {
                    return Err(E::invalid_value(de::Unexpected::Unsigned(extent), &self));
                }
                Ok(Extent(extent))
            }
        }
        deserializer.deserialize_u64(Reader)
    }
}

/// The value of `datatype`.
pub(crate) struct DataTypeName(pub(crate) DataType);

impl<'de> Deserialize<'de> for DataTypeName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = DataTypeName;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one of BOOL, [U]INT8/16/32/64, FP16, BF16, FP32, FP64, BYTES")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<DataTypeName, E> {
                text.parse().map(DataTypeName).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Reader)
    }
}
