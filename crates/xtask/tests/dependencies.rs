//! `docs/dependencies.md` names every crate we depend on directly, and no other.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::Path;

use cargo_metadata::MetadataCommand;

#[test]
fn every_direct_dependency_has_its_line() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec();
    let packages = metadata.unwrap().packages;
    let dependencies =
        packages.iter().flat_map(|package| &package.dependencies).map(|dependency| dependency.name.clone());
    let used: BTreeSet<String> = dependencies.filter(|name| !name.starts_with("tenantry-")).collect();
    let page = std::fs::read_to_string(root.join("docs/dependencies.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: BTreeSet<String> = rows.filter_map(|row| row.split('`').next()).map(str::to_owned).collect();
    let missing: Vec<_> = used.difference(&documented).collect();
    let stale: Vec<_> = documented.difference(&used).collect();
    assert!(missing.is_empty() && stale.is_empty(), "docs/dependencies.md: missing {missing:?}, stale {stale:?}");
}
