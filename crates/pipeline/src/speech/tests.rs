use super::*;
use crate::testing::{noise, reference};

#[test]
fn frames_overlap_by_their_context_and_the_last_is_filled_up() {
    let sound: Vec<f32> = (0..1_200).map(|index| index as f32).collect();
    let mut listener = Listener::new(&sound);
    let frames: Vec<Vec<f32>> = std::iter::from_fn(|| listener.next_frame()).collect();
    assert_eq!(frames.len(), 3);
    assert!(frames.iter().all(|frame| frame.len() == FRAME_SAMPLES));
    assert_eq!(frames[0][..CONTEXT_SAMPLES], [0.0; CONTEXT_SAMPLES]);
    assert_eq!(frames[0][CONTEXT_SAMPLES..], sound[..512]);
    assert_eq!(frames[1][..], sound[448..1024]);
    assert_eq!(frames[2][..240], sound[960..1200]);
    assert_eq!(frames[2][240..], [0.0; 336]);
}

#[test]
fn the_state_is_carried_and_checked() {
    let mut listener = Listener::new(&[]);
    assert_eq!(listener.state(), [0.0; STATE_VALUES]);
    assert_eq!(listener.carry(vec![1.0; 3]), Err(StateError(3)));
    listener.carry(vec![1.0; STATE_VALUES]).unwrap();
    assert_eq!(listener.state(), [1.0; STATE_VALUES]);
    assert_eq!(listener.next_frame(), None);
}

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
