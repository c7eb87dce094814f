//! Lines of text from a detector's map of probabilities, and the pictures cut out along them.
//!
//! Connected regions of the map become the smallest rectangles around them. The detector was trained on regions shrunk by
//! a distance D = area * (1 - r^2) / circumference, so each rectangle grows again by a like distance on every side
//! (Liao et al., "Real-time Scene Text Detection with Differentiable Binarization", 2020, section 3.5).

use image::{GrayImage, Luma, Rgb, RgbImage, imageops};
use imageproc::contours::{BorderType, find_contours_with_threshold};
use imageproc::geometric_transformations::{Border, Interpolation, Projection, warp_into};
use imageproc::geometry::min_area_rect;
use imageproc::point::Point;

/// The shorter side of a region that is looked at, pixels of the map.
const MIN_SIDE: f32 = 3.0;
/// Lines whose tops differ by less are one beside the other, pixels of the picture.
const SAME_HEIGHT: f32 = 10.0;
/// A line this much higher than wide is written from top to bottom, and laid down.
const UPRIGHT: f32 = 1.5;
/// The longest side of a picture that is cut out, pixels.
const MAX_CUT_SIDE: f32 = 8192.0;

/// What counts as a line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) threshold: f32,
    pub(crate) min_score: f32,
    pub(crate) unclip: f32,
    pub(crate) max: usize,
}

/// A line of text in a picture.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    /// Top left, top right, bottom right, bottom left, pixels of the picture.
    pub(crate) corners: [(f32, f32); 4],
    /// The mean probability inside.
    pub(crate) score: f32,
}

impl Line {
    pub(crate) fn numbers(&self) -> impl Iterator<Item = f32> + use<> {
        self.corners.into_iter().flat_map(|(x, y)| [x, y])
    }
}

/// Finds the lines in a map of `extents` (width, height) of a picture of `size`.
pub(crate) fn find(map: &[f32], extents: (usize, usize), size: (u32, u32), settings: &Settings) -> Vec<Line> {
    let (width, height) = extents;
    if width == 0 || height == 0 || map.len() != width.saturating_mul(height) {
        return Vec::new();
    }
    let is_text =
        |x: u32, y: u32| map.get(y as usize * width + x as usize).is_some_and(|value| *value > settings.threshold);
    let regions = GrayImage::from_fn(width as u32, height as u32, |x, y| Luma([if is_text(x, y) { 255 } else { 0 }]));
    let contours = find_contours_with_threshold::<i32>(&regions, 127);
    let (scale_x, scale_y) = (size.0 as f32 / width as f32, size.1 as f32 / height as f32);
    let clamp = |(x, y): (f32, f32)| {
        let limit = |value: f32, side: u32| value.round().clamp(0.0, side.saturating_sub(1) as f32);
        (limit(x * scale_x, size.0), limit(y * scale_y, size.1))
    };
    let mut lines = Vec::new();
    for contour in contours.iter().filter(|contour| contour.border_type == BorderType::Outer).take(settings.max) {
        if contour.points.is_empty() {
            continue;
        }
        let corners = min_area_rect(&contour.points).map(|Point { x, y }| (x as f32, y as f32));
        if shorter_side(&corners) < MIN_SIDE {
            continue;
        }
        let score = mean_inside(map, extents, &corners);
        if score < settings.min_score {
            continue;
        }
        let corners = grown(&corners, settings.unclip).map(clamp);
        if shorter_side(&corners) >= MIN_SIDE {
            lines.push(Line { corners, score });
        }
    }
    in_reading_order(&mut lines);
    lines
}

fn distance((x, y): (f32, f32), (to_x, to_y): (f32, f32)) -> f32 {
    (x - to_x).hypot(y - to_y)
}

fn sides([a, b, c, d]: &[(f32, f32); 4]) -> (f32, f32) {
    (distance(*a, *b).max(distance(*d, *c)), distance(*a, *d).max(distance(*b, *c)))
}

fn shorter_side(corners: &[(f32, f32); 4]) -> f32 {
    let (wide, high) = sides(corners);
    wide.min(high)
}

/// The rectangle, larger on every side by its area over its circumference times `ratio`.
fn grown(corners: &[(f32, f32); 4], ratio: f32) -> [(f32, f32); 4] {
    let (wide, high) = sides(corners);
    let by = wide * high * ratio / (2.0 * (wide + high)).max(f32::EPSILON);
    let center = corners.iter().fold((0.0, 0.0), |sum, corner| (sum.0 + corner.0 / 4.0, sum.1 + corner.1 / 4.0));
    let [a, b, _, d] = *corners;
    let unit = |from: (f32, f32), to: (f32, f32)| {
        let length = distance(from, to).max(f32::EPSILON);
        ((to.0 - from.0) / length, (to.1 - from.1) / length)
    };
    let (along, across) = (unit(a, b), unit(a, d));
    let (half_wide, half_high) = (wide / 2.0 + by, high / 2.0 + by);
    [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)].map(|(x, y)| {
        (
            center.0 + x * half_wide * along.0 + y * half_high * across.0,
            center.1 + x * half_wide * along.1 + y * half_high * across.1,
        )
    })
}

/// The mean of the map inside a convex quadrangle.
fn mean_inside(map: &[f32], (width, height): (usize, usize), corners: &[(f32, f32); 4]) -> f32 {
    let bounds = |values: [f32; 4], limit: usize| {
        let (low, high) =
            values.iter().fold((f32::MAX, f32::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
        (low.floor().max(0.0) as usize, (high.ceil().max(0.0) as usize).min(limit.saturating_sub(1)))
    };
    let (left, right) = bounds(corners.map(|corner| corner.0), width);
    let (top, bottom) = bounds(corners.map(|corner| corner.1), height);
    let (mut sum, mut count) = (0.0_f64, 0_u64);
    for y in top..=bottom {
        for x in left..=right {
            if is_inside((x as f32, y as f32), corners) {
                sum += f64::from(map.get(y * width + x).copied().unwrap_or(0.0));
                count += 1;
            }
        }
    }
    if count == 0 { 0.0 } else { (sum / count as f64) as f32 }
}

/// Whether a point lies on one side of all edges.
fn is_inside((x, y): (f32, f32), corners: &[(f32, f32); 4]) -> bool {
    let next = corners.iter().cycle().skip(1);
    let side = |((from_x, from_y), (to_x, to_y)): (&(f32, f32), &(f32, f32))| {
        (to_x - from_x) * (y - from_y) - (to_y - from_y) * (x - from_x)
    };
    let (mut left, mut right) = (false, false);
    for value in corners.iter().zip(next).map(side) {
        left |= value > 0.0;
        right |= value < 0.0;
    }
    !(left && right)
}

/// From top to bottom; what is at about the same height from left to right.
fn in_reading_order(lines: &mut [Line]) {
    let start = |line: &Line| line.corners.first().copied().unwrap_or_default();
    lines.sort_by(|a, b| start(a).1.total_cmp(&start(b).1));
    let mut rest = lines;
    while let Some(first) = rest.first() {
        let top = start(first).1;
        let row = rest.iter().take_while(|line| start(line).1 - top < SAME_HEIGHT).count().max(1);
        let (row, others) = rest.split_at_mut(row);
        row.sort_by(|a, b| start(a).0.total_cmp(&start(b).0));
        rest = others;
    }
}

/// The picture along a line, laid flat; one that is much higher than wide is turned by a quarter.
pub(crate) fn cut(picture: &RgbImage, line: &Line) -> RgbImage {
    let (wide, high) = sides(&line.corners);
    let (wide, high) = (wide.clamp(1.0, MAX_CUT_SIDE), high.clamp(1.0, MAX_CUT_SIDE));
    let mut cut = RgbImage::new(wide as u32, high as u32);
    let flat = [(0.0, 0.0), (wide, 0.0), (wide, high), (0.0, high)];
    // Corners on one line have no projection; what is left is black, and reads as nothing.
    if let Some(projection) = Projection::from_control_points(line.corners, flat) {
        warp_into(picture, projection, Interpolation::Bilinear, Border::Constant(Rgb([0; 3])), &mut cut);
    }
    if high / wide >= UPRIGHT { imageops::rotate270(&cut) } else { cut }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings { threshold: 0.3, min_score: 0.5, unclip: 1.6, max: 100 };

    /// A map with two words on one height and one below, the picture twice as large.
    #[test]
    fn lines_are_found_in_reading_order_and_grow() {
        let (width, height) = (100, 60);
        let mut map = vec![0.0; width * height];
        let mut fill = |left: usize, top: usize, wide: usize, high: usize| {
            for y in top..top + high {
                map[y * width + left..y * width + left + wide].fill(0.9);
            }
        };
        fill(60, 11, 30, 8);
        fill(10, 10, 30, 8);
        fill(10, 40, 50, 8);
        let lines = find(&map, (width, height), (200, 120), &SETTINGS);
        let starts: Vec<(f32, f32)> = lines.iter().map(|line| line.corners[0]).collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(starts[0].0 < starts[1].0 && starts[1].1 < starts[2].1, "{starts:?}");
        // 29 x 7 between the outer pixels' centers grow by 29 * 7 * 1.6 / 72, about 4.5, in the map: 9 in the picture.
        let first = &lines[0];
        assert!((first.corners[0].0 - 11.0).abs() <= 2.0 && (first.corners[0].1 - 11.0).abs() <= 2.0, "{first:?}");
        assert!((first.corners[2].0 - 87.0).abs() <= 2.0 && (first.corners[2].1 - 43.0).abs() <= 2.0, "{first:?}");
        assert!(first.score > 0.85);
    }

    #[test]
    fn nothing_is_found_in_nothing() {
        assert_eq!(find(&[], (0, 0), (10, 10), &SETTINGS), []);
        assert_eq!(find(&[0.0; 100], (10, 10), (10, 10), &SETTINGS), []);
        assert_eq!(find(&[f32::NAN; 100], (10, 10), (10, 10), &SETTINGS), []);
        // A map of another size than it says.
        assert_eq!(find(&[1.0; 99], (10, 10), (10, 10), &SETTINGS), []);
    }

    #[test]
    fn a_cut_is_what_lies_along_the_line() {
        let picture = RgbImage::from_fn(40, 20, |x, y| Rgb([x as u8, y as u8, 0]));
        let line = Line { corners: [(10.0, 5.0), (30.0, 5.0), (30.0, 15.0), (10.0, 15.0)], score: 1.0 };
        let cut_out = cut(&picture, &line);
        assert_eq!(cut_out.dimensions(), (20, 10));
        assert_eq!(cut_out.get_pixel(3, 4), &Rgb([13, 9, 0]));
        let upright = Line { corners: [(10.0, 0.0), (15.0, 0.0), (15.0, 19.0), (10.0, 19.0)], score: 1.0 };
        assert_eq!(cut(&picture, &upright).dimensions(), (19, 5));
    }
}
