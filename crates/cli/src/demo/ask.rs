//! The questions: inputs prepared by `pipeline`, asked over HTTP, answers read by `pipeline`.

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use tenantry_pipeline::file_type::{FileType, Question};
use tenantry_pipeline::picture;
use tenantry_pipeline::sentence::{cosine, pool};
use tenantry_pipeline::speech::{FRAME_SAMPLES, Listener, SAMPLE_RATE_HZ, segments};
use tenantry_types::{DataType, InferRequest, InferResponse, Inputs, OutputRequest, Shape, Tensor};

use super::material::{Material, NamedFile, Picture, SENTENCES, Sound};
use super::publish::{Actor, Stage};
use crate::client::Refused;

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
    /// The frame that is most surely speech, and the state before it.
    #[serde(skip)]
    pub(super) clearest: (Vec<f32>, Vec<f32>),
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
        sentences: closest(&stage.globex, material).context("asking globex's own model sentences")?,
        pictures: pictures.collect::<Result<_>>().context("asking platform/picture-safety")?,
        sounds: sounds.collect::<Result<_>>().context("asking platform/speech")?,
        private: private(stage)?,
    })
}

/// All files that need the model in one request: one row each.
fn file_types(actor: &Actor, material: &Material) -> Result<Vec<FileAnswer>> {
    let file_types = &material.file_types;
    let mut answered: Vec<(&NamedFile, FileType)> = Vec::new();
    let mut asked = Vec::new();
    let mut tokens: Vec<i32> = Vec::new();
    for file in &material.files {
        match file_types.question(&file.content) {
            Question::Answered(answer) => answered.push((file, answer)),
            Question::Ask(row) => {
                asked.push(file);
                tokens.extend(row);
            }
        }
    }
    if !asked.is_empty() {
        let input =
            tensor("bytes", DataType::Int32, &[asked.len(), file_types.row_tokens()], &tokens, i32::to_le_bytes);
        let response = actor.client.infer(&request("file-type", vec![input], &[])?)?;
        let scores = floats(&response, "target_label")?;
        let rows = scores.chunks_exact((scores.len() / asked.len()).max(1));
        for (file, row) in asked.into_iter().zip(rows) {
            answered.push((file, file_types.answer(row)?));
        }
    }
    let answer = |(file, answer): (&NamedFile, FileType)| FileAnswer {
        file: file.name.clone(),
        label: answer.label,
        description: answer.description,
        score: answer.score,
    };
    Ok(answered.into_iter().map(answer).collect())
}

/// Every pair of sentences, the closest first.
fn closest(actor: &Actor, material: &Material) -> Result<Vec<Pair>> {
    let encoded = material.sentences.encode(&SENTENCES)?;
    let shape = [encoded.rows, encoded.tokens];
    let input = |name, values: &[i64]| tensor(name, DataType::Int64, &shape, values, i64::to_le_bytes);
    let inputs = vec![
        input("input_ids", &encoded.input_ids),
        input("attention_mask", &encoded.attention_mask),
        input("token_type_ids", &encoded.token_type_ids),
    ];
    let response = actor.client.infer(&request("sentences", inputs, &["last_hidden_state"])?)?;
    let hidden = floats(&response, "last_hidden_state")?;
    let width = hidden.len() / (encoded.rows * encoded.tokens).max(1);
    let vectors = pool(&hidden, &encoded.attention_mask, encoded.tokens, width)?;
    let meanings: Vec<(&'static str, &Vec<f32>)> = SENTENCES.into_iter().zip(&vectors).collect();
    let mut pairs = Vec::new();
    for (index, (one, vector)) in meanings.iter().enumerate() {
        for (other, other_vector) in meanings.iter().skip(index + 1) {
            pairs.push(Pair { one, other, closeness: cosine(vector, other_vector) });
        }
    }
    pairs.sort_by(|one, other| other.closeness.total_cmp(&one.closeness));
    Ok(pairs)
}

fn is_safe(actor: &Actor, picture: &Picture) -> Result<PictureAnswer> {
    let response = actor.client.infer(&request("platform/picture-safety", vec![picture_input(picture)?], &[])?)?;
    let scores = response.outputs.first().map(|output| output.name.clone()).context("the model has no output")?;
    let safe = floats(&response, &scores)?.first().copied().context("the model gave no score")?;
    Ok(PictureAnswer { picture: picture.name.clone(), safe })
}

/// A picture as the model's input.
pub(super) fn picture_input(picture: &Picture) -> Result<Tensor> {
    let row = picture::prepare(&picture.pixels)?;
    let [rows, columns, channels] = picture::INPUT_EXTENTS;
    Ok(tensor("input_0", DataType::Fp32, &[1, rows, columns, channels], &row, f32::to_le_bytes))
}

/// Frame by frame, because each needs the state the frame before left: a request each.
fn where_is_speech(actor: &Actor, sound: &Sound) -> Result<SoundAnswer> {
    let mut listener = Listener::new(&sound.samples);
    let mut probabilities: Vec<f32> = Vec::new();
    let mut clearest = (Vec::new(), Vec::new());
    while let Some(frame) = listener.next_frame() {
        let inputs = speech_inputs(&frame, listener.state());
        let response = actor.client.infer(&request("platform/speech", inputs, &[])?)?;
        let probability = floats(&response, "output")?.first().copied().context("the model gave no probability")?;
        if probabilities.iter().all(|earlier| *earlier < probability) {
            clearest = (frame, listener.state().to_vec());
        }
        probabilities.push(probability);
        listener.carry(floats(&response, "stateN")?)?;
    }
    let speech = segments(&probabilities, sound.samples.len());
    Ok(SoundAnswer {
        sound: sound.name.clone(),
        seconds: sound.samples.len() as f32 / SAMPLE_RATE_HZ as f32,
        speech: speech.iter().map(|segment| (segment.start.as_secs_f32(), segment.end.as_secs_f32())).collect(),
        probabilities,
        clearest,
    })
}

/// A frame of sound and the state before it as the model's inputs.
pub(super) fn speech_inputs(frame: &[f32], state: &[f32]) -> Vec<Tensor> {
    vec![
        tensor("input", DataType::Fp32, &[1, FRAME_SAMPLES], frame, f32::to_le_bytes),
        tensor("state", DataType::Fp32, &[2, 1, 128], state, f32::to_le_bytes),
        tensor("sr", DataType::Int64, &[], &[i64::from(SAMPLE_RATE_HZ)], i64::to_le_bytes),
    ]
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
        model: model.parse()?,
        version: None,
        id: None,
        parameters: Vec::new(),
        inputs: Inputs::Named(inputs),
        outputs: outputs.iter().map(|name| OutputRequest { name: (*name).to_owned() }).collect(),
        timeout: None,
    })
}

fn tensor<T: Copy, const N: usize>(
    name: &str,
    datatype: DataType,
    shape: &[usize],
    values: &[T],
    to_bytes: fn(T) -> [u8; N],
) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| to_bytes(*value)).collect();
    let shape: Shape = shape.iter().map(|extent| *extent as u64).collect();
    Tensor { name: name.to_owned(), datatype, shape, data: data.into() }
}

fn floats(response: &InferResponse, name: &str) -> Result<Vec<f32>> {
    let output = response.outputs.iter().find(|output| output.name == name);
    let output = output.with_context(|| format!("the answer has no output `{name}`"))?;
    let data = output.data.to_contiguous();
    Ok(data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}
