use super::*;
use crate::testing::{noise, reference};

#[test]
fn segments_are_those_of_the_reference() {
    for case in reference()["speech"].as_array().unwrap() {
        let values = noise(60, case["seed"].as_u64().unwrap() as u32);
        let probabilities: Vec<f32> = values
            .chunks_exact(2)
            .flat_map(|pair| {
                let level = (f64::from(pair[1]) / 255.0 * 100.0).round() / 100.0;
                vec![level as f32; usize::from(pair[0] % 14) + 1]
            })
            .collect();
        let samples = case["samples"].as_u64().unwrap() as usize;
        let mut found = spans(&probabilities, samples);
        pad(&mut found, samples);
        let expected: Vec<(usize, usize)> = serde_json::from_value(case["segments"].clone()).unwrap();
        assert_eq!(found, expected, "seed {}", case["seed"]);
    }
}

#[test]
fn segments_are_in_seconds() {
    let mut probabilities = vec![0.0; 20];
    probabilities[5..15].fill(1.0);
    let found = segments(&probabilities, 20 * NEW_SAMPLES);
    assert_eq!(found, [Segment { start: Duration::from_millis(130), end: Duration::from_millis(510) }]);
    assert_eq!(segments(&[], 0), []);
}
