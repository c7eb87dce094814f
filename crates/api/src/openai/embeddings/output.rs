//! The answer: vectors as numbers or as base64, and how many tokens they were made of.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tenantry_oip::compression::Coding;
use tenantry_types::{DataType, InferResponse, Tensor};

use super::{EMBEDDING, TOKEN_COUNT, too_wide_text};
use crate::flow::{Encode, Unencodable, json_reply};
use crate::reply::Reply;

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// As numbers.
    #[default]
    Float,
    /// As the bytes of FP32 numbers, little-endian.
    Base64,
}

/// How an answer is written.
pub(super) struct Vectors {
    /// As the caller named it.
    pub(super) model: String,
    pub(super) format: Format,
    /// To how many numbers vectors are cut.
    pub(super) dimensions: Option<u64>,
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Embedding>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Floats(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: i64,
    total_tokens: i64,
}

impl Encode for Vectors {
    fn encode(self, response: &InferResponse, accepted: Option<Coding>) -> Result<Reply, Unencodable> {
        let Self { model, format, dimensions } = self;
        let broken = || Unencodable::Broken("the outputs are not those of embeddings".to_owned());
        let [embedding, tokens] = response.outputs.as_slice() else { return Err(broken()) };
        let rows = rows_of(embedding).ok_or_else(broken)?;
        let tokens = token_count(tokens).ok_or_else(broken)?;
        let mut data = Vec::with_capacity(rows.len());
        for (index, mut row) in rows.into_iter().enumerate() {
            if let Some(dimensions) = dimensions {
                row = cut(row, dimensions).map_err(|width| Unencodable::AsAsked(too_wide_text(dimensions, width)))?;
            }
            if format == Format::Float && !row.iter().all(|value| value.is_finite()) {
                let text = "an embedding has a NaN or an infinity, which JSON cannot carry; ask for base64";
                return Err(Unencodable::AsAsked(text.to_owned()));
            }
            let embedding = match format {
                Format::Float => Vector::Floats(row),
                Format::Base64 => {
                    let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
                    Vector::Base64(STANDARD.encode(bytes))
                }
            };
            data.push(Embedding { object: "embedding", index, embedding });
        }
        let usage = Usage { prompt_tokens: tokens, total_tokens: tokens };
        let list = List { object: "list", data, model: &model, usage };
        let json = serde_json::to_vec(&list).map_err(|error| Unencodable::Broken(error.to_string()))?;
        Ok(json_reply(json.into(), accepted))
    }
}

/// The vectors of the tensor `embedding`.
fn rows_of(tensor: &Tensor) -> Option<Vec<Vec<f32>>> {
    let &[rows, width] = tensor.shape.as_slice() else { return None };
    let data = tensor.data.to_contiguous();
    let is_whole = rows.checked_mul(width)?.checked_mul(4)? == data.len() as u64;
    if tensor.name != EMBEDDING || tensor.datatype != DataType::Fp32 || !is_whole || width == 0 {
        return None;
    }
    let row_bytes = usize::try_from(width).ok()?.checked_mul(4)?;
    let floats = |row: &[u8]| row.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    Some(data.chunks_exact(row_bytes).map(floats).collect())
}

/// The sum of the tensor `token_count`.
fn token_count(tensor: &Tensor) -> Option<i64> {
    if tensor.name != TOKEN_COUNT || tensor.datatype != DataType::Int64 {
        return None;
    }
    let data = tensor.data.to_contiguous();
    Some(data.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).fold(0, i64::saturating_add))
}

/// The first numbers of a vector, brought back to length one (Kusupati et al., "Matryoshka Representation Learning", 2022:
/// models made for it keep what matters in front).
///
/// # Errors
/// How many numbers it has, if they are fewer.
fn cut(mut row: Vec<f32>, dimensions: u64) -> Result<Vec<f32>, u64> {
    let width = row.len() as u64;
    match usize::try_from(dimensions) {
        Ok(_) if dimensions == width => Ok(row),
        Ok(count) if dimensions < width => {
            row.truncate(count);
            let norm = row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            if norm > 0.0 {
                row.iter_mut().for_each(|value| *value = (f64::from(*value) / norm) as f32);
            }
            Ok(row)
        }
        _ => Err(width),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    use super::*;

    fn tensor(name: &str, datatype: DataType, shape: &[u64], data: Vec<u8>) -> Tensor {
        Tensor { name: name.to_owned(), datatype, shape: shape.into(), data: data.into() }
    }

    fn answer(rows: &[[f32; 2]]) -> InferResponse {
        let count = rows.len() as u64;
        let data = rows.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
        let tokens = (0..count as i64).flat_map(|index| (index + 3).to_le_bytes()).collect();
        InferResponse {
            model: "acme/m".parse().unwrap(),
            version: "1".to_owned(),
            id: None,
            outputs: vec![
                tensor(EMBEDDING, DataType::Fp32, &[count, 2], data),
                tensor(TOKEN_COUNT, DataType::Int64, &[count], tokens),
            ],
        }
    }

    async fn encoded(rows: &[[f32; 2]], format: Format, dimensions: Option<u64>) -> Result<Value, String> {
        let vectors = Vectors { model: "m".to_owned(), format, dimensions };
        match vectors.encode(&answer(rows), None) {
            Ok(reply) => Ok(serde_json::from_slice(&reply.into_body().collect().await.unwrap().to_bytes()).unwrap()),
            Err(Unencodable::AsAsked(text) | Unencodable::Broken(text)) => Err(text),
        }
    }

    #[tokio::test]
    async fn vectors_come_as_numbers_or_base64_with_their_usage() {
        let rows = [[0.5, -1.0], [2.0, 0.25]];
        let list = encoded(&rows, Format::Float, None).await.unwrap();
        let entry = |index: usize| json!({ "object": "embedding", "index": index, "embedding": rows[index] });
        assert_eq!(
            list,
            json!({
                "object": "list",
                "data": [entry(0), entry(1)],
                "model": "m",
                "usage": { "prompt_tokens": 7, "total_tokens": 7 },
            })
        );
        let list = encoded(&rows[..1], Format::Base64, None).await.unwrap();
        assert_eq!(list["data"][0]["embedding"], "AAAAPwAAgL8=");
        let nan = [[f32::NAN, 0.0]];
        assert!(encoded(&nan, Format::Float, None).await.unwrap_err().contains("base64"));
        assert!(encoded(&nan, Format::Base64, None).await.is_ok());
    }

    #[tokio::test]
    async fn cut_vectors_have_length_one() {
        let list = encoded(&[[-0.5, 3.0]], Format::Float, Some(1)).await.unwrap();
        assert_eq!(list["data"][0]["embedding"], json!([-1.0]));
        let list = encoded(&[[-0.5, 3.0]], Format::Float, Some(2)).await.unwrap();
        assert_eq!(list["data"][0]["embedding"], json!([-0.5, 3.0]));
        assert!(encoded(&[[-0.5, 3.0]], Format::Float, Some(3)).await.unwrap_err().contains("have 2 numbers"));
        assert_eq!(cut(vec![3.0, 4.0, 9.0], 2), Ok(vec![0.6, 0.8]));
        assert_eq!(cut(vec![0.0, 0.0, 1.0], 2), Ok(vec![0.0, 0.0]));
    }

    #[test]
    fn other_outputs_are_the_models_fault() {
        let mut response = answer(&[[1.0, 2.0]]);
        response.outputs[0].shape = [1, 3].as_slice().into();
        let vectors = Vectors { model: "m".to_owned(), format: Format::Float, dimensions: None };
        assert!(matches!(vectors.encode(&response, None), Err(Unencodable::Broken(_))));
    }
}
