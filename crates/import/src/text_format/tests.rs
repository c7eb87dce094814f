use proptest::prelude::*;

use super::*;

fn values(text: &str) -> Vec<(String, Value)> {
    parse(text).unwrap().fields.into_iter().map(|field| (field.name, field.value)).collect()
}

fn one(text: &str) -> Value {
    let mut values = values(text);
    assert_eq!(values.len(), 1, "{text}");
    values.remove(0).1
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

#[test]
fn every_form_of_a_value_is_read() {
    for (written, value) in [
        ("a: 1", Value::Integer(1)),
        ("a: - # a comment may stand here\n 0x1F", Value::Integer(-31)),
        ("a: 017", Value::Integer(15)),
        ("a: 0", Value::Integer(0)),
        ("a: 18446744073709551615", Value::Integer(u64::MAX.into())),
        ("a: 1.5f", Value::Float(1.5)),
        ("a: -.5", Value::Float(-0.5)),
        ("a: 1e-3", Value::Float(0.001)),
        ("a: 2E+2", Value::Float(200.0)),
        ("a: -inf", Value::Float(f64::NEG_INFINITY)),
        ("a: TYPE_FP32", Value::Word("TYPE_FP32".to_owned())),
        ("a: true", Value::Word("true".to_owned())),
        (r#"a: "x""#, text("x")),
        (r#"a: 'it"s' " " "two""#, text("it\"s two")),
        (r#"a: "\t\\\"\101\x41\u00e4\U0001F600\303\244""#, text("\t\\\"AAä😀ä")),
        ("a { }", Value::Message(Message::default())),
        ("a: < >", Value::Message(Message::default())),
    ] {
        assert_eq!(one(written), value, "{written}");
    }
}

#[test]
fn lists_are_fields_of_one_name_and_separators_are_free() {
    let numbers = |name: &str, numbers: &[i128]| -> Vec<(String, Value)> {
        numbers.iter().map(|number| (name.to_owned(), Value::Integer(*number))).collect()
    };
    assert_eq!(values("d: [1, 2,3]"), numbers("d", &[1, 2, 3]));
    assert_eq!(values("d: 1 d: 2; d: 3,"), numbers("d", &[1, 2, 3]));
    assert_eq!(values("d: []"), []);
    let [(_, Value::Message(first)), (_, Value::Message(second))] = &values("m [ { d: 1 }, { d: 2 } ]")[..] else {
        panic!("two messages")
    };
    assert_eq!((first.fields.len(), second.fields[0].value.clone()), (1, Value::Integer(2)));
    assert_eq!(values("[a.b/c-d.E] { x: 1 }")[0].0, "[a.b/c-d.E]");
}

#[test]
fn errors_say_where() {
    for (written, line) in [
        ("a", 1),
        ("a: 1\nb: {\n  c 2\n}", 3),
        ("a: 1\n}", 2),
        ("a {", 1),
        ("a: [1 2]", 1),
        ("a: [1,]", 1),
        ("a: \"x\ny\"", 1),
        ("a: \"\\q\"", 1),
        ("a: \"\\777\"", 1),
        ("a: \"\\ud800\"", 1),
        ("a: \"\\xff\"", 1),
        ("a: 99999999999999999999", 1),
        ("a: 1x", 1),
        ("a: 09", 1),
        ("a: 1e", 1),
        ("a: --1", 1),
        ("# only\n$", 2),
        ("[a", 1),
    ] {
        assert_eq!(parse(written).map_err(|error| error.line), Err(line), "{written}");
    }
}

#[test]
fn length_depth_and_number_are_bounded() {
    let nested = |depth: usize| format!("{}{}", "a{".repeat(depth), "}".repeat(depth));
    assert!(parse(&nested(MAX_DEPTH)).is_ok());
    assert!(parse(&nested(MAX_DEPTH + 1)).is_err());
    assert!(parse(&nested(100_000)).is_err());
    assert!(parse(&"a:1 ".repeat(MAX_FIELDS)).is_ok());
    assert!(parse(&"a:1 ".repeat(MAX_FIELDS + 1)).is_err());
    assert!(parse(&format!("a:[{}1]", "1,".repeat(MAX_FIELDS))).is_err());
    assert!(parse(&" ".repeat(MAX_TEXT_BYTES + 1)).is_err());
    assert!(parse(&" ".repeat(MAX_TEXT_BYTES)).is_ok());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in r#"[a-c\[\]{}<>:;,"'\\\-.0-9xuU# \n]{0,60}"#) {
        let _ = parse(&text);
    }

    #[test]
    fn any_text_can_be_quoted(content in any::<String>()) {
        let quoted: String = content
            .chars()
            .map(|c| match c {
                '"' | '\\' => format!("\\{c}"),
                '\n' => "\\n".to_owned(),
                c => c.to_string(),
            })
            .collect();
        prop_assert_eq!(one(&format!("a: \"{quoted}\"")), Value::Text(content));
    }
}
