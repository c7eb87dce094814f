use super::*;
use crate::testing::{fetched, reference};

fn sentences() -> Sentences {
    Sentences::open(&fetched("minilm/tokenizer.json"), None).unwrap()
}

#[test]
fn tokens_are_those_of_the_reference() {
    let sentences = sentences();
    for (text, ids) in reference()["sentences"]["ids"].as_object().unwrap() {
        let encoded = sentences.encode(&[Text::Words(text)]).unwrap();
        let expected: Vec<i64> = ids.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
        assert_eq!(encoded.input_ids, expected, "{text:?}");
        assert_eq!((encoded.rows, encoded.tokens), (1, expected.len()));
    }
}

#[test]
fn a_batch_is_as_long_as_its_longest_sentence() {
    let encoded = sentences().encode(&[Text::Words("A cat sits on the mat."), Text::Words("Hi")]).unwrap();
    assert_eq!((encoded.rows, encoded.tokens), (2, 9));
    assert_eq!(encoded.attention_mask, [[1; 9], [1, 1, 1, 0, 0, 0, 0, 0, 0]].concat());
    assert_eq!(encoded.input_ids.len(), 18);
    assert_eq!(encoded.token_type_ids, [0; 18]);
}

#[test]
fn what_is_encoded_is_bounded() {
    let sentences = sentences();
    assert_eq!(sentences.encode(&[]), Err(EncodeError::Count(0)));
    assert_eq!(
        sentences.encode(&vec![Text::Words("a"); MAX_SENTENCES + 1]),
        Err(EncodeError::Count(MAX_SENTENCES + 1))
    );
    let long = "a".repeat(MAX_SENTENCE_BYTES + 1);
    assert_eq!(sentences.encode(&[Text::Words(&long)]), Err(EncodeError::Long(MAX_SENTENCE_BYTES + 1)));
    assert!(Sentences::open(b"{}", None).is_err());
}

#[test]
fn a_cosine_is_that_of_the_reference() {
    let expected = &reference()["sentences"];
    let unit = |row: usize| -> Vec<f32> {
        expected["unit"][row].as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
    };
    assert!((f64::from(cosine(&unit(0), &unit(1))) - expected["cosine"].as_f64().unwrap()).abs() < 1e-5);
}

#[test]
fn ids_begin_with_a_byte_no_text_begins_with() {
    assert_eq!(Text::read(b"a"), Some(Text::Words("a")));
    assert_eq!(Text::read(b"\xff\x01\0\0\0"), Some(Text::Ids(vec![1])));
    assert_eq!(Text::read(b"\xff\x01\0\0"), None);
    assert_eq!(Text::read(b"a\xff"), None);
    // What is cut at another length has its special tokens all the same.
    let sentences = Sentences::open(&fetched("minilm/tokenizer.json"), Some(5)).unwrap();
    let encoded = sentences.encode(&[Text::Words("one two three four five six")]).unwrap();
    assert_eq!((encoded.tokens, encoded.input_ids[0], encoded.input_ids[4]), (5, 101, 102));
}
