//! A writer of protobuf messages (wire format: <https://protobuf.dev/programming-guides/encoding/>), as much of it as
//! model files need.

/// A message under construction. Later fields go behind earlier ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// A whole number.
    #[must_use]
    pub(super) fn int(mut self, field: u32, value: i64) -> Self {
        self.varint(u64::from(field) << 3);
        self.varint(value.cast_unsigned());
        self
    }

    /// Bytes or text.
    #[must_use]
    pub(super) fn data(mut self, field: u32, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.bytes.extend_from_slice(value);
        self
    }

    /// A message inside this one.
    #[must_use]
    pub(super) fn message(self, field: u32, value: &Self) -> Self {
        self.data(field, &value.bytes)
    }

    /// One field for each of `values`.
    #[must_use]
    pub(super) fn each<T>(self, values: impl IntoIterator<Item = T>, mut add: impl FnMut(Self, T) -> Self) -> Self {
        let mut message = self;
        for value in values {
            message = add(message, value);
        }
        message
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.bytes.push(value.to_le_bytes()[0]);
    }
}
