//! Pictures for the open_nsfw classifier: decoded, squeezed to 256 x 256, compressed once, cut to 224 x 224, BGR minus
//! the training set's means.
//!
//! The model was trained on pictures that had been through JPEG, so its authors compress and decode again after
//! resizing, and so does this. Their encoder halves the resolution of colour and ours keeps it, so pixels differ where
//! colour has hard edges: on the tests' picture, gradients under a blue chequerboard, by 5 levels of 255 on average and by
//! tens on the edges. The score of that picture moves by 0.00002.

use std::io::Cursor;

use image::codecs::jpeg::{JpegDecoder, JpegEncoder};
use image::imageops::FilterType;
use image::{DynamicImage, ImageReader, Limits, RgbImage};

/// The largest side of a picture that is decoded, pixels.
pub const MAX_SIDE_PIXELS: u32 = 16_384;
/// The most memory the decoding of one picture may take, bytes.
pub const MAX_DECODED_BYTES: u64 = 256 << 20;
/// The sides of the model's input, pixels.
pub const INPUT_SIDE: usize = 224;
/// Rows, columns, channels of one row of the model's input.
pub const INPUT_EXTENTS: [usize; 3] = [INPUT_SIDE, INPUT_SIDE, 3];

const RESIZED_SIDE: usize = 256;
/// The channel means of the training set, in the model's order: blue, green, red.
const MEAN_BGR: [f32; 3] = [104.0, 117.0, 123.0];
/// What the reference encoder uses unless told otherwise.
const JPEG_QUALITY: u8 = 75;

/// A picture that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// More pixels than allowed.
    #[error("the picture has {0} x {1} pixels; at most {2} pixels are read")]
    Large(u32, u32, u64),
    /// Not a PNG or JPEG, damaged, or too large.
    #[error("the picture cannot be decoded: {0}")]
    Decode(#[source] image::ImageError),
    /// The compression in the middle failed.
    #[error("the picture cannot be compressed: {0}")]
    Encode(#[source] image::ImageError),
}

/// Decodes a PNG or JPEG file, within [`MAX_SIDE_PIXELS`] and [`MAX_DECODED_BYTES`]; transparency is dropped.
pub fn decode(file: &[u8]) -> Result<RgbImage, PictureError> {
    decode_within(file, u64::MAX)
}

/// As [`decode`], for a picture of at most `max_pixels`; a larger one is refused by its header, before it takes memory.
pub(crate) fn decode_within(file: &[u8], max_pixels: u64) -> Result<RgbImage, PictureError> {
    let reader = || {
        ImageReader::new(Cursor::new(file)).with_guessed_format().map_err(|error| PictureError::Decode(error.into()))
    };
    let (width, height) = reader()?.into_dimensions().map_err(PictureError::Decode)?;
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(PictureError::Large(width, height, max_pixels));
    }
    let mut reader = reader()?;
    let mut limits = Limits::no_limits();
    limits.max_image_width = Some(MAX_SIDE_PIXELS);
    limits.max_image_height = Some(MAX_SIDE_PIXELS);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    reader.limits(limits);
    Ok(reader.decode().map_err(PictureError::Decode)?.into_rgb8())
}

/// One row of the model's input `input_0`: [`INPUT_EXTENTS`], row-major.
pub fn prepare(picture: &RgbImage) -> Result<Vec<f32>, PictureError> {
    let side = RESIZED_SIDE as u32;
    let resized = image::imageops::resize(picture, side, side, FilterType::Triangle);
    let compressed = recompress(&resized, JPEG_QUALITY)?;
    let offset = (RESIZED_SIDE - INPUT_SIDE) / 2;
    let mut row = Vec::with_capacity(INPUT_EXTENTS.iter().product());
    for line in compressed.as_raw().chunks_exact(RESIZED_SIDE * 3).skip(offset).take(INPUT_SIDE) {
        for pixel in line.chunks_exact(3).skip(offset).take(INPUT_SIDE) {
            row.extend(pixel.iter().rev().zip(MEAN_BGR).map(|(level, mean)| f32::from(*level) - mean));
        }
    }
    Ok(row)
}

/// Through JPEG of this quality and back.
pub(crate) fn recompress(picture: &RgbImage, quality: u8) -> Result<RgbImage, PictureError> {
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, quality).encode_image(picture).map_err(PictureError::Encode)?;
    let decoder = JpegDecoder::new(Cursor::new(file)).map_err(PictureError::Decode)?;
    Ok(DynamicImage::from_decoder(decoder).map_err(PictureError::Decode)?.into_rgb8())
}

#[cfg(test)]
mod tests;
