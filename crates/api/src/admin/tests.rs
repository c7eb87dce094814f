use std::path::Path;

use super::*;

/// The committed copy is what the code says. `UPDATE_REFERENCE=1` rewrites it.
#[test]
fn the_committed_document_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let current = openapi();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == current, "docs/openapi.json is stale; run this test with UPDATE_REFERENCE=1");
}

#[test]
fn every_operation_is_documented_with_its_errors_and_needs_a_key() {
    let document: serde_json::Value = serde_json::from_str(&openapi()).unwrap();
    assert_eq!(document["security"][0]["key"], serde_json::json!([]));
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 14, "{}", paths.len());
    for (path, operations) in paths {
        assert!(path.starts_with("/admin/v1/"), "{path}");
        for (method, operation) in operations.as_object().unwrap() {
            assert!(operation.get("security").is_none(), "{method} {path} weakens the document's security");
            assert!(operation["summary"].is_string(), "{method} {path} has no summary");
            assert!(operation["responses"]["default"].is_object(), "{method} {path} does not document errors");
        }
    }
}

#[test]
fn settings_of_a_version_read_the_same_on_both_sides() {
    let json = r#"{"max_batch":8,"max_batch_delay_ms":2,"max_run_ms":3,"threads":4,"optimization":"extended","disabled_optimizers":["x"],"prepack":false}"#;
    let wire: types::VersionSettings = serde_json::from_str(json).unwrap();
    let meant: tenantry_types::model::VersionSettings = serde_json::from_str(json).unwrap();
    assert_eq!(tenantry_types::model::VersionSettings::from(wire.clone()), meant);
    assert_eq!(types::VersionSettings::from(meant), wire);
}
