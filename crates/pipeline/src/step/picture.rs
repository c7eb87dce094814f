//! Pictures: decoded within limits, resized, cut, and turned into numbers.

use image::imageops::{self, FilterType};
use image::{ImageFormat, RgbImage};
use serde::Deserialize;
use tenantry_types::{DataType, Dim};

use super::Step;
use crate::array::Array;
use crate::picture::{self, MAX_SIDE_PIXELS};
use crate::value::{PlanError, Spec, Specs, StepError, Value, Values};

/// The most pixels of one picture unless the manifest allows fewer.
const MAX_PIXELS: u64 = 64 << 20;
/// The most pixels of all pictures of one run, as they come and as they are made.
const MAX_RUN_PIXELS: u64 = 128 << 20;

/// `decode_image`: PNG, JPEG or PNM files become pictures of three channels; transparency is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodeImage {
    from: String,
    to: String,
    /// The most pixels of one picture.
    #[serde(default = "max_pixels")]
    max_pixels: u64,
}

fn max_pixels() -> u64 {
    MAX_PIXELS
}

impl Step for DecodeImage {
    fn plan(&self, specs: &mut Specs) -> Result<(), PlanError> {
        let rows = specs.texts(&self.from)?;
        specs.set(&self.to, Spec::Pictures(rows))
    }

    fn run<'a>(&'a self, values: &mut Values<'a>) -> Result<(), StepError> {
        let files = values.texts(&self.from)?;
        let mut left = MAX_RUN_PIXELS;
        let mut pictures = Vec::with_capacity(files.len());
        for file in files {
            let limit = left.min(self.max_pixels).min(MAX_PIXELS);
            let picture = picture::decode_within(file, limit).map_err(|error| StepError::input(error.to_string()))?;
            left = left.saturating_sub(pixels_of(&picture));
            pictures.push(picture);
        }
        values.set(&self.to, Value::Pictures(pictures));
        Ok(())
    }

    fn makes(&self) -> Vec<&str> {
        vec![&self.to]
    }

    fn reads(&self) -> Vec<&str> {
        vec![&self.from]
    }
}

fn pixels_of(picture: &RgbImage) -> u64 {
    u64::from(picture.width()) * u64::from(picture.height())
}

/// `encode_image`: pictures as PNM files, uncompressed, for the next stage of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncodeImage {
    from: String,
    to: String,
}

impl Step for EncodeImage {
    fn plan(&self, specs: &mut Specs) -> Result<(), PlanError> {
        let rows = specs.pictures(&self.from)?;
        specs.set(&self.to, Spec::Texts(rows))
    }

    fn run<'a>(&'a self, values: &mut Values<'a>) -> Result<(), StepError> {
        let mut files = Vec::new();
        for picture in values.pictures(&self.from)? {
            let mut file = std::io::Cursor::new(Vec::new());
            picture.write_to(&mut file, ImageFormat::Pnm).map_err(|error| StepError::model(error.to_string()))?;
            files.push(file.into_inner().into());
        }
        values.set(&self.to, Value::Texts(files));
        Ok(())
    }

    fn makes(&self) -> Vec<&str> {
        vec![&self.to]
    }

    fn reads(&self) -> Vec<&str> {
        vec![&self.from]
    }
}

/// How a picture meets its new size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Exactly `width` x `height`, whatever that does to its proportions.
    Stretch,
    /// The shorter side becomes `size`.
    ShorterSide,
    /// `height` high, as wide as its proportions ask, at most `width`.
    Height,
    /// No side longer than `size` and none shorter than `min`, each a multiple of `multiple`.
    Within,
}

/// `resize`: pictures of another size.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resize {
    from: String,
    to: String,
    mode: Mode,
    width: Option<u32>,
    height: Option<u32>,
    size: Option<u32>,
    min: Option<u32>,
    #[serde(default = "one")]
    multiple: u32,
    #[serde(default)]
    filter: Filter,
}

fn one() -> u32 {
    1
}

/// How pixels between pixels are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Filter {
    Nearest,
    #[default]
    Bilinear,
    Bicubic,
    Lanczos,
}

impl Filter {
    fn of_library(self) -> FilterType {
        match self {
            Self::Nearest => FilterType::Nearest,
            Self::Bilinear => FilterType::Triangle,
            Self::Bicubic => FilterType::CatmullRom,
            Self::Lanczos => FilterType::Lanczos3,
        }
    }
}

impl Resize {
    /// What is missing for the mode.
    fn missing(&self) -> Option<&'static str> {
        match self.mode {
            Mode::Stretch if self.width.is_none() || self.height.is_none() => Some("`width` and `height`"),
            Mode::ShorterSide | Mode::Within if self.size.is_none() => Some("`size`"),
            Mode::Height if self.height.is_none() => Some("`height`"),
            _ => None,
        }
    }

    fn target(&self, picture: &RgbImage) -> (u32, u32) {
        let (width, height) = (f64::from(picture.width()), f64::from(picture.height()));
        let scaled = |factor: f64| (whole(width * factor), whole(height * factor));
        match self.mode {
            Mode::Stretch => (self.width.unwrap_or(1).max(1), self.height.unwrap_or(1).max(1)),
            Mode::ShorterSide => scaled(f64::from(self.size.unwrap_or(1)) / width.min(height).max(1.0)),
            Mode::Height => {
                let high = self.height.unwrap_or(1).max(1);
                let wide = (width * f64::from(high) / height.max(1.0)).ceil();
                (whole(wide).min(self.width.unwrap_or(MAX_SIDE_PIXELS).max(1)), high)
            }
            Mode::Within => {
                let longest = f64::from(self.size.unwrap_or(1)) / width.max(height).max(1.0);
                let shortest = self.min.map_or(0.0, |min| f64::from(min) / width.min(height).max(1.0));
                let factor = shortest.max(1.0).min(longest);
                let multiple = f64::from(self.multiple.max(1));
                let rounded = |side: f64| whole(((side * factor / multiple).round() * multiple).max(multiple));
                (rounded(width), rounded(height))
            }
        }
    }
}

fn whole(side: f64) -> u32 {
    side.round().clamp(1.0, f64::from(MAX_SIDE_PIXELS)) as u32
}

impl Step for Resize {
    fn plan(&self, specs: &mut Specs) -> Result<(), PlanError> {
        if let Some(missing) = self.missing() {
            return Err(PlanError(format!("resize to `{}`: this mode needs {missing}", self.to)));
        }
        let sides = [self.width, self.height, self.size, self.min, Some(self.multiple)];
        if sides.into_iter().flatten().any(|side| side == 0 || side > MAX_SIDE_PIXELS) {
            return Err(PlanError(format!("resize to `{}`: a side has 1 to {MAX_SIDE_PIXELS} pixels", self.to)));
        }
        let rows = specs.pictures(&self.from)?;
        specs.set(&self.to, Spec::Pictures(rows))
    }

    fn run<'a>(&'a self, values: &mut Values<'a>) -> Result<(), StepError> {
        let mut left = MAX_RUN_PIXELS;
        let mut resized = Vec::new();
        for picture in values.pictures(&self.from)? {
            let (width, height) = self.target(picture);
            left = left
                .checked_sub(u64::from(width) * u64::from(height))
                .ok_or_else(|| StepError::input(format!("more than {MAX_RUN_PIXELS} pixels in one run")))?;
            resized.push(if picture.dimensions() == (width, height) {
                picture.clone()
            } else {
                imageops::resize(picture, width, height, self.filter.of_library())
            });
        }
        values.set(&self.to, Value::Pictures(resized));
        Ok(())
    }

    fn makes(&self) -> Vec<&str> {
        vec![&self.to]
    }

    fn reads(&self) -> Vec<&str> {
        vec![&self.from]
    }
}

/// `center_crop`: the middle `width` x `height` of each picture.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CenterCrop {
    from: String,
    to: String,
    width: u32,
    height: u32,
}

impl Step for CenterCrop {
    fn plan(&self, specs: &mut Specs) -> Result<(), PlanError> {
        let rows = specs.pictures(&self.from)?;
        specs.set(&self.to, Spec::Pictures(rows))
    }

    fn run<'a>(&'a self, values: &mut Values<'a>) -> Result<(), StepError> {
        let (wide, high) = (self.width, self.height);
        let mut cut = Vec::new();
        for picture in values.pictures(&self.from)? {
            let (width, height) = picture.dimensions();
            if width < wide || height < high {
                return Err(StepError::model(format!(
                    "a picture of {width} x {height} pixels is smaller than the {wide} x {high} cut out of it; resize it first"
                )));
            }
            cut.push(imageops::crop_imm(picture, (width - wide) / 2, (height - high) / 2, wide, high).to_image());
        }
        values.set(&self.to, Value::Pictures(cut));
        Ok(())
    }

    fn makes(&self) -> Vec<&str> {
        vec![&self.to]
    }

    fn reads(&self) -> Vec<&str> {
        vec![&self.from]
    }
}

/// `recompress`: through JPEG and back, for models whose training pictures had been through it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recompress {
    from: String,
    to: String,
    /// 1 to 100.
    quality: u8,
}

impl Step for Recompress {
    fn plan(&self, specs: &mut Specs) -> Result<(), PlanError> {
        if !(1..=100).contains(&self.quality) {
            return Err(PlanError("recompress: `quality` is 1 to 100".to_owned()));
        }
        let rows = specs.pictures(&self.from)?;
        specs.set(&self.to, Spec::Pictures(rows))
    }

    fn run<'a>(&'a self, values: &mut Values<'a>) -> Result<(), StepError> {
        let pictures = values.pictures(&self.from)?.iter().map(|picture| picture::recompress(picture, self.quality));
        let pictures: Vec<RgbImage> =
            pictures.collect::<Result<_, _>>().map_err(|error| StepError::model(error.to_string()))?;
        values.set(&self.to, Value::Pictures(pictures));
        Ok(())
    }

    fn makes(&self) -> Vec<&str> {
        vec![&self.to]
    }

    fn reads(&self) -> Vec<&str> {
        vec![&self.from]
    }
}

/// The order of a tensor's dimensions behind the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Layout {
    /// Channel, line, column.
    Nchw,
    /// Line, column, channel.
    Nhwc,
}

/// The order of the channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Channels {
    #[default]
    Rgb,
    Bgr,
}

/// `pixels`: pictures as FP32 [rows, ...]: each level times `scale`, minus the channel's `mean`, divided by its `std`.
/// All pictures of a run are as large as the largest: smaller ones get zeros at the right and at the bottom.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pixels {
    from: String,
    to: String,
    layout: Layout,
    #[serde(default)]
    channels: Channels,
    /// What a level, 0 to 255, is multiplied with.
    #[serde(default = "unscaled")]
    scale: f32,
    /// In the order of the channels.
    #[serde(default)]
    mean: [f32; 3],
    /// In the order of the channels.
    #[serde(default = "ones")]
    std: [f32; 3],
    /// Narrower pictures are filled up to this width.
    width: Option<u32>,
}

fn unscaled() -> f32 {
    1.0
}

fn ones() -> [f32; 3] {
    [1.0; 3]
}

impl Step for Pixels {
    fn plan(&self, specs: &mut Specs) -> Result<(), PlanError> {
        let rows = specs.pictures(&self.from)?;
        let any = || Dim::Any(());
        let dims = match self.layout {
            Layout::Nchw => vec![rows, Dim::Fixed(3), any(), any()],
            Layout::Nhwc => vec![rows, any(), any(), Dim::Fixed(3)],
        };
        if self.std.contains(&0.0) {
            return Err(PlanError("pixels: `std` is not 0".to_owned()));
        }
        specs.set(&self.to, Spec::Array(DataType::Fp32, dims))
    }

    fn run<'a>(&'a self, values: &mut Values<'a>) -> Result<(), StepError> {
        let pictures = values.pictures(&self.from)?;
        let width = pictures.iter().map(RgbImage::width).chain(self.width).max().unwrap_or(0);
        let height = pictures.iter().map(RgbImage::height).max().unwrap_or(0);
        let plane = u64::from(width) * u64::from(height);
        if plane.saturating_mul(pictures.len() as u64) > MAX_RUN_PIXELS {
            return Err(StepError::input(format!("more than {MAX_RUN_PIXELS} pixels in one run")));
        }
        let (wide, plane) = (width as usize, plane as usize);
        let mut tensor = vec![0.0_f32; plane * 3 * pictures.len()];
        let value = |channel: usize, level: u8| {
            let (mean, std) = (self.mean.get(channel).unwrap_or(&0.0), self.std.get(channel).unwrap_or(&1.0));
            (f32::from(level) * self.scale - mean) / std
        };
        // A level has 256 values: worked out once each.
        let table: Vec<[f32; 256]> =
            (0..3).map(|channel| std::array::from_fn(|level| value(channel, level as u8))).collect();
        let of = |channel: usize, level: u8| {
            table.get(channel).and_then(|levels| levels.get(usize::from(level))).copied().unwrap_or(0.0)
        };
        for (picture, room) in pictures.iter().zip(tensor.chunks_exact_mut((plane * 3).max(1))) {
            let columns = picture.width() as usize;
            for (line, pixels) in picture.as_raw().chunks_exact((columns * 3).max(1)).enumerate() {
                for channel in 0..3 {
                    let source = match self.channels {
                        Channels::Rgb => channel,
                        Channels::Bgr => 2 - channel,
                    };
                    let (start, step) = match self.layout {
                        Layout::Nchw => (channel * plane + line * wide, 1),
                        Layout::Nhwc => (line * wide * 3 + channel, 3),
                    };
                    let to = room.get_mut(start..).unwrap_or_default().iter_mut().step_by(step);
                    let levels = pixels.iter().skip(source).step_by(3);
                    for (to, level) in to.zip(levels) {
                        *to = of(channel, *level);
                    }
                }
            }
        }
        let (rows, height, width) = (pictures.len() as u64, u64::from(height), u64::from(width));
        let shape = match self.layout {
            Layout::Nchw => [rows, 3, height, width],
            Layout::Nhwc => [rows, height, width, 3],
        };
        values.set(&self.to, Value::Array(Array::floats(shape, tensor)));
        Ok(())
    }

    fn makes(&self) -> Vec<&str> {
        vec![&self.to]
    }

    fn reads(&self) -> Vec<&str> {
        vec![&self.from]
    }
}

/// `turn`: turns those pictures upside down whose `class` in `scores`, FP32 [rows, classes], is above `threshold`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    from: String,
    scores: String,
    class: usize,
    threshold: f32,
    to: String,
}

impl Step for Turn {
    fn plan(&self, specs: &mut Specs) -> Result<(), PlanError> {
        specs.floats_exactly(&self.scores, 2)?;
        let rows = specs.pictures(&self.from)?;
        specs.set(&self.to, Spec::Pictures(rows))
    }

    fn run<'a>(&'a self, values: &mut Values<'a>) -> Result<(), StepError> {
        let (scores, [rows, classes]) = values.floats::<2>(&self.scores)?;
        let pictures = values.pictures(&self.from)?;
        if rows != pictures.len() || classes <= self.class {
            return Err(StepError::model("the model's scores do not fit the pictures to be turned"));
        }
        let turned = |(picture, scores): (&RgbImage, &[f32])| match scores.get(self.class) {
            Some(score) if *score > self.threshold => imageops::rotate180(picture),
            _ => picture.clone(),
        };
        let pictures = pictures.iter().zip(scores.chunks_exact(classes)).map(turned).collect();
        values.set(&self.to, Value::Pictures(pictures));
        Ok(())
    }

    fn makes(&self) -> Vec<&str> {
        vec![&self.to]
    }

    fn reads(&self) -> Vec<&str> {
        vec![&self.from, &self.scores]
    }
}
