//! The field `input`: a text, texts, token ids, or lists of token ids, read straight into the bytes of one tensor.

use std::fmt;

use serde::de::{self, DeserializeSeed, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The most inputs of one call.
const MAX_INPUTS: u64 = 2048;
/// The byte before token ids. No UTF-8 text begins with it.
const TOKENS: u8 = 0xFF;

const EXPECTED: &str = "`input`: a text, a list of texts, a list of token ids, or a list of such lists";

/// The inputs of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Input {
    /// Each after its length as four bytes, little-endian.
    pub(super) framed: Vec<u8>,
    /// How many.
    pub(super) count: u64,
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut framed = Framed::default();
        deserializer.deserialize_any(Whole { framed: &mut framed })?;
        let Framed { data, count } = framed;
        Ok(Self { framed: data, count })
    }
}

/// Elements in the making.
#[derive(Default)]
struct Framed {
    data: Vec<u8>,
    count: u64,
}

impl Framed {
    fn one_more<E: de::Error>(&mut self) -> Result<(), E> {
        if self.count == MAX_INPUTS {
            return Err(E::custom(format_args!("`input` has more than {MAX_INPUTS} entries")));
        }
        self.count += 1;
        Ok(())
    }

    fn text<E: de::Error>(&mut self, text: &str) -> Result<(), E> {
        self.one_more()?;
        if text.is_empty() {
            return Err(E::custom("`input` cannot have an empty string"));
        }
        let length = u32::try_from(text.len()).map_err(|_| E::custom("a text of more than 4 GiB"))?;
        self.data.extend_from_slice(&length.to_le_bytes());
        self.data.extend_from_slice(text.as_bytes());
        Ok(())
    }

    /// Begins an element of token ids; the answer is for [`Framed::end`].
    fn begin<E: de::Error>(&mut self) -> Result<usize, E> {
        self.one_more()?;
        let start = self.data.len();
        self.data.extend_from_slice(&[0; 4]);
        self.data.push(TOKENS);
        Ok(start)
    }

    fn token(&mut self, token: u32) {
        self.data.extend_from_slice(&token.to_le_bytes());
    }

    fn end<E: de::Error>(&mut self, start: usize) -> Result<(), E> {
        let length = self.data.len() - start - 4;
        if length == 1 {
            return Err(E::custom("`input` cannot have an empty list"));
        }
        let length = u32::try_from(length).map_err(|_| E::custom("more than 4 GiB of token ids"))?;
        if let Some(place) = self.data.get_mut(start..start + 4) {
            place.copy_from_slice(&length.to_le_bytes());
        }
        Ok(())
    }
}

/// Reads all of `input`.
struct Whole<'f> {
    framed: &'f mut Framed,
}

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.framed.text(text)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut tokens = None;
        let mut first = None;
        while let Some(entry) = seq.next_element_seed(Entry { framed: &mut *self.framed })? {
            let kind = std::mem::discriminant(&entry);
            if *first.get_or_insert(kind) != kind {
                return Err(de::Error::custom("`input` has entries of different kinds"));
            }
            if let Kind::Token(token) = entry {
                if tokens.is_none() {
                    tokens = Some(self.framed.begin()?);
                }
                self.framed.token(token);
            }
        }
        match (first, tokens) {
            (None, _) => Err(de::Error::custom("`input` cannot be an empty list")),
            (Some(_), Some(start)) => self.framed.end(start),
            (Some(_), None) => Ok(()),
        }
    }
}

/// What an entry of the list was. All but single tokens are in the tensor by then.
enum Kind {
    Text,
    Token(u32),
    Tokens,
}

/// Reads one entry of the list.
struct Entry<'f> {
    framed: &'f mut Framed,
}

impl<'de> DeserializeSeed<'de> for Entry<'_> {
    type Value = Kind;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Entry<'_> {
    type Value = Kind;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Kind, E> {
        self.framed.text(text).map(|()| Kind::Text)
    }
    fn visit_u64<E: de::Error>(self, token: u64) -> Result<Kind, E> {
        let token = u32::try_from(token).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(token), &self))?;
        Ok(Kind::Token(token))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Kind, A::Error> {
        let start = self.framed.begin()?;
        while let Some(token) = seq.next_element::<u32>()? {
            self.framed.token(token);
        }
        self.framed.end(start).map(|()| Kind::Tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Input, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    fn framed(elements: &[&[u8]]) -> Vec<u8> {
        elements.iter().flat_map(|element| [&(element.len() as u32).to_le_bytes()[..], element].concat()).collect()
    }

    #[test]
    fn every_form_is_elements_of_one_tensor() {
        for (json, elements) in [
            (r#""hi""#, vec![&b"hi"[..]]),
            (r#"["a", "\u00e9"]"#, vec![b"a", "é".as_bytes()]),
            ("[7, 258]", vec![b"\xff\x07\0\0\0\x02\x01\0\0"]),
            ("[[1], [2, 3]]", vec![b"\xff\x01\0\0\0", b"\xff\x02\0\0\0\x03\0\0\0"]),
        ] {
            let count = elements.len() as u64;
            assert_eq!(read(json).unwrap(), Input { framed: framed(&elements), count }, "{json}");
        }
    }

    #[test]
    fn what_is_no_input_is_refused() {
        for (json, expected) in [
            (r#""""#, "empty string"),
            (r#"["a", ""]"#, "empty string"),
            ("[]", "empty list"),
            ("[[]]", "empty list"),
            (r#"["a", 1]"#, "different kinds"),
            ("[1, [2]]", "different kinds"),
            ("[-1]", "invalid type"),
            ("[4294967296]", "invalid value"),
            ("[[[1]]]", "invalid type"),
            ("{}", "a list of texts"),
            ("null", "a list of texts"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(expected), "{json}: {error}");
        }
        let most = |count: usize| format!("[{}]", vec!["\"a\""; count].join(","));
        assert_eq!(read(&most(2048)).unwrap().count, 2048);
        assert!(read(&most(2049)).unwrap_err().contains("more than 2048"));
        // A list of ids is one input, however long.
        assert_eq!(read(&format!("[{}]", vec!["5"; 4000].join(","))).unwrap().count, 1);
    }
}
