//! Texts of model folders to import: whatever lies there, no panic, bounded work, and what is read means the same when it is
//! written and read again. What a report would show is fit to show.

#![no_main]

use std::fmt::Write as _;

use libfuzzer_sys::fuzz_target;
use tenantry_import::text_format::{Message, Value, parse};
use tenantry_import::triton;

fuzz_target!(|input: &[u8]| {
    let Ok(message) = std::str::from_utf8(input).map_err(drop).and_then(|text| parse(text).map_err(drop)) else {
        return;
    };
    let mut written = String::new();
    write(&message, &mut written);
    let again = parse(&written).expect("what was written can be read");
    assert!(is_same(&message, &again), "{written}");

    let plan = triton::plan("model", &message);
    for finding in &plan.findings {
        let shown = format!("{}{}{}", finding.setting, finding.value, finding.note);
        assert!(!shown.chars().any(char::is_control));
    }
    let filename = plan.filename.unwrap_or_default();
    assert!(!filename.contains(['/', '\\', '\0']) && filename != "..");
    let selected = plan.versions.select(&[1, 2, 3]);
    assert!(selected.is_sorted() && selected.iter().all(|number| (1..=3).contains(number)));
    if let Some(max_replicas) = plan.max_replicas {
        assert!((1..=64).contains(&max_replicas));
    }
});

fn write(message: &Message, into: &mut String) {
    for field in &message.fields {
        let _ = write!(into, "{}: ", field.name);
        match &field.value {
            Value::Text(text) => {
                into.push('"');
                text.bytes().for_each(|byte| {
                    let _ = write!(into, "\\{byte:03o}");
                });
                into.push('"');
            }
            Value::Word(word) => into.push_str(word),
            Value::Integer(number) => {
                let _ = write!(into, "{number}");
            }
            Value::Float(number) if number.is_nan() => into.push_str("nan"),
            Value::Float(number) if number.is_infinite() => into.push_str(if *number > 0.0 { "inf" } else { "-inf" }),
            Value::Float(number) => {
                let _ = write!(into, "{number:e}");
            }
            Value::Message(inner) => {
                into.push('{');
                write(inner, into);
                into.push('}');
            }
        }
        into.push('\n');
    }
}

/// Lines apart.
fn is_same(one: &Message, other: &Message) -> bool {
    one.fields.len() == other.fields.len()
        && one.fields.iter().zip(&other.fields).all(|(one, other)| {
            one.name == other.name
                && match (&one.value, &other.value) {
                    (Value::Message(one), Value::Message(other)) => is_same(one, other),
                    (Value::Float(one), Value::Float(other)) => one == other || (one.is_nan() && other.is_nan()),
                    (one, other) => one == other,
                }
        })
}
