//! Protocol Buffers on the wire ("Encoding", developers' guide of Protocol Buffers 3): keys, varints, lengths.
//!
//! By hand, where a generated reader would do for anybody trusted: that one makes a struct of a hundred bytes of every two
//! bytes of an empty sub-message before anything can count them, and joins a chain of buffers before it reads it.

use bytes::Bytes;
use tenantry_types::Payload;

/// The longest varint: ten groups of seven bits.
const MAX_VARINT_BYTES: usize = 10;

/// Bytes that are not a message. The texts are for whoever sent them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The data ends inside a field.
    #[error("it ends inside a field")]
    Truncated,
    /// More than 64 bits.
    #[error("a number has more than 64 bits")]
    Varint,
    /// Field number 0, or one beyond 29 bits.
    #[error("a field has a number that no field has")]
    Number,
    /// A group, which Protocol Buffers 3 do not have, or a type there is not.
    #[error("a field has a wire type that Protocol Buffers 3 do not have")]
    Type,
    /// Another wire type than the field has in the protocol.
    #[error("field {0} is not of its type")]
    Mistyped(u32),
    /// A text that is none.
    #[error("field {0} is not UTF-8 text")]
    Text(u32),
}

/// The key of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) number: u32,
    pub(crate) kind: Kind,
}

/// How a field's value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Varint,
    Fixed64,
    Delimited,
    Fixed32,
}

impl Key {
    fn of(key: u64) -> Result<Self, WireError> {
        let number = u32::try_from(key >> 3).ok().filter(|number| (1..1 << 29).contains(number));
        let kind = match key & 7 {
            0 => Kind::Varint,
            1 => Kind::Fixed64,
            2 => Kind::Delimited,
            5 => Kind::Fixed32,
            _ => return Err(WireError::Type),
        };
        Ok(Self { number: number.ok_or(WireError::Number)?, kind })
    }
}

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Delimited(&'a [u8]),
    Fixed32([u8; 4]),
}

/// Reads the fields of a message that lies in one buffer.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Reads the next number.
    pub(crate) fn varint(&mut self) -> Result<u64, WireError> {
        let (value, bytes) = varint(self.rest.iter().copied())?;
        self.take(bytes)?;
        Ok(value)
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    fn value(&mut self, kind: Kind) -> Result<Value<'a>, WireError> {
        Ok(match kind {
            Kind::Varint => Value::Varint(self.varint()?),
            Kind::Fixed64 => Value::Fixed64(*self.take(8)?.first_chunk().ok_or(WireError::Truncated)?),
            Kind::Delimited => {
                let length = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
                Value::Delimited(self.take(length)?)
            }
            Kind::Fixed32 => Value::Fixed32(*self.take(4)?.first_chunk().ok_or(WireError::Truncated)?),
        })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), WireError>;

    /// After an error there is nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.varint().and_then(Key::of).and_then(|key| Ok((key.number, self.value(key.kind)?)));
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

impl<'a> Value<'a> {
    /// A sub-message, a text, bytes, or packed numbers.
    pub(crate) fn delimited(self, number: u32) -> Result<&'a [u8], WireError> {
        match self {
            Self::Delimited(bytes) => Ok(bytes),
            _ => Err(WireError::Mistyped(number)),
        }
    }

    pub(crate) fn text(self, number: u32) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.delimited(number)?).map_err(|_| WireError::Text(number))
    }

    pub(crate) fn number(self, number: u32) -> Result<u64, WireError> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(WireError::Mistyped(number)),
        }
    }
}

/// Reads a number from the front, and how many bytes it took.
fn varint(bytes: impl Iterator<Item = u8>) -> Result<(u64, usize), WireError> {
    let mut value = 0_u64;
    for (index, byte) in bytes.take(MAX_VARINT_BYTES).enumerate() {
        let group = u64::from(byte & 0x7f);
        // Of the tenth group, one bit is left.
        if index + 1 == MAX_VARINT_BYTES && byte > 1 {
            return Err(WireError::Varint);
        }
        value |= group << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, index + 1));
        }
    }
    Err(WireError::Truncated)
}

/// Reads the fields of a message that may lie in several buffers, and takes none of them apart.
#[derive(Debug)]
pub(crate) struct Chain {
    /// In reverse, so that the next one is the last.
    parts: Vec<Bytes>,
    left: usize,
}

impl Chain {
    pub(crate) fn new(payload: &Payload) -> Self {
        Self { parts: payload.parts().iter().rev().cloned().collect(), left: payload.len() }
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.left == 0
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<Payload, WireError> {
        self.left = self.left.checked_sub(count).ok_or(WireError::Truncated)?;
        let (mut taken, mut missing) = (Payload::new(), count);
        while missing > 0 {
            let mut part = self.parts.pop().ok_or(WireError::Truncated)?;
            if part.len() > missing {
                taken.push(part.split_to(missing));
                self.parts.push(part);
                break;
            }
            missing -= part.len();
            taken.push(part);
        }
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let (value, bytes) = varint(self.parts.iter().rev().flat_map(|part| part.iter().copied()))?;
        self.take(bytes)?;
        Ok(value)
    }

    /// The next field's number and its bytes, if its value is delimited.
    pub(crate) fn field(&mut self) -> Result<(u32, Option<Payload>), WireError> {
        let key = Key::of(self.varint()?)?;
        let value = match key.kind {
            Kind::Varint => {
                self.varint()?;
                None
            }
            Kind::Fixed64 => {
                self.take(8)?;
                None
            }
            Kind::Fixed32 => {
                self.take(4)?;
                None
            }
            Kind::Delimited => {
                let length = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
                Some(self.take(length)?)
            }
        };
        Ok((key.number, value))
    }
}

/// Appends a number.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the key and the length of a delimited value.
pub(crate) fn put_length(out: &mut Vec<u8>, number: u32, length: usize) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, length as u64);
}

/// Appends a delimited value.
pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    put_length(out, number, value.len());
    out.extend_from_slice(value);
}

/// Appends a number's field.
pub(crate) fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A field's number, and its value where that is delimited.
    type Field = (u32, Option<Vec<u8>>);

    fn cut(data: &[u8], part_bytes: usize) -> Payload {
        let mut payload = Payload::new();
        data.chunks(part_bytes.max(1)).for_each(|part| payload.push(Bytes::copy_from_slice(part)));
        payload
    }

    proptest! {
        #[test]
        fn numbers_come_back(value in any::<u64>(), shift in 0..64_u32) {
            let value = value >> shift;
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(varint(out.iter().copied()), Ok((value, out.len())));
            prop_assert_eq!(varint(out.iter().copied().take(out.len() - 1)), Err(WireError::Truncated));
        }

        #[test]
        fn both_readers_agree_on_any_bytes(data in prop::collection::vec(any::<u8>(), 0..80), part_bytes in 1..9_usize) {
            let in_one: Result<Vec<Field>, WireError> = Fields::new(&data)
                .map(|field| field.map(|(number, value)| (number, value.delimited(number).ok().map(<[u8]>::to_vec))))
                .collect();
            let mut chain = Chain::new(&cut(&data, part_bytes));
            let mut in_parts = Ok(Vec::new());
            while !chain.is_at_end() {
                match chain.field() {
                    Ok((number, value)) => {
                        let value = value.map(|value| value.to_contiguous().to_vec());
                        in_parts.as_mut().unwrap().push((number, value));
                    }
                    Err(error) => {
                        in_parts = Err(error);
                        break;
                    }
                }
            }
            prop_assert_eq!(in_one, in_parts);
        }
    }

    #[test]
    fn what_no_message_holds_is_refused() {
        let first = |bytes: &[u8]| Fields::new(bytes).next().unwrap().unwrap_err();
        assert_eq!(first(&[0x00]), WireError::Number);
        assert_eq!(first(&[0x0b]), WireError::Type);
        assert_eq!(first(&[0x0a, 5, b'a']), WireError::Truncated);
        assert_eq!(first(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), WireError::Varint);
        // A length of nearly 2^64 must not wrap.
        assert_eq!(first(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), WireError::Truncated);
    }
}
