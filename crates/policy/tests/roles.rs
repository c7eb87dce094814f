//! The golden table: what each built-in role may do to its own tenant's things, shared ones and others', as the documents have it.
#![forbid(unsafe_code)]

use tenantry_policy::Policies;

#[test]
fn the_table_of_roles_is_the_one_in_the_documents() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/roles.md");
    let page = std::fs::read_to_string(path).unwrap_or_default();
    let head_end = page.find("## Its own").unwrap_or(page.len());
    let (head, table) = page.split_at(head_end);
    let made = Policies::new().unwrap().table().unwrap();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(path, format!("{head}{made}")).unwrap();
    } else {
        assert_eq!(
            table, made,
            "docs/roles.md is stale: UPDATE_REFERENCE=1 cargo test --release --workspace --test roles"
        );
    }
}
