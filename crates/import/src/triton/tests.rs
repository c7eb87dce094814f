use std::fmt::Write as _;

use super::*;
use crate::text_format;

fn read(folder: &str, text: &str) -> Plan {
    plan(folder, &text_format::parse(text).unwrap())
}

/// A plan as people read it: what it became, then a line a setting.
fn report(plan: &Plan) -> String {
    let mut text = String::new();
    if let Some(reason) = &plan.skipped {
        let _ = writeln!(text, "skipped: {reason}");
    }
    for finding in &plan.findings {
        let outcome = match finding.outcome {
            Outcome::Applied => "+",
            Outcome::Ignored => "-",
            Outcome::Compared | Outcome::Differs => "?",
        };
        let _ = writeln!(text, "{outcome} {} = {}: {}", finding.setting, finding.value, finding.note);
    }
    text
}

/// Golden reports live beside this file; `UPDATE_GOLDEN=1` writes them.
fn check(name: &str, folder: &str) -> Plan {
    let place = concat!(env!("CARGO_MANIFEST_DIR"), "/src/triton/golden/");
    let text = std::fs::read_to_string(format!("{place}{name}.pbtxt")).unwrap();
    let plan = read(folder, &text);
    let golden = format!("{place}{name}.txt");
    let found = report(&plan);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(golden).unwrap_or_default(), "{name}");
    plan
}

#[test]
fn a_classifier_with_most_settings() {
    let plan = check("classifier", "Classifier");
    assert_eq!(plan.skipped, None);
    assert_eq!((plan.settings.max_batch, plan.settings.max_batch_delay_ms), (Some(16), Some(1)));
    assert_eq!((plan.settings.threads, plan.settings.optimization), (Some(2), Some(Optimization::Extended)));
    assert_eq!((plan.min_replicas, plan.max_replicas, plan.keeps_answers), (Some(1), Some(3), true));
    assert_eq!(plan.versions, VersionPolicy::Specific(vec![1, 3]));
    assert_eq!(plan.filename.as_deref(), Some("classifier.onnx"));
    assert_eq!(plan.tags["team"], "vision");
    let image = Declared {
        name: "image".to_owned(),
        datatype: Some(DataType::Uint8),
        dims: Some(vec![3, 224, -1]),
        leading: Leading::Batch,
    };
    assert_eq!(plan.inputs, [image]);
    assert_eq!(plan.outputs[0].dims.as_deref(), Some(&[1000, 1, 1][..]), "as the model has it");
}

#[test]
fn what_is_not_onnx_is_skipped_with_a_reason() {
    let plan = check("tensorrt", "detector");
    assert!(plan.skipped.unwrap().contains("`tensorrt_plan`"));
}

#[test]
fn an_ensemble_becomes_a_chain() {
    let plan = check("ensemble", "ocr");
    assert_eq!((plan.skipped.as_ref(), plan.settings.max_batch), (None, None));
    let chain = plan.chain.unwrap();
    let models: Vec<(&str, Option<u64>)> = chain.stages.iter().map(|s| (s.model.as_str(), s.version)).collect();
    assert_eq!(models, [("detect", None), ("read", Some(3))]);
    assert_eq!(chain.stages[1].inputs["boxes"], "boxes");
}

#[test]
fn a_stateful_model_and_settings_of_later_versions() {
    let plan = check("sequence", "speech");
    assert_eq!(plan.skipped, None, "it can be called; the client sends what Triton added");
    let shapes: Vec<(&str, &[u64])> = plan.states.iter().map(|s| (s.next.as_str(), s.shape.as_slice())).collect();
    assert_eq!(shapes, [("H_NEXT", &[1, 2, 128][..])], "with the row of a sequence in front, and fixed only");
}

#[test]
fn a_file_outside_of_its_folder_is_never_taken() {
    for name in ["../../etc/passwd", "/etc/passwd", "..", "a/b", "a\\\\b"] {
        let plan = read("m", &format!("backend: \"onnxruntime\" default_model_filename: \"{name}\""));
        assert!(plan.skipped.is_some() && plan.filename.is_none(), "{name}");
    }
}

#[test]
fn numbers_out_of_range_change_nothing() {
    for text in [
        "max_batch_size: -1",
        "max_batch_size: 4294967296",
        "dynamic_batching { max_queue_delay_microseconds: -5 }",
        "optimization { graph { level: 7 } }",
        "parameters { key: \"intra_op_thread_count\" value { string_value: \"70000\" } }",
        "parameters { key: \"intra_op_thread_count\" value { string_value: \"two\" } }",
        "max_batch_size: \"8\"",
        "dynamic_batching: true",
    ] {
        let plan = read("m", text);
        assert_eq!(plan.settings, tenantry_types::model::VersionSettings::default(), "{text}");
        assert!(plan.findings.iter().any(|finding| finding.outcome == Outcome::Ignored), "{text}");
    }
    let many = read("m", "instance_group { count: 60 } instance_group { count: 60 } max_batch_size: 0");
    assert_eq!((many.max_replicas, many.settings.max_batch), (Some(64), Some(1)));
    let slow = read("m", "dynamic_batching { max_queue_delay_microseconds: 9000000 }");
    assert_eq!(slow.settings.max_batch_delay_ms, Some(1_000));
}

#[test]
fn versions_are_selected_by_the_policy() {
    let present = [3, 1, 20];
    let selected = |text: &str| read("m", text).versions.select(&present);
    assert_eq!(selected(""), [20]);
    assert_eq!(selected("version_policy { latest { num_versions: 2 } }"), [3, 20]);
    assert_eq!(selected("version_policy: { all: {} }"), [1, 3, 20]);
    assert_eq!(selected("version_policy { specific: { versions: [1, 7] } }"), [1]);
    assert_eq!(selected("version_policy { latest { num_versions: 0 } }"), [20]);
}

#[test]
fn platform_and_backend_say_the_same_in_two_ways() {
    assert_eq!(read("m", "platform: \"onnxruntime_onnx\" backend: \"\"").skipped, None);
    assert_eq!(read("m", "backend: \"onnxruntime\" platform: \"\"").skipped, None);
    assert_eq!(read("m", "").skipped, None, "the file decides");
    assert!(read("m", "backend: \"python\"").skipped.is_some());
}

/// A name in a report could otherwise colour a terminal or hide a line.
#[test]
fn what_is_shown_is_made_fit_to_show() {
    let plan = read(
        "m",
        "name: \"\\033[31m\" input { name: \"x\\ny\" label_filename: \"\\007\" } metric_tags { key: \"a\\nb\" }",
    );
    for finding in &plan.findings {
        let shown = format!("{}{}{}", finding.setting, finding.value, finding.note);
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
    }
    assert!(plan.tags.is_empty());
}
