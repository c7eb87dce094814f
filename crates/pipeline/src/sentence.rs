//! Sentence embeddings: tokens for a BERT-like encoder, and its hidden states pooled to one unit vector a sentence.
//!
//! As sentence-transformers does it for all-MiniLM-L6-v2: word pieces cut at the tokenizer's length, the mean of the
//! last hidden state over the real tokens, then the L2 norm, so that the cosine of two sentences is a dot product.

use tokenizers::{Encoding, Token, Tokenizer, TruncationParams};

/// The most sentences encoded at once.
pub const MAX_SENTENCES: usize = 1024;
/// The longest sentence, bytes. The tokenizer reads all of it before it cuts, so the text itself needs a bound.
pub const MAX_SENTENCE_BYTES: usize = 64 << 10;

/// The tokenizer's file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the tokenizer's file is malformed: {0}")]
pub struct OpenError(String);

/// Sentences that cannot be encoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EncodeError {
    /// More than [`MAX_SENTENCES`], or none.
    #[error("{0} sentences; between 1 and {MAX_SENTENCES} are encoded at once")]
    Count(usize),
    /// Longer than [`MAX_SENTENCE_BYTES`].
    #[error("a sentence of {0} bytes; at most {MAX_SENTENCE_BYTES} are read")]
    Long(usize),
    /// Not an id of the tokenizer's.
    #[error("the tokenizer has no token {0}")]
    Unknown(u32),
    /// The tokenizer refused.
    #[error("the tokenizer failed: {0}")]
    Tokenizer(String),
}

/// Sentences as the encoder's three inputs, each `rows * tokens` long and row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// How many sentences.
    pub rows: usize,
    /// Tokens a row, the longest sentence's; shorter ones are padded.
    pub tokens: usize,
    /// The input `input_ids`.
    pub input_ids: Vec<i64>,
    /// The input `attention_mask`: 1 for a real token, 0 for padding.
    pub attention_mask: Vec<i64>,
    /// The input `token_type_ids`.
    pub token_type_ids: Vec<i64>,
}

/// A tokenizer read from its `tokenizer.json`.
#[derive(Debug)]
pub struct Sentences {
    tokenizer: Tokenizer,
    padding_id: i64,
    padding_type_id: i64,
}

/// A text, or the tokens it has been cut into already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text<'a> {
    /// To be cut.
    Words(&'a str),
    /// Ids of the tokenizer's own vocabulary, without the special tokens around them.
    Ids(Vec<u32>),
}

/// What an element begins with that holds ids: no UTF-8 text begins like this.
pub const IDS_MARK: u8 = 0xff;

impl<'a> Text<'a> {
    /// Reads an element of a `BYTES` tensor: text, or [`IDS_MARK`] and ids as little-endian u32.
    pub fn read(element: &'a [u8]) -> Option<Self> {
        match element.split_first() {
            Some((&IDS_MARK, ids)) => {
                let (ids, rest) = ids.as_chunks::<4>();
                rest.is_empty().then(|| Self::Ids(ids.iter().map(|id| u32::from_le_bytes(*id)).collect()))
            }
            _ => std::str::from_utf8(element).ok().map(Self::Words),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Words(words) => words.len(),
            Self::Ids(ids) => ids.len().saturating_mul(size_of::<u32>()),
        }
    }
}

impl Sentences {
    /// Reads a `tokenizer.json`. Its truncation is kept unless `max_tokens` says otherwise; its padding becomes "as long as
    /// the longest of the batch".
    pub fn open(tokenizer: &[u8], max_tokens: Option<usize>) -> Result<Self, OpenError> {
        let mut tokenizer = Tokenizer::from_bytes(tokenizer).map_err(|error| OpenError(error.to_string()))?;
        let padding = tokenizer.get_padding().cloned().unwrap_or_default();
        // A file may ask for rows of a fixed length, which costs the encoder several times its work on short sentences.
        tokenizer.with_padding(None);
        if let Some(max_length) = max_tokens {
            let truncation = tokenizer.get_truncation().cloned().unwrap_or_default();
            tokenizer
                .with_truncation(Some(TruncationParams { max_length, ..truncation }))
                .map_err(|error| OpenError(error.to_string()))?;
        }
        Ok(Self { tokenizer, padding_id: padding.pad_id.into(), padding_type_id: padding.pad_type_id.into() })
    }

    /// Encodes texts into one batch.
    pub fn encode(&self, texts: &[Text<'_>]) -> Result<Encoded, EncodeError> {
        if texts.is_empty() || texts.len() > MAX_SENTENCES {
            return Err(EncodeError::Count(texts.len()));
        }
        if let Some(long) = texts.iter().map(Text::bytes).find(|bytes| *bytes > MAX_SENTENCE_BYTES) {
            return Err(EncodeError::Long(long));
        }
        // One after another: the library's own batches start a thread pool, which does not belong into a worker.
        let encodings: Vec<Encoding> = texts.iter().map(|text| self.encode_one(text)).collect::<Result<_, _>>()?;
        let tokens = encodings.iter().map(|encoding| encoding.get_ids().len()).max().unwrap_or(0);
        let column = |pick: fn(&Encoding) -> &[u32], padding: i64| {
            let rows = encodings.iter().map(|encoding| pick(encoding).iter().copied().map(i64::from));
            rows.flat_map(|row| row.chain(std::iter::repeat(padding)).take(tokens)).collect::<Vec<i64>>()
        };
        Ok(Encoded {
            rows: texts.len(),
            tokens,
            input_ids: column(Encoding::get_ids, self.padding_id),
            attention_mask: column(Encoding::get_attention_mask, 0),
            token_type_ids: column(Encoding::get_type_ids, self.padding_type_id),
        })
    }

    fn encode_one(&self, text: &Text<'_>) -> Result<Encoding, EncodeError> {
        let failed = |error: tokenizers::Error| EncodeError::Tokenizer(error.to_string());
        match text {
            Text::Words(words) => self.tokenizer.encode(*words, true).map_err(failed),
            Text::Ids(ids) => {
                let token = |id: &u32| {
                    let value = self.tokenizer.id_to_token(*id).ok_or(EncodeError::Unknown(*id))?;
                    Ok(Token::new(*id, value, (0, 0)))
                };
                let tokens = ids.iter().map(token).collect::<Result<Vec<_>, _>>()?;
                self.tokenizer.post_process(Encoding::from_tokens(tokens, 0), None, true).map_err(failed)
            }
        }
    }
}

/// The cosine of two unit vectors: 1 for the same meaning, about 0 for unrelated ones.
pub fn cosine(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests;
