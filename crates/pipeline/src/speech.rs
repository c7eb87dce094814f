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
const THRESHOLD: f32 = 0.5;
const END_THRESHOLD: f32 = 0.35;
const MIN_SPEECH_SAMPLES: usize = 4_000;
const MIN_SILENCE_SAMPLES: usize = 1_600;
const PADDING_SAMPLES: usize = 480;

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
