use tenantry_types::Digest;

use super::*;
use crate::testing::{fetched, noise, reference};

fn file_types() -> FileTypes {
    FileTypes::open(&fetched("magika/config.min.json"), &fetched("magika/content_types_kb.min.json")).unwrap()
}

#[test]
fn features_are_those_of_the_reference() {
    let file_types = file_types();
    let contents = [
        ("spaces around", b"\r\n\t  print('hello, world')  \x0b\x0c\n".to_vec()),
        ("long text", b"The quick brown fox. ".repeat(400)),
        ("noise", noise(10_000, 1)),
        ("space then noise", [vec![b' '; 5000], noise(100, 2), vec![b'\n'; 5000]].concat()),
        ("one block", noise(4096, 3)),
        ("one block and one", noise(4097, 4)),
        ("exactly the start", noise(1024, 5)),
    ];
    for (name, content) in contents {
        let expected = reference()["file_types"]["features"][name].as_str().unwrap().to_owned();
        match file_types.question(&content) {
            Question::Ask(tokens) => {
                let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
                assert_eq!(tokens.len(), 2048);
                assert_eq!(Digest::of(&bytes).to_string(), expected, "{name}");
            }
            // All that is read of it at the start is white space: the reference's features exist but are not used.
            Question::Answered(_) => assert_eq!(name, "space then noise"),
        }
    }
}

#[test]
fn too_little_is_answered_without_the_model_as_in_the_reference() {
    let file_types = file_types();
    let contents = [
        ("empty", Vec::new()),
        ("seven", b"1234567".to_vec()),
        ("seven odd", b"\xff123456".to_vec()),
        ("blank", vec![b' '; 50]),
        ("eight with space", b"123456 \n".to_vec()),
        ("blank block", vec![b'\n'; 9000]),
    ];
    for (name, content) in contents {
        let answer = match file_types.question(&content) {
            Question::Answered(answer) => Some(answer.label),
            Question::Ask(_) => None,
        };
        assert_eq!(answer.as_deref(), reference()["file_types"]["without_model"][name].as_str(), "{name}");
    }
}

#[test]
fn answers_are_read_as_in_the_reference() {
    let file_types = file_types();
    let labels = file_types.configuration.target_labels_space.clone();
    for case in reference()["file_types"]["answers"].as_array().unwrap() {
        let (label, score, expected) = (case[0].as_str().unwrap(), case[1].as_f64().unwrap(), case[2].as_str());
        // The model has no output `txt`; the reference's rule for it is reached through the same function.
        let answer = match labels.iter().position(|known| known == label) {
            Some(index) => {
                let mut scores = vec![0.0; labels.len()];
                scores[index] = score as f32;
                file_types.answer(&scores).unwrap()
            }
            None => file_types.read(label, score as f32),
        };
        assert_eq!(Some(answer.label.as_str()), expected, "{label} {score}");
    }
}

#[test]
fn an_answer_is_in_words() {
    let file_types = file_types();
    let python = file_types.read("python", 0.99);
    assert_eq!((python.description.as_str(), python.mime_type.as_str()), ("Python source", "text/x-python"));
    assert!(python.is_text);
}

#[test]
fn a_wrong_number_of_scores_is_an_error() {
    let expected = file_types().configuration.target_labels_space.len();
    assert_eq!(file_types().answer(&[]), Err(AnswerError { found: 0, expected }));
    assert!(file_types().answer(&vec![0.0; expected + 1]).is_err());
}

#[test]
fn configurations_of_another_kind_are_refused() {
    let good = String::from_utf8(fetched("magika/config.min.json")).unwrap();
    for (from, to) in [("\"mid_size\":0", "\"mid_size\":64"), ("\"beg_size\":1024", "\"beg_size\":4096"), ("{", "[")] {
        assert!(FileTypes::open(good.replacen(from, to, 1).as_bytes(), b"{}").is_err(), "{to}");
    }
}
