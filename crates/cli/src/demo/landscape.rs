//! A picture drawn by rule: a sun over hills and a lake. The demo brings no photographs.

use std::io::Cursor;

use anyhow::Result;
use image::{ImageFormat, Rgb, RgbImage};

const WIDTH: u32 = 480;
const HEIGHT: u32 = 320;

/// The picture.
pub(crate) fn draw() -> RgbImage {
    RgbImage::from_fn(WIDTH, HEIGHT, |x, y| {
        let (x, y) = (x as f32 / WIDTH as f32, y as f32 / HEIGHT as f32);
        let far_hills = 0.52 - 0.07 * (x * 7.0).sin() - 0.03 * (x * 17.0 + 1.0).sin();
        let near_hills = 0.68 - 0.06 * (x * 5.0 + 2.0).sin() - 0.015 * (x * 31.0).sin();
        let sun = (((x - 0.72) * 1.5).powi(2) + (y - 0.24).powi(2)).sqrt();
        if y > 0.84 {
            let ripple = 0.5 + 0.5 * (y * 190.0 + (x * 40.0).sin() * 2.0).sin();
            mix([52, 96, 140], [120, 160, 190], ripple * 0.5)
        } else if y > near_hills {
            mix([38, 84, 44], [70, 120, 60], (0.5 + 0.5 * (x * 140.0).sin() * (y * 170.0).cos()) * 0.6)
        } else if y > far_hills {
            mix([86, 118, 120], [120, 150, 130], (y - far_hills) * 4.0)
        } else if sun < 0.075 {
            Rgb([255, 244, 200])
        } else {
            mix(glow(sun), [250, 214, 170], y * 1.4)
        }
    })
}

fn glow(distance: f32) -> [u8; 3] {
    mix([255, 236, 190], [96, 152, 214], (distance * 3.0).min(1.0)).0
}

fn mix(from: [u8; 3], to: [u8; 3], amount: f32) -> Rgb<u8> {
    let amount = amount.clamp(0.0, 1.0);
    let mut mixed = [0; 3];
    for (channel, (from, to)) in mixed.iter_mut().zip(from.into_iter().zip(to)) {
        *channel = (f32::from(from) + (f32::from(to) - f32::from(from)) * amount) as u8;
    }
    Rgb(mixed)
}

/// A PNG file of a picture.
pub(crate) fn to_png(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Png)?;
    Ok(file.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_survives_its_file() {
        let picture = draw();
        assert_eq!(image::load_from_memory(&to_png(&picture).unwrap()).unwrap().into_rgb8(), picture);
    }
}
