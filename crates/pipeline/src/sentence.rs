//! Sentence embeddings: tokens for a BERT-like encoder, and its hidden states pooled to one unit vector a sentence.
//!
//! As sentence-transformers does it for all-MiniLM-L6-v2: word pieces cut at the tokenizer's length, the mean of the
//! last hidden state over the real tokens, then the L2 norm, so that the cosine of two sentences is a dot product.

use tokenizers::{Encoding, Tokenizer};

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
    /// The tokenizer refused.
    #[error("the tokenizer failed: {0}")]
    Tokenizer(String),
}

/// The hidden states do not have the extents they were said to have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{found} hidden values; {expected} were expected")]
pub struct PoolError {
    /// How many values came.
    pub found: usize,
    /// How many rows x tokens x width are.
    pub expected: usize,
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

impl Sentences {
    /// Reads a `tokenizer.json`. Its truncation is kept; its padding becomes "as long as the longest of the batch".
    pub fn open(tokenizer: &[u8]) -> Result<Self, OpenError> {
        let mut tokenizer = Tokenizer::from_bytes(tokenizer).map_err(|error| OpenError(error.to_string()))?;
        let padding = tokenizer.get_padding().cloned().unwrap_or_default();
        // A file may ask for rows of a fixed length, which costs the encoder several times its work on short sentences.
        tokenizer.with_padding(None);
        Ok(Self { tokenizer, padding_id: padding.pad_id.into(), padding_type_id: padding.pad_type_id.into() })
    }

    /// Encodes sentences into one batch.
    pub fn encode(&self, sentences: &[&str]) -> Result<Encoded, EncodeError> {
        if sentences.is_empty() || sentences.len() > MAX_SENTENCES {
            return Err(EncodeError::Count(sentences.len()));
        }
        if let Some(long) = sentences.iter().map(|sentence| sentence.len()).find(|bytes| *bytes > MAX_SENTENCE_BYTES) {
            return Err(EncodeError::Long(long));
        }
        // One after another: the library's own batches start a thread pool, which does not belong into a worker.
        let mut encodings = Vec::with_capacity(sentences.len());
        for sentence in sentences {
            let encoding = self.tokenizer.encode(*sentence, true);
            encodings.push(encoding.map_err(|error| EncodeError::Tokenizer(error.to_string()))?);
        }
        let tokens = encodings.iter().map(|encoding| encoding.get_ids().len()).max().unwrap_or(0);
        let column = |pick: fn(&Encoding) -> &[u32], padding: i64| {
            let rows = encodings.iter().map(|encoding| pick(encoding).iter().copied().map(i64::from));
            rows.flat_map(|row| row.chain(std::iter::repeat(padding)).take(tokens)).collect::<Vec<i64>>()
        };
        Ok(Encoded {
            rows: sentences.len(),
            tokens,
            input_ids: column(Encoding::get_ids, self.padding_id),
            attention_mask: column(Encoding::get_attention_mask, 0),
            token_type_ids: column(Encoding::get_type_ids, self.padding_type_id),
        })
    }
}

/// Pools the encoder's last hidden state, `rows x tokens x width`, to one unit vector a row.
///
/// `attention_mask` is the one that was sent, `rows x tokens`. A row without a real token becomes the zero vector.
pub fn pool(hidden: &[f32], attention_mask: &[i64], tokens: usize, width: usize) -> Result<Vec<Vec<f32>>, PoolError> {
    let expected = attention_mask.len().saturating_mul(width);
    if hidden.len() != expected || width == 0 || tokens == 0 || !attention_mask.len().is_multiple_of(tokens) {
        return Err(PoolError { found: hidden.len(), expected });
    }
    let rows = hidden.chunks_exact(tokens * width).zip(attention_mask.chunks_exact(tokens));
    Ok(rows.map(|(hidden, mask)| pool_row(hidden, mask, width)).collect())
}

fn pool_row(hidden: &[f32], mask: &[i64], width: usize) -> Vec<f32> {
    let mut sum = vec![0.0_f32; width];
    // The mean's divisor is left out: the norm that follows takes any factor away.
    for (state, _) in hidden.chunks_exact(width).zip(mask).filter(|(_, mask)| **mask != 0) {
        for (total, value) in sum.iter_mut().zip(state) {
            *total += value;
        }
    }
    let norm = sum.iter().map(|value| value * value).sum::<f32>().sqrt();
    if norm > 0.0 {
        for value in &mut sum {
            *value /= norm;
        }
    }
    sum
}

/// The cosine of two unit vectors: 1 for the same meaning, about 0 for unrelated ones.
pub fn cosine(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests;
