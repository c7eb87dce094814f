//! The questions: files and sentences as they are, asked over HTTP; what is done to them is done in the workers.

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use tenantry_types::{DataType, InferRequest, InferResponse, Inputs, OutputRequest, Shape, Tensor};

use super::material::{Material, NamedFile, SENTENCES};
use super::publish::{Actor, Stage};
use crate::client::Refused;

/// How much of a sound one probability is of.
const FRAME_SECONDS: f32 = 0.032;

/// Everything that was answered.
#[derive(Debug, Serialize)]
pub(super) struct Answers {
    pub(super) files: Vec<FileAnswer>,
    pub(super) sentences: Vec<Pair>,
    pub(super) pictures: Vec<PictureAnswer>,
    pub(super) sounds: Vec<SoundAnswer>,
    pub(super) private: Private,
}

/// What type a file is, as the tenant's own model and as the shared one see it.
#[derive(Debug, Serialize)]
pub(super) struct FileAnswer {
    pub(super) file: String,
    pub(super) label: String,
    pub(super) description: String,
    pub(super) score: f32,
}

/// How close two sentences are: the cosine, 1 for the same meaning.
#[derive(Debug, Serialize)]
pub(super) struct Pair {
    pub(super) one: &'static str,
    pub(super) other: &'static str,
    pub(super) closeness: f32,
}

/// How safe a picture is, 0 to 1.
#[derive(Debug, Serialize)]
pub(super) struct PictureAnswer {
    pub(super) picture: String,
    pub(super) safe: f32,
}

/// Where speech is in a sound, seconds.
#[derive(Debug, Serialize)]
pub(super) struct SoundAnswer {
    pub(super) sound: String,
    pub(super) seconds: f32,
    pub(super) speech: Vec<(f32, f32)>,
    pub(super) probabilities: Vec<f32>,
}

/// What acme hears when it asks for globex's own model.
#[derive(Debug, Serialize)]
pub(super) struct Private {
    pub(super) model: &'static str,
    pub(super) status: u16,
    pub(super) message: String,
}

pub(super) fn everything(stage: &Stage, material: &Material) -> Result<Answers> {
    let pictures = material.pictures.iter().map(|picture| is_safe(&stage.acme, picture));
    let sounds = material.sounds.iter().map(|sound| where_is_speech(&stage.globex, sound));
    Ok(Answers {
        files: file_types(&stage.acme, material).context("asking acme's own model file-type")?,
        sentences: closest(&stage.globex).context("asking globex's own model sentences")?,
        pictures: pictures.collect::<Result<_>>().context("asking platform/picture-safety")?,
        sounds: sounds.collect::<Result<_>>().context("asking platform/speech")?,
        private: private(stage)?,
    })
}

/// All files in one request: one row each.
fn file_types(actor: &Actor, material: &Material) -> Result<Vec<FileAnswer>> {
    let contents: Vec<&[u8]> = material.files.iter().map(|file| file.content.as_slice()).collect();
    let response = actor.client.infer(&request("file-type", vec![texts("file", &contents)], &[])?)?;
    let (labels, descriptions) = (strings(&response, "label")?, strings(&response, "description")?);
    let scores = floats(&response, "score")?;
    let words = labels.into_iter().zip(descriptions).zip(scores);
    let answer = |(file, ((label, description), score)): (&NamedFile, ((String, String), f32))| FileAnswer {
        file: file.name.clone(),
        label,
        description,
        score,
    };
    Ok(material.files.iter().zip(words).map(answer).collect())
}

/// Every pair of sentences, the closest first: the cosine of two unit vectors is their dot product.
fn closest(actor: &Actor) -> Result<Vec<Pair>> {
    let response = actor.client.infer(&request("sentences", vec![texts("text", &SENTENCES)], &["embedding"])?)?;
    let vectors = floats(&response, "embedding")?;
    let rows: Vec<&[f32]> = vectors.chunks_exact((vectors.len() / SENTENCES.len()).max(1)).collect();
    let meanings: Vec<(&'static str, &[f32])> = SENTENCES.into_iter().zip(rows).collect();
    let mut pairs = Vec::new();
    for (index, (one, vector)) in meanings.iter().enumerate() {
        for (other, other_vector) in meanings.iter().skip(index + 1) {
            let closeness = vector.iter().zip(*other_vector).map(|(a, b)| a * b).sum();
            pairs.push(Pair { one, other, closeness });
        }
    }
    pairs.sort_by(|one, other| other.closeness.total_cmp(&one.closeness));
    Ok(pairs)
}

fn is_safe(actor: &Actor, picture: &NamedFile) -> Result<PictureAnswer> {
    let input = texts("image", &[&picture.content]);
    let response = actor.client.infer(&request("platform/picture-safety", vec![input], &["probabilities"])?)?;
    let safe = floats(&response, "probabilities")?.first().copied().context("the model gave no score")?;
    Ok(PictureAnswer { picture: picture.name.clone(), safe })
}

fn where_is_speech(actor: &Actor, sound: &NamedFile) -> Result<SoundAnswer> {
    let input = texts("sound", &[&sound.content]);
    let response = actor.client.infer(&request("platform/speech", vec![input], &[])?)?;
    let speech = floats(&response, "speech")?;
    let probabilities = floats(&response, "probability")?;
    Ok(SoundAnswer {
        sound: sound.name.clone(),
        seconds: probabilities.len() as f32 * FRAME_SECONDS,
        speech: speech.as_chunks::<2>().0.iter().map(|[start, end]| (*start, *end)).collect(),
        probabilities,
    })
}

/// A tenant asks for another's private model: it must look as if there were none.
fn private(stage: &Stage) -> Result<Private> {
    const MODEL: &str = "globex/sentences";
    let asked: Result<serde_json::Value> = stage.acme.client.get(&format!("/v2/models/{MODEL}"));
    match asked {
        Ok(_) => bail!("acme can see {MODEL}, which is globex's own"),
        Err(error) => match error.downcast_ref::<Refused>() {
            Some(refused) if refused.status == 404 => {
                Ok(Private { model: MODEL, status: refused.status, message: refused.message.clone() })
            }
            _ => Err(error.context("acme asking for globex's model")),
        },
    }
}

/// A request for outputs by name; none means all.
pub(super) fn request(model: &str, inputs: Vec<Tensor>, outputs: &[&str]) -> Result<InferRequest> {
    Ok(InferRequest {
        outputs: outputs.iter().map(|name| OutputRequest { name: (*name).to_owned() }).collect(),
        ..InferRequest::new(model.parse()?, Inputs::Named(inputs))
    })
}

/// Texts or files as one input, a row each.
pub(super) fn texts<T: AsRef<[u8]>>(name: &str, elements: &[T]) -> Tensor {
    let mut data = Vec::new();
    for element in elements {
        let element = element.as_ref();
        data.extend_from_slice(&u32::try_from(element.len()).unwrap_or(u32::MAX).to_le_bytes());
        data.extend_from_slice(element);
    }
    let shape: Shape = [elements.len() as u64].into_iter().collect();
    Tensor { name: name.to_owned(), datatype: DataType::Bytes, shape, data: data.into() }
}

fn output<'a>(response: &'a InferResponse, name: &str) -> Result<&'a Tensor> {
    let output = response.outputs.iter().find(|output| output.name == name);
    output.with_context(|| format!("the answer has no output `{name}`"))
}

fn strings(response: &InferResponse, name: &str) -> Result<Vec<String>> {
    let data = output(response, name)?.data.to_contiguous();
    let (mut rest, mut strings) = (&data[..], Vec::new());
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let (text, tail) = tail.split_at_checked(length).context("the answer is cut off")?;
        strings.push(String::from_utf8_lossy(text).into_owned());
        rest = tail;
    }
    Ok(strings)
}

fn floats(response: &InferResponse, name: &str) -> Result<Vec<f32>> {
    let data = output(response, name)?.data.to_contiguous();
    Ok(data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}
