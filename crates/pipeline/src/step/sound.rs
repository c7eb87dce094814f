//! Sounds: decoded within limits, resampled, cut into frames; speech in words of seconds.

use serde::Deserialize;
use tenantry_types::{DataType, Dim};

use super::Step;
use crate::array::Array;
use crate::sound;
use crate::speech::{NEW_SAMPLES, segments};
use crate::value::{PlanError, Spec, Specs, StepError, Value, Values};

/// The longest sound of one run, seconds.
const MAX_SECONDS: u32 = 3600;
/// The highest rate sounds are resampled to, hertz.
const MAX_RATE_HZ: u32 = 192_000;
/// The most samples of one frame.
const MAX_FRAME_SAMPLES: usize = 1 << 20;

/// `decode_audio`: WAV, FLAC, MP3 or Ogg Vorbis files become sounds of one channel at `rate_hz`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodeAudio {
    from: String,
    to: String,
    rate_hz: u32,
    #[serde(default = "max_seconds")]
    max_seconds: u32,
}

fn max_seconds() -> u32 {
    600
}

impl Step for DecodeAudio {
    fn plan(&self, specs: &mut Specs) -> Result<(), PlanError> {
        if !(1..=MAX_RATE_HZ).contains(&self.rate_hz) || !(1..=MAX_SECONDS).contains(&self.max_seconds) {
            return Err(PlanError(format!(
                "decode_audio: `rate_hz` is 1 to {MAX_RATE_HZ}, `max_seconds` 1 to {MAX_SECONDS}"
            )));
        }
        let rows = specs.texts(&self.from)?;
        specs.set(&self.to, Spec::Sounds(rows))
    }

    fn run<'a>(&'a self, values: &mut Values<'a>) -> Result<(), StepError> {
        let mut sounds = Vec::new();
        for file in values.texts(&self.from)? {
            let decoded = sound::decode(file, self.max_seconds).and_then(|sound| sound::resample(sound, self.rate_hz));
            sounds.push(decoded.map_err(|error| StepError::input(error.to_string()))?);
        }
        values.set(&self.to, Value::Sounds(sounds));
        Ok(())
    }

    fn makes(&self) -> Vec<&str> {
        vec![&self.to]
    }

    fn reads(&self) -> Vec<&str> {
        vec![&self.from]
    }
}

/// `frame`: one sound, or FP32 [1, samples], as FP32 [1, frames, context + size]: frames of `size` new samples behind the
/// last `context` of the frame before. What is missing at the end is silence.
///
/// With `state`, FP32 [1, context], the first frame's context is that, and `next` gets the last frame's end.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frame {
    from: String,
    to: String,
    size: usize,
    #[serde(default)]
    context: usize,
    state: Option<String>,
    next: Option<String>,
}

impl Step for Frame {
    fn plan(&self, specs: &mut Specs) -> Result<(), PlanError> {
        let rows = match specs.any(&self.from)? {
            Spec::Sounds(rows) => rows.clone(),
            Spec::Array(DataType::Fp32, dims) if dims.len() == 2 => dims.first().cloned().unwrap_or(Dim::Any(())),
            _ => return Err(PlanError("frame reads one sound or FP32 [1, samples]".to_owned())),
        };
        specs.one_row(&self.from, &rows)?;
        let length = self.size.checked_add(self.context).filter(|length| *length <= MAX_FRAME_SAMPLES);
        let length = length.filter(|_| self.size > 0 && self.context <= self.size).ok_or_else(|| {
            PlanError(format!(
                "frame: `size` and `context` make 1 to {MAX_FRAME_SAMPLES} samples, the context the smaller part"
            ))
        })?;
        let one = || Dim::Fixed(1);
        if let Some(state) = &self.state {
            let expected = Spec::Array(DataType::Fp32, vec![one(), Dim::Fixed(self.context as u64)]);
            if *specs.any(state)? != expected {
                return Err(PlanError(format!("frame: the state `{state}` must be FP32 [1, {}]", self.context)));
            }
        }
        if let Some(next) = &self.next {
            specs.set(next, Spec::Array(DataType::Fp32, vec![one(), Dim::Fixed(self.context as u64)]))?;
        }
        let frames = Dim::Named("frames".to_owned());
        specs.set(&self.to, Spec::Array(DataType::Fp32, vec![one(), frames, Dim::Fixed(length as u64)]))
    }

    fn run<'a>(&'a self, values: &mut Values<'a>) -> Result<(), StepError> {
        let samples = match values.any(&self.from)? {
            Value::Sounds(sounds) => sounds.first().map(|sound| sound.samples.as_slice()),
            Value::Array(array) => array.as_floats(),
            _ => None,
        };
        let samples = samples.ok_or_else(|| StepError::model("there is no sound to cut into frames"))?;
        let mut context = match &self.state {
            Some(state) => values.floats::<2>(state)?.0.to_vec(),
            None => vec![0.0; self.context],
        };
        context.resize(self.context, 0.0);
        let count = samples.len().div_ceil(self.size);
        let length = self.context + self.size;
        let mut frames: Vec<f32> = Vec::with_capacity(count.saturating_mul(length));
        for new in samples.chunks(self.size) {
            let start = frames.len();
            frames.extend_from_slice(&context);
            frames.extend_from_slice(new);
            frames.resize(start + length, 0.0);
            context = frames.get(frames.len() - self.context..).unwrap_or_default().to_vec();
        }
        if let Some(next) = &self.next {
            values.set(next, Value::Array(Array::floats([1, self.context as u64], context)));
        }
        values.set(&self.to, Value::Array(Array::floats([1, count as u64, length as u64], frames)));
        Ok(())
    }

    fn makes(&self) -> Vec<&str> {
        std::iter::once(&self.to).chain(&self.next).map(String::as_str).collect()
    }

    fn reads(&self) -> Vec<&str> {
        std::iter::once(&self.from).chain(&self.state).map(String::as_str).collect()
    }
}

/// `speech_segments`: where speech is, from the probability of each frame of 512 samples of `sound` at 16 kHz, FP32
/// [1, frames] or more dimensions of 1: FP32 [segments, 2], seconds from the start.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpeechSegments {
    from: String,
    sound: String,
    to: String,
}

impl Step for SpeechSegments {
    fn plan(&self, specs: &mut Specs) -> Result<(), PlanError> {
        specs.floats(&self.from, 2)?;
        let rows = specs.sounds(&self.sound)?;
        specs.one_row(&self.sound, &rows)?;
        specs.set(&self.to, Spec::Array(DataType::Fp32, vec![Dim::Named("segments".to_owned()), Dim::Fixed(2)]))
    }

    fn run<'a>(&'a self, values: &mut Values<'a>) -> Result<(), StepError> {
        let probabilities = values.array(&self.from)?.as_floats();
        let probabilities =
            probabilities.ok_or_else(|| StepError::model("the probabilities of speech are not FP32"))?;
        let samples = values.sounds(&self.sound)?.first().map_or(0, |sound| sound.samples.len());
        if probabilities.len() != samples.div_ceil(NEW_SAMPLES) {
            return Err(StepError::model("there is not one probability for each frame of the sound"));
        }
        let found = segments(probabilities, samples);
        let seconds =
            found.iter().flat_map(|segment| [segment.start.as_secs_f32(), segment.end.as_secs_f32()]).collect();
        values.set(&self.to, Value::Array(Array::floats([found.len() as u64, 2], seconds)));
        Ok(())
    }

    fn makes(&self) -> Vec<&str> {
        vec![&self.to]
    }

    fn reads(&self) -> Vec<&str> {
        vec![&self.from, &self.sound]
    }
}
