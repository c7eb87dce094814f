//! Sound files: decoded to one channel, and brought to another rate.

use std::io::Cursor;

use rubato::audioadapter_buffers::owned::InterleavedOwned;
use rubato::{Fft, FixedSync, Resampler as _};
use symphonia::core::codecs::audio::AudioDecoderOptions;
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;

use crate::value::Sound;

/// The highest sampling rate of a file, hertz.
const MAX_FILE_RATE_HZ: u32 = 768_000;
/// The most channels of a file.
const MAX_CHANNELS: usize = 16;
/// Packets that may be damaged before the file is given up.
const MAX_DAMAGED_PACKETS: usize = 16;
/// Frames that are resampled at a time.
const CHUNK_FRAMES: usize = 1024;

/// A sound that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SoundError {
    #[error("the sound is not a WAV, FLAC, MP3 or Ogg Vorbis file, or it is damaged")]
    Format,
    #[error("the sound has {0} channels; at most {MAX_CHANNELS} are read")]
    Channels(usize),
    #[error("the sound has a sampling rate of {0} Hz; 1 to {MAX_FILE_RATE_HZ} are read")]
    Rate(u32),
    #[error("the sound is longer than {0} seconds")]
    Long(u32),
    #[error("the sound cannot be resampled from {0} to {1} Hz")]
    Resample(u32, u32),
}

/// Decodes a whole file; channels are averaged.
pub(crate) fn decode(file: &[u8], max_seconds: u32) -> Result<Sound, SoundError> {
    let stream = MediaSourceStream::new(Box::new(Cursor::new(file.to_vec())), Default::default());
    let (format, metadata) = (FormatOptions::default(), MetadataOptions::default());
    let probed = symphonia::default::get_probe().probe(&Hint::new(), stream, format, metadata);
    let mut reader = probed.map_err(|_| SoundError::Format)?;
    let track = reader.default_track(TrackType::Audio).ok_or(SoundError::Format)?;
    let track_id = track.id;
    let parameters = track.codec_params.as_ref().and_then(|parameters| parameters.audio()).ok_or(SoundError::Format)?;
    let mut decoder = symphonia::default::get_codecs()
        .make_audio_decoder(parameters, &AudioDecoderOptions::default())
        .map_err(|_| SoundError::Format)?;

    let (mut samples, mut rate_hz, mut damaged) = (Vec::new(), None, 0);
    let mut interleaved: Vec<f32> = Vec::new();
    loop {
        let packet = match reader.next_packet() {
            Ok(Some(packet)) if packet.track_id == track_id => packet,
            Ok(Some(_)) => continue,
            Ok(None) => break,
            // A file that was cut off ends like this, too.
            Err(Error::IoError(_)) if !samples.is_empty() => break,
            Err(_) => return Err(SoundError::Format),
        };
        let decoded = match decoder.decode(&packet) {
            Ok(decoded) => decoded,
            Err(Error::DecodeError(_)) if damaged < MAX_DAMAGED_PACKETS => {
                damaged += 1;
                continue;
            }
            Err(_) => return Err(SoundError::Format),
        };
        let (rate, channels) = (decoded.spec().rate(), decoded.spec().channels().count());
        if !(1..=MAX_FILE_RATE_HZ).contains(&rate) || rate_hz.is_some_and(|known| known != rate) {
            return Err(SoundError::Rate(rate));
        }
        if !(1..=MAX_CHANNELS).contains(&channels) {
            return Err(SoundError::Channels(channels));
        }
        rate_hz = Some(rate);
        let limit = u64::from(rate) * u64::from(max_seconds);
        if samples.len().saturating_add(decoded.frames()) as u64 > limit {
            return Err(SoundError::Long(max_seconds));
        }
        decoded.copy_to_vec_interleaved(&mut interleaved);
        // Files of floating-point samples may hold anything; what is no number is silence.
        let clean = |sample: f32| if sample.is_nan() { 0.0 } else { sample.clamp(-1.0, 1.0) };
        let mean = |frame: &[f32]| frame.iter().copied().map(clean).sum::<f32>() / channels as f32;
        samples.extend(interleaved.chunks_exact(channels).map(mean));
    }
    Ok(Sound { rate_hz: rate_hz.ok_or(SoundError::Format)?, samples })
}

/// Brings a sound to another rate.
pub(crate) fn resample(sound: Sound, rate_hz: u32) -> Result<Sound, SoundError> {
    if sound.rate_hz == rate_hz || sound.samples.is_empty() {
        return Ok(Sound { rate_hz, ..sound });
    }
    let failed = SoundError::Resample(sound.rate_hz, rate_hz);
    let frames = sound.samples.len();
    let resampled = || {
        let mut resampler =
            Fft::<f32>::new(sound.rate_hz as usize, rate_hz as usize, CHUNK_FRAMES, 1, FixedSync::Both).ok()?;
        let input = InterleavedOwned::new_from(sound.samples, 1, frames).ok()?;
        Some(resampler.process_all(&input, frames, None).ok()?.take_data())
    };
    Ok(Sound { rate_hz, samples: resampled().ok_or(failed)? })
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) mod testing {
    use std::io::Cursor;

    /// A WAV file of floating-point samples, one channel.
    pub(crate) fn wav_of_floats(rate_hz: u32, samples: &[f32]) -> Vec<u8> {
        let format = hound::WavSpec {
            channels: 1,
            sample_rate: rate_hz,
            bits_per_sample: 32,
            sample_format: hound::SampleFormat::Float,
        };
        let mut file = Cursor::new(Vec::new());
        let mut writer = hound::WavWriter::new(&mut file, format).unwrap();
        samples.iter().for_each(|sample| writer.write_sample(*sample).unwrap());
        writer.finalize().unwrap();
        file.into_inner()
    }

    /// A WAV file of 16 bits; `samples` are interleaved.
    pub(crate) fn wav(rate_hz: u32, channels: u16, samples: &[f32]) -> Vec<u8> {
        let format = hound::WavSpec {
            channels,
            sample_rate: rate_hz,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut file = Cursor::new(Vec::new());
        let mut writer = hound::WavWriter::new(&mut file, format).unwrap();
        for sample in samples {
            writer.write_sample((sample * f32::from(i16::MAX)) as i16).unwrap();
        }
        writer.finalize().unwrap();
        file.into_inner()
    }
}
