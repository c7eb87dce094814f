use super::*;

fn points(points: &[(u32, u64)]) -> Vec<BatchPoint> {
    points.iter().map(|(rows, run_ns)| BatchPoint { rows: *rows, run_ns: *run_ns }).collect()
}

#[test]
fn the_best_batch_is_the_smallest_that_is_about_as_good_as_any() {
    // Per row: 100, 68, 57, 50.5, 49.5, 50.
    let short_text = points(&[(1, 100), (2, 136), (4, 228), (8, 404), (16, 792), (32, 1600)]);
    assert_eq!(best_batch(&short_text), 8);
    // Two percent better is not better.
    assert_eq!(best_batch(&points(&[(1, 100), (2, 197), (4, 400)])), 1);
    assert_eq!(best_batch(&points(&[(1, 100), (2, 190), (4, 420)])), 2);
    // A convolutional net: batching loses.
    assert_eq!(best_batch(&points(&[(1, 100), (2, 204), (4, 425)])), 1);
    assert_eq!(best_batch(&points(&[(1, 100)])), 1);
    assert_eq!(best_batch(&[]), 1);
    assert_eq!(best_batch(&points(&[(1, u64::MAX), (2, u64::MAX)])), 2);
}

#[test]
fn measuring_stops_when_batches_keep_losing() {
    assert!(is_falling(&points(&[(1, 100), (2, 230), (4, 460)])));
    assert!(!is_falling(&points(&[(1, 100), (2, 230)])));
    assert!(!is_falling(&points(&[(1, 100), (2, 230), (4, 400)])));
}

#[test]
fn rounding_is_forgiven_and_difference_is_not() {
    let floats = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let same = |one: &[f32], other: &[f32]| same_values(DataType::Fp32, &floats(one), &floats(other));
    assert!(same(&[1.0, -2.0, f32::NAN, f32::INFINITY], &[1.001, -2.0, f32::NAN, f32::INFINITY]));
    assert!(!same(&[1.0, 2.0], &[1.1, 2.0]));
    assert!(!same(&[1.0, f32::NAN], &[1.0, 1.0]));
    assert!(!same(&[1.0], &[1.0, 1.0]));
    assert!(same(&[0.0], &[1e-9]));
    assert!(!same_values(DataType::Int64, &[1; 8], &[2; 8]));
}

#[test]
fn the_median_is_the_middle() {
    assert_eq!(median(&mut [9, 1, 5]), 5);
    assert_eq!(median(&mut []), 1);
}
