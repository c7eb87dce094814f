use super::*;
use crate::testing::{fetched, noise, reference};

fn sentences() -> Sentences {
    Sentences::open(&fetched("minilm/tokenizer.json")).unwrap()
}

#[test]
fn tokens_are_those_of_the_reference() {
    let sentences = sentences();
    for (text, ids) in reference()["sentences"]["ids"].as_object().unwrap() {
        let encoded = sentences.encode(&[text]).unwrap();
        let expected: Vec<i64> = ids.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
        assert_eq!(encoded.input_ids, expected, "{text:?}");
        assert_eq!((encoded.rows, encoded.tokens), (1, expected.len()));
    }
}

#[test]
fn a_batch_is_as_long_as_its_longest_sentence() {
    let encoded = sentences().encode(&["A cat sits on the mat.", "Hi"]).unwrap();
    assert_eq!((encoded.rows, encoded.tokens), (2, 9));
    assert_eq!(encoded.attention_mask, [[1; 9], [1, 1, 1, 0, 0, 0, 0, 0, 0]].concat());
    assert_eq!(encoded.input_ids.len(), 18);
    assert_eq!(encoded.token_type_ids, [0; 18]);
}

#[test]
fn what_is_encoded_is_bounded() {
    let sentences = sentences();
    assert_eq!(sentences.encode(&[]), Err(EncodeError::Count(0)));
    assert_eq!(sentences.encode(&vec!["a"; MAX_SENTENCES + 1]), Err(EncodeError::Count(MAX_SENTENCES + 1)));
    let long = "a".repeat(MAX_SENTENCE_BYTES + 1);
    assert_eq!(sentences.encode(&[&long]), Err(EncodeError::Long(MAX_SENTENCE_BYTES + 1)));
    assert!(Sentences::open(b"{}").is_err());
}

#[test]
fn pooling_is_that_of_the_reference() {
    let hidden: Vec<f32> = noise(24, 6).into_iter().map(|byte| f32::from(byte) / 255.0 - 0.5).collect();
    let rows = pool(&hidden, &[1, 1, 0, 1, 1, 1], 3, 4).unwrap();
    let expected = &reference()["sentences"];
    for (row, unit) in rows.iter().zip(expected["unit"].as_array().unwrap()) {
        for (value, reference) in row.iter().zip(unit.as_array().unwrap()) {
            assert!((f64::from(*value) - reference.as_f64().unwrap()).abs() < 1e-5);
        }
    }
    assert!((f64::from(cosine(&rows[0], &rows[1])) - expected["cosine"].as_f64().unwrap()).abs() < 1e-5);
}

#[test]
fn pooling_checks_what_it_is_given() {
    assert!(pool(&[0.0; 8], &[1, 1], 2, 4).is_ok());
    for (values, mask, tokens, width) in [(7, 2, 2, 4), (8, 2, 0, 4), (0, 2, 2, 0), (12, 3, 2, 4)] {
        assert!(pool(&vec![0.0; values], &vec![1; mask], tokens, width).is_err(), "{values} {mask} {tokens} {width}");
    }
    assert_eq!(pool(&[1.0; 4], &[0], 1, 4).unwrap(), [[0.0; 4]]);
}
