use super::testing::wav;
use super::*;

fn tone(rate_hz: u32, seconds: f32) -> Vec<f32> {
    let count = (rate_hz as f32 * seconds) as usize;
    (0..count).map(|index| (index as f32 / rate_hz as f32 * 440.0 * std::f32::consts::TAU).sin() * 0.5).collect()
}

#[test]
fn channels_are_averaged_and_the_rate_is_the_files() {
    let stereo: Vec<f32> = tone(8_000, 0.5).iter().flat_map(|sample| [*sample, 0.0]).collect();
    let sound = decode(&wav(8_000, 2, &stereo), 10).unwrap();
    assert_eq!((sound.rate_hz, sound.samples.len()), (8_000, 4_000));
    let furthest = sound.samples.iter().zip(tone(8_000, 0.5)).map(|(a, b)| (a - b / 2.0).abs()).fold(0.0, f32::max);
    assert!(furthest < 1e-3, "{furthest}");
}

/// A tone keeps its pitch and its level, whatever the rates.
#[test]
fn a_tone_stays_a_tone_at_another_rate() {
    for (from, to) in [(48_000, 16_000), (44_100, 16_000), (8_000, 16_000), (16_000, 16_000)] {
        let sound = resample(Sound { rate_hz: from, samples: tone(from, 1.0) }, to).unwrap();
        assert_eq!(sound.rate_hz, to);
        assert!(sound.samples.len().abs_diff(to as usize) <= 1, "{from} to {to}: {}", sound.samples.len());
        let expected = tone(to, 1.0);
        // The ends are where the filter has heard only a part.
        let middle = to as usize / 10..to as usize * 9 / 10;
        let error: f32 =
            sound.samples[middle.clone()].iter().zip(&expected[middle]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // A fifth of a sample of delay is 0.017 here.
        assert!(error < 0.02, "{from} to {to}: {error}");
    }
}

#[test]
fn what_is_no_sound_or_too_long_is_refused() {
    let file = wav(8_000, 1, &tone(8_000, 2.0));
    assert_eq!(decode(&file, 1), Err(SoundError::Long(1)));
    assert_eq!(decode(b"", 10), Err(SoundError::Format));
    assert_eq!(decode(b"not a sound at all, whatever it may say", 10), Err(SoundError::Format));
    // A file that was cut off is heard as far as it goes, or refused; it never fails otherwise.
    for length in [0, 10, 44, 45, 100, file.len() / 2] {
        if let Ok(sound) = decode(&file[..length], 10) {
            assert!(sound.samples.len() <= 16_000);
        }
    }
}

/// What the fuzzer found: a file of floating-point samples as large as floats can be.
#[test]
fn samples_stay_within_their_range_whatever_a_file_says() {
    let wild = [1e38, -1e38, f32::NAN, f32::INFINITY, 0.25];
    let sound = decode(&super::testing::wav_of_floats(44_100, &wild.repeat(500)), 10).unwrap();
    assert_eq!(sound.samples[..5], [1.0, -1.0, 0.0, 1.0, 0.25]);
    assert!(resample(sound, 16_000).unwrap().samples.iter().all(|sample| sample.abs() < 2.0));
}
