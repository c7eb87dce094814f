//! Detectors out: boxes that overlap are one, and lines of text are found and cut out.

use image::RgbImage;
use serde::Deserialize;
use tenantry_types::{DataType, Dim};

use super::Step;
use crate::array::Array;
use crate::text_lines::{self, Line};
use crate::value::{PlanError, Spec, Specs, StepError, Value, Values};

/// The most boxes that are compared with each other.
const MAX_CANDIDATES: usize = 10_000;

/// `nms`: of boxes that overlap by more than `iou` (intersection over union), the one with the best score
/// (Neubeck and Van Gool, 2006), class by class. Reads `boxes`, FP32 [1, n, 4]: left, top, right, bottom, and `scores`, FP32
/// [1, n, classes]; makes FP32 [kept, 4], FP32 [kept] and INT64 [kept], the best first.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nms {
    boxes: String,
    scores: String,
    #[serde(default = "half")]
    iou: f32,
    #[serde(default = "quarter")]
    min_score: f32,
    #[serde(default = "hundred")]
    max: usize,
    #[serde(default = "kept_boxes")]
    kept_boxes: String,
    #[serde(default = "kept_scores")]
    kept_scores: String,
    #[serde(default = "kept_classes")]
    kept_classes: String,
}

fn half() -> f32 {
    0.5
}

fn quarter() -> f32 {
    0.25
}

fn hundred() -> usize {
    100
}

fn kept_boxes() -> String {
    "kept_boxes".to_owned()
}

fn kept_scores() -> String {
    "kept_scores".to_owned()
}

fn kept_classes() -> String {
    "kept_classes".to_owned()
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    corners: [f32; 4],
    score: f32,
    class: usize,
}

fn area([left, top, right, bottom]: [f32; 4]) -> f32 {
    (right - left).max(0.0) * (bottom - top).max(0.0)
}

fn overlap(one: [f32; 4], other: [f32; 4]) -> f32 {
    let ([l, t, r, b], [left, top, right, bottom]) = (one, other);
    let both = area([l.max(left), t.max(top), r.min(right), b.min(bottom)]);
    let either = area(one) + area(other) - both;
    if either > 0.0 { both / either } else { 0.0 }
}

impl Nms {
    fn keep(&self, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
        candidates.retain(|candidate| candidate.score >= self.min_score);
        candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
        candidates.truncate(MAX_CANDIDATES);
        let mut kept: Vec<Candidate> = Vec::new();
        for candidate in candidates {
            if kept.len() >= self.max {
                break;
            }
            let covered = |better: &Candidate| {
                better.class == candidate.class && overlap(better.corners, candidate.corners) > self.iou
            };
            if !kept.iter().any(covered) {
                kept.push(candidate);
            }
        }
        kept
    }
}

impl Step for Nms {
    fn plan(&self, specs: &mut Specs) -> Result<(), PlanError> {
        for name in [&self.boxes, &self.scores] {
            let dims = specs.floats_exactly(name, 3)?;
            if !matches!(dims.first(), Some(Dim::Fixed(1))) {
                return Err(PlanError(format!(
                    "nms: `{name}` has a changing number of rows; write `rows = 1` at its [[input]]"
                )));
            }
        }
        let kept = || Dim::Named("kept".to_owned());
        specs.set(&self.kept_boxes, Spec::Array(DataType::Fp32, vec![kept(), Dim::Fixed(4)]))?;
        specs.set(&self.kept_scores, Spec::Array(DataType::Fp32, vec![kept()]))?;
        specs.set(&self.kept_classes, Spec::Array(DataType::Int64, vec![kept()]))
    }

    fn run<'a>(&'a self, values: &mut Values<'a>) -> Result<(), StepError> {
        let (boxes, [_, count, four]) = values.floats::<3>(&self.boxes)?;
        let (scores, [_, scored, classes]) = values.floats::<3>(&self.scores)?;
        if four != 4 || scored != count || classes == 0 {
            return Err(StepError::model("the model's boxes and scores do not fit each other"));
        }
        let best = |(corners, scores): (&[f32; 4], &[f32])| {
            let (class, score) = scores.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
            Some(Candidate { corners: *corners, score, class })
        };
        let kept =
            self.keep(boxes.as_chunks::<4>().0.iter().zip(scores.chunks_exact(classes)).filter_map(best).collect());
        let count = kept.len() as u64;
        let corners = kept.iter().flat_map(|kept| kept.corners).collect();
        values.set(&self.kept_boxes, Value::Array(Array::floats([count, 4], corners)));
        values
            .set(&self.kept_scores, Value::Array(Array::floats([count], kept.iter().map(|kept| kept.score).collect())));
        let classes = kept.iter().map(|kept| kept.class as i64).collect();
        values.set(&self.kept_classes, Value::Array(Array::longs([count], classes)));
        Ok(())
    }

    fn makes(&self) -> Vec<&str> {
        vec![&self.kept_boxes, &self.kept_scores, &self.kept_classes]
    }

    fn reads(&self) -> Vec<&str> {
        vec![&self.boxes, &self.scores]
    }
}

/// `text_boxes`: lines of text from a detector's map of probabilities, FP32 [1, 1, h, w] (differentiable binarisation, Liao
/// et al., 2020), from top to bottom: their corners in the picture, FP32 [lines, 4, 2], their scores, FP32 [lines], and
/// the pictures cut out, upright.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextBoxes {
    map: String,
    /// The picture the lines are cut out of.
    picture: String,
    #[serde(default = "threshold")]
    threshold: f32,
    #[serde(default = "half")]
    min_score: f32,
    /// By how much a line is wider than the map has it, as a part of its area over its circumference.
    #[serde(default = "unclip")]
    unclip: f32,
    #[serde(default = "thousand")]
    max: usize,
    #[serde(default = "boxes")]
    boxes: String,
    #[serde(default = "scores")]
    scores: String,
    #[serde(default = "crops")]
    crops: String,
}

fn threshold() -> f32 {
    0.3
}

fn unclip() -> f32 {
    1.6
}

fn thousand() -> usize {
    1000
}

fn boxes() -> String {
    "boxes".to_owned()
}

fn scores() -> String {
    "scores".to_owned()
}

fn crops() -> String {
    "crops".to_owned()
}

impl Step for TextBoxes {
    fn plan(&self, specs: &mut Specs) -> Result<(), PlanError> {
        specs.floats_exactly(&self.map, 4)?;
        let rows = specs.pictures(&self.picture)?;
        specs.one_row(&self.picture, &rows)?;
        let lines = || Dim::Named("lines".to_owned());
        specs.set(&self.boxes, Spec::Array(DataType::Fp32, vec![lines(), Dim::Fixed(4), Dim::Fixed(2)]))?;
        specs.set(&self.scores, Spec::Array(DataType::Fp32, vec![lines()]))?;
        specs.set(&self.crops, Spec::Pictures(lines()))
    }

    fn run<'a>(&'a self, values: &mut Values<'a>) -> Result<(), StepError> {
        let (map, [_, _, height, width]) = values.floats::<4>(&self.map)?;
        let picture = values.pictures(&self.picture)?.first();
        let picture = picture.ok_or_else(|| StepError::model("there is no picture to cut lines out of"))?;
        let map = map.get(..height.saturating_mul(width)).unwrap_or_default();
        let settings = text_lines::Settings {
            threshold: self.threshold,
            min_score: self.min_score,
            unclip: self.unclip,
            max: self.max,
        };
        let lines = text_lines::find(map, (width, height), picture.dimensions(), &settings);
        let crops: Vec<RgbImage> = lines.iter().map(|line| text_lines::cut(picture, line)).collect();
        let count = lines.len() as u64;
        let corners = lines.iter().flat_map(Line::numbers).collect();
        values.set(&self.boxes, Value::Array(Array::floats([count, 4, 2], corners)));
        values.set(&self.scores, Value::Array(Array::floats([count], lines.iter().map(|line| line.score).collect())));
        values.set(&self.crops, Value::Pictures(crops));
        Ok(())
    }

    fn makes(&self) -> Vec<&str> {
        vec![&self.boxes, &self.scores, &self.crops]
    }

    fn reads(&self) -> Vec<&str> {
        vec![&self.map, &self.picture]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_better_of_two_that_overlap_is_kept_class_by_class() {
        let nms: Nms = toml::from_str("boxes = 'b'\nscores = 's'").unwrap();
        let candidate = |corners, score, class| Candidate { corners, score, class };
        let kept = nms.keep(vec![
            candidate([0.0, 0.0, 10.0, 10.0], 0.8, 0),
            candidate([1.0, 0.0, 11.0, 10.0], 0.9, 0),
            candidate([1.0, 0.0, 11.0, 10.0], 0.7, 1),
            candidate([50.0, 50.0, 60.0, 60.0], 0.3, 0),
            candidate([80.0, 50.0, 90.0, 60.0], 0.2, 0),
        ]);
        let found: Vec<(f32, usize)> = kept.iter().map(|kept| (kept.score, kept.class)).collect();
        assert_eq!(found, [(0.9, 0), (0.7, 1), (0.3, 0)]);
    }
}
