//! Where speech is in a sound: frames for the Silero VAD model at 16 kHz, and segments from its probabilities.
//!
//! The model hears 512 new samples at a time behind the last 64 of the frame before, and carries a state from frame to
//! frame; both start as zeros. Segments follow the authors' rules: speech begins where the probability reaches one
//! threshold, ends after enough silence below a lower one, short bursts are dropped, the rest is padded a little.

use std::time::Duration;

/// Samples a second.
pub const SAMPLE_RATE_HZ: u32 = 16_000;
/// New samples a frame.
pub const NEW_SAMPLES: usize = 512;
/// Samples of the frame before that come first.
pub const CONTEXT_SAMPLES: usize = 64;
/// Samples of one row of the model's input `input`.
pub const FRAME_SAMPLES: usize = CONTEXT_SAMPLES + NEW_SAMPLES;
/// Values of the model's state for one sound: the extents [2, 1, 128].
pub const STATE_VALUES: usize = 256;

const THRESHOLD: f32 = 0.5;
const END_THRESHOLD: f32 = 0.35;
const MIN_SPEECH_SAMPLES: usize = 4_000;
const MIN_SILENCE_SAMPLES: usize = 1_600;
const PADDING_SAMPLES: usize = 480;

/// A state that is not [`STATE_VALUES`] long.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the model's state has {0} values; {STATE_VALUES} were expected")]
pub struct StateError(pub usize);

/// A sound on its way through the model: frame by frame, with what is carried between them.
#[derive(Debug, Clone)]
pub struct Listener<'a> {
    rest: &'a [f32],
    context: [f32; CONTEXT_SAMPLES],
    state: Vec<f32>,
}

impl<'a> Listener<'a> {
    /// Begins at the start of `samples`, mono at [`SAMPLE_RATE_HZ`], -1 to 1.
    pub fn new(samples: &'a [f32]) -> Self {
        Self { rest: samples, context: [0.0; CONTEXT_SAMPLES], state: vec![0.0; STATE_VALUES] }
    }

    /// The next frame, [`FRAME_SAMPLES`] long, the last one filled up with silence; `None` at the end.
    pub fn next_frame(&mut self) -> Option<Vec<f32>> {
        if self.rest.is_empty() {
            return None;
        }
        let (new, rest) = self.rest.split_at(self.rest.len().min(NEW_SAMPLES));
        self.rest = rest;
        let mut frame = Vec::with_capacity(FRAME_SAMPLES);
        frame.extend_from_slice(&self.context);
        frame.extend_from_slice(new);
        frame.resize(FRAME_SAMPLES, 0.0);
        for (kept, sample) in self.context.iter_mut().zip(frame.iter().skip(NEW_SAMPLES)) {
            *kept = *sample;
        }
        Some(frame)
    }

    /// The state to send with the next frame, extents [2, 1, 128].
    pub fn state(&self) -> &[f32] {
        &self.state
    }

    /// Keeps the state the model answered for the next frame.
    pub fn carry(&mut self, state: Vec<f32>) -> Result<(), StateError> {
        if state.len() != STATE_VALUES {
            return Err(StateError(state.len()));
        }
        self.state = state;
        Ok(())
    }
}

/// A stretch of speech, from the start of the sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins.
    pub start: Duration,
    /// Where it ends.
    pub end: Duration,
}

/// Where speech is, from the probability of each frame of a sound of `samples` samples.
pub fn segments(probabilities: &[f32], samples: usize) -> Vec<Segment> {
    let mut spans = spans(probabilities, samples);
    pad(&mut spans, samples);
    spans.into_iter().map(|(start, end)| Segment { start: instant(start), end: instant(end) }).collect()
}

/// Spans of speech in samples, before padding.
fn spans(probabilities: &[f32], samples: usize) -> Vec<(usize, usize)> {
    let mut spans = Vec::new();
    let mut begun: Option<usize> = None;
    let mut silent_since: Option<usize> = None;
    for (index, probability) in probabilities.iter().enumerate() {
        let at = index * NEW_SAMPLES;
        if *probability >= THRESHOLD {
            silent_since = None;
            begun.get_or_insert(at);
        } else if let Some(start) = begun.filter(|_| *probability < END_THRESHOLD) {
            let end = *silent_since.get_or_insert(at);
            if at - end >= MIN_SILENCE_SAMPLES {
                if end - start > MIN_SPEECH_SAMPLES {
                    spans.push((start, end));
                }
                (begun, silent_since) = (None, None);
            }
        }
    }
    spans.extend(
        begun.filter(|start| samples.saturating_sub(*start) > MIN_SPEECH_SAMPLES).map(|start| (start, samples)),
    );
    spans
}

/// Widens each span a little; two that would overlap share the silence between them.
fn pad(spans: &mut [(usize, usize)], samples: usize) {
    if let Some(first) = spans.first_mut() {
        first.0 = first.0.saturating_sub(PADDING_SAMPLES);
    }
    let mut rest = &mut *spans;
    while let Some((current, following)) = rest.split_first_mut() {
        match following.first_mut() {
            Some(next) => {
                let silence = next.0.saturating_sub(current.1);
                let padding = if silence < 2 * PADDING_SAMPLES { silence / 2 } else { PADDING_SAMPLES };
                current.1 += padding;
                next.0 -= padding;
            }
            None => current.1 = (current.1 + PADDING_SAMPLES).min(samples),
        }
        rest = following;
    }
}

fn instant(samples: usize) -> Duration {
    Duration::from_nanos(samples as u64 * 1_000_000_000 / u64::from(SAMPLE_RATE_HZ))
}

#[cfg(test)]
mod tests;
