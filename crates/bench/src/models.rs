//! The models of the measurements and one request to each.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use smallvec::SmallVec;
use tenantry_types::testing::onnx;
use tenantry_types::{DataType, Tensor};

/// The fetched files.
#[derive(Debug)]
pub(crate) struct Models {
    pub(crate) library: PathBuf,
    folder: PathBuf,
}

/// A model under measurement.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) model: Vec<u8>,
    /// One request's inputs: a single row, unless made by [`Subject::with_rows`].
    pub(crate) row: Vec<Tensor>,
}

impl Subject {
    /// The same with the one row repeated: a request of `rows` rows.
    pub(crate) fn with_rows(&self, rows: u64) -> Self {
        let repeated = |tensor: &Tensor| {
            let mut shape = tensor.shape.clone();
            if let Some(first) = shape.first_mut() {
                *first = rows;
            }
            let data = tensor.data.to_contiguous().repeat(rows as usize);
            Tensor { shape, data: data.into(), ..tensor.clone() }
        };
        Self { row: self.row.iter().map(repeated).collect(), ..self.clone() }
    }
}

impl Models {
    pub(crate) fn find(cache: &Path) -> Result<Self> {
        let library = match std::env::var_os("TENANTRY_ONNXRUNTIME") {
            Some(path) => path.into(),
            None => cache.join("onnxruntime/1.31.1/libonnxruntime.so.1.31.1"),
        };
        anyhow::ensure!(library.exists(), "the runtime's library is not there: run `make fetch` first");
        Ok(Self { library: std::path::absolute(library)?, folder: cache.join("models") })
    }

    pub(crate) fn read(&self, file: &str) -> Result<Vec<u8>> {
        std::fs::read(self.folder.join(file)).with_context(|| format!("{file} is not there: run `make fetch` first"))
    }

    /// Sentence embedding, 64 tokens.
    pub(crate) fn embedding(&self) -> Result<Subject> {
        let tokens: Vec<i64> = (0..64).map(|index| 1000 + index * 7).collect();
        let row = vec![
            integers("input_ids", &tokens),
            integers("attention_mask", &[1; 64]),
            integers("token_type_ids", &[0; 64]),
        ];
        Ok(Subject { name: "embedding", model: self.read("minilm/model.onnx")?, row })
    }

    /// Image classification, 224 x 224.
    pub(crate) fn image(&self) -> Result<Subject> {
        let pixels = (0..224 * 224 * 3).flat_map(|index: u32| ((index % 255) as f32 - 117.0).to_le_bytes());
        let row = vec![tensor("input_0", DataType::Fp32, &[1, 224, 224, 3], pixels.collect())];
        Ok(Subject { name: "image", model: self.read("nsfw/open_nsfw.onnx")?, row })
    }

    /// File type from 2,048 bytes, a model of 3 MiB.
    pub(crate) fn file_type(&self) -> Result<Subject> {
        let bytes = (0..2048).flat_map(|index: i32| (index % 257).to_le_bytes());
        let row = vec![tensor("bytes", DataType::Int32, &[1, 2048], bytes.collect())];
        Ok(Subject { name: "file-type", model: self.read("magika/model.onnx")?, row })
    }

    /// A product with a 16 x 16 matrix: about as small as a model gets.
    pub(crate) fn matmul() -> Subject {
        let row = (0..16).flat_map(|index| (index as f32).to_le_bytes());
        Subject {
            name: "matmul",
            model: onnx::matmul16(),
            row: vec![tensor("x", DataType::Fp32, &[1, 16], row.collect())],
        }
    }
}

pub(crate) fn tensor(name: &str, datatype: DataType, shape: &[u64], data: Vec<u8>) -> Tensor {
    Tensor { name: name.to_owned(), datatype, shape: SmallVec::from_slice(shape), data: data.into() }
}

pub(crate) fn integers(name: &str, values: &[i64]) -> Tensor {
    let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(name, DataType::Int64, &[1, values.len() as u64], data)
}
