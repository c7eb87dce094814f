//! A sound with speech in it, made by rule: the demo brings no recordings.
//!
//! Formant synthesis as D. Klatt describes it ("Software for a cascade/parallel formant synthesizer", JASA 67, 1980),
//! cut down to vowels: a train of glottal pulses with a falling pitch runs through four resonators in a row, the first
//! three of which glide from vowel to vowel; syllables swell and fade about four times a second.

use std::f64::consts::PI;
use std::io::Cursor;

use anyhow::Result;

/// Samples a second.
const SAMPLE_RATE_HZ: u32 = 16_000;
const RATE: f64 = SAMPLE_RATE_HZ as f64;

/// The first three formants of a vowel, hertz (Peterson and Barney, 1952: averages of men).
type Vowel = [f64; 3];
const AH: Vowel = [730.0, 1090.0, 2440.0];
const EE: Vowel = [270.0, 2290.0, 3010.0];
const EH: Vowel = [530.0, 1840.0, 2480.0];
const AW: Vowel = [570.0, 840.0, 2410.0];
const OO: Vowel = [300.0, 870.0, 2240.0];
const FOURTH_FORMANT_HZ: f64 = 3500.0;
const BANDWIDTHS_HZ: [f64; 4] = [80.0, 100.0, 140.0, 200.0];

/// Silence, a phrase, silence, a phrase, silence: samples from -1 to 1 at 16 kHz. Speech is from 1.0 to 2.2 seconds and
/// from 3.0 to 3.9.
pub(crate) fn two_phrases() -> Vec<f32> {
    let mut hiss = Hiss(1);
    let mut sound = Vec::new();
    let silence = |seconds: f64| vec![0.0; (seconds * RATE) as usize];
    sound.extend(silence(1.0));
    sound.extend(phrase(&[AH, EE, EH, AW, AH], 1.2, 140.0, 110.0));
    sound.extend(silence(0.8));
    sound.extend(phrase(&[EH, AH, OO, EE], 0.9, 150.0, 100.0));
    sound.extend(silence(0.7));
    // A room is never quite silent.
    sound.into_iter().map(|sample| (sample + 0.003 * hiss.next_sample()) as f32).collect()
}

/// White noise from a linear congruential generator, -1 to 1: the same on every run.
struct Hiss(u32);

impl Hiss {
    fn next_sample(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(self.0) / f64::from(u32::MAX) * 2.0 - 1.0
    }
}

fn phrase(vowels: &[Vowel], seconds: f64, first_pitch_hz: f64, last_pitch_hz: f64) -> Vec<f64> {
    let count = (seconds * RATE) as usize;
    let mut resonators = BANDWIDTHS_HZ.map(Resonator::new);
    let mut phase = 0.0;
    let mut last_flow = 0.0;
    let mut samples = Vec::with_capacity(count);
    for index in 0..count {
        let time = index as f64 / RATE;
        let progress = index as f64 / count as f64;
        let vibrato = 4.0 * (2.0 * PI * 5.0 * time).sin();
        phase += (first_pitch_hz + (last_pitch_hz - first_pitch_hz) * progress + vibrato) / RATE;
        // The lips let the change of the air flow out, not the flow.
        let flow = glottal_flow(phase.fract());
        let mut sample = flow - last_flow;
        last_flow = flow;
        let [first, second, third] = glide(vowels, progress);
        for (resonator, formant_hz) in resonators.iter_mut().zip([first, second, third, FOURTH_FORMANT_HZ]) {
            sample = resonator.filter(sample, formant_hz);
        }
        let syllable = 0.25 + 0.75 * (PI * 4.0 * time).sin().powi(2);
        let edge = (time.min(seconds - time) / 0.03).clamp(0.0, 1.0);
        samples.push(sample * syllable * edge);
    }
    let peak = samples.iter().fold(f64::EPSILON, |peak, sample| sample.abs().max(peak));
    samples.iter().map(|sample| sample * 0.5 / peak).collect()
}

/// The air through the glottis over one period: it opens slowly, closes fast, and rests (Rosenberg, 1971).
fn glottal_flow(phase: f64) -> f64 {
    const OPENING: f64 = 0.4;
    const CLOSING: f64 = 0.16;
    if phase < OPENING {
        0.5 * (1.0 - (PI * phase / OPENING).cos())
    } else if phase < OPENING + CLOSING {
        (PI / 2.0 * (phase - OPENING) / CLOSING).cos()
    } else {
        0.0
    }
}

/// The formants at a point of the way through the vowels, 0 to 1.
fn glide(vowels: &[Vowel], progress: f64) -> Vowel {
    let position = progress * vowels.len().saturating_sub(1) as f64;
    let from = vowels.get(position as usize).or(vowels.last()).copied().unwrap_or(AH);
    let to = vowels.get(position as usize + 1).copied().unwrap_or(from);
    std::array::from_fn(|formant| match (from.get(formant), to.get(formant)) {
        (Some(from), Some(to)) => from + (to - from) * position.fract(),
        _ => 0.0,
    })
}

/// A digital resonator of second order (Klatt's equation 1).
struct Resonator {
    radius: f64,
    last: f64,
    before: f64,
}

impl Resonator {
    fn new(bandwidth_hz: f64) -> Self {
        Self { radius: (-PI * bandwidth_hz / RATE).exp(), last: 0.0, before: 0.0 }
    }

    fn filter(&mut self, sample: f64, formant_hz: f64) -> f64 {
        let b = 2.0 * self.radius * (2.0 * PI * formant_hz / RATE).cos();
        let c = -self.radius * self.radius;
        let value = (1.0 - b - c) * sample + b * self.last + c * self.before;
        self.before = std::mem::replace(&mut self.last, value);
        value
    }
}

/// A WAV file of the samples, 16 bits.
pub(crate) fn to_wav(samples: &[f32]) -> Result<Vec<u8>> {
    let format = hound::WavSpec {
        channels: 1,
        sample_rate: SAMPLE_RATE_HZ,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut file = Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut file, format)?;
    for sample in samples {
        writer.write_sample((sample.clamp(-1.0, 1.0) * f32::from(i16::MAX)) as i16)?;
    }
    writer.finalize()?;
    Ok(file.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sound_is_the_same_on_every_run_loud_where_it_speaks_and_within_range() {
        let sound = two_phrases();
        assert_eq!(sound, two_phrases());
        assert_eq!(sound.len(), (4.6 * RATE) as usize);
        let loudness = |from: f64, to: f64| {
            let part = &sound[(from * RATE) as usize..(to * RATE) as usize];
            (part.iter().map(|sample| sample * sample).sum::<f32>() / part.len() as f32).sqrt()
        };
        assert!(loudness(1.2, 2.0) > 20.0 * loudness(0.0, 0.9));
        assert!(loudness(3.2, 3.7) > 20.0 * loudness(2.3, 2.9));
        assert!(sound.iter().all(|sample| sample.is_finite() && sample.abs() <= 0.6));
    }

    #[test]
    fn a_wav_file_keeps_the_sound() {
        let sound = two_phrases();
        let file = to_wav(&sound).unwrap();
        let mut reader = hound::WavReader::new(Cursor::new(file)).unwrap();
        let again: Vec<f32> = reader.samples::<i16>().map(|sample| f32::from(sample.unwrap()) / 32768.0).collect();
        assert_eq!(again.len(), sound.len());
        assert!(again.iter().zip(&sound).all(|(one, other)| (one - other).abs() < 1e-4));
    }
}
