//! gRPC's length-prefixed messages ("gRPC over HTTP2", section Length-Prefixed-Message).

/// Bytes in front of a message: whether it is compressed, and its length.
pub const PREFIX_BYTES: usize = 5;

/// What the bytes in front of a message say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// Whether the message is compressed, as the call's `grpc-encoding` says.
    pub is_compressed: bool,
    /// Bytes of the message as it was sent.
    pub message_bytes: u32,
}

impl Prefix {
    /// Reads them; `None` for a flag there is not.
    pub fn read(bytes: [u8; PREFIX_BYTES]) -> Option<Self> {
        let [flag, length @ ..] = bytes;
        let is_compressed = match flag {
            0 => false,
            1 => true,
            _ => return None,
        };
        Some(Self { is_compressed, message_bytes: u32::from_be_bytes(length) })
    }
}

/// A message of `message_bytes` bytes behind its prefix; `None` for one that is too long for gRPC.
pub fn framed(message_bytes: usize, write: impl FnOnce(&mut Vec<u8>)) -> Option<Vec<u8>> {
    let mut framed = Vec::with_capacity(PREFIX_BYTES.saturating_add(message_bytes));
    framed.resize(PREFIX_BYTES, 0);
    write_prefix(&mut framed, u32::try_from(message_bytes).ok()?);
    write(&mut framed);
    Some(framed)
}

/// Writes those of a message into its first bytes, which were left for them.
pub(crate) fn write_prefix(message: &mut [u8], message_bytes: u32) {
    if let Some(place) = message.first_chunk_mut::<PREFIX_BYTES>() {
        let [a, b, c, d] = message_bytes.to_be_bytes();
        *place = [0, a, b, c, d];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_comes_back_and_unknown_flags_do_not() {
        let mut message = vec![9; 7];
        write_prefix(&mut message, 0x0102_0304);
        assert_eq!(message, [0, 1, 2, 3, 4, 9, 9]);
        let read = Prefix::read(*message.first_chunk().unwrap());
        assert_eq!(read, Some(Prefix { is_compressed: false, message_bytes: 0x0102_0304 }));
        assert!(Prefix::read([1, 0, 0, 0, 0]).unwrap().is_compressed);
        assert_eq!(Prefix::read([2, 0, 0, 0, 0]), None);
    }
}
