//! The golden table: what each built-in role may do to its own tenant's things, shared ones and others', as the documents have it.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::collections::BTreeMap;

use tenantry_policy::{Grants, Policies, Relation};
use tenantry_types::{Action, Role};

#[test]
fn the_table_of_roles_is_the_one_in_the_documents() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/roles.md");
    let page = std::fs::read_to_string(path).unwrap_or_default();
    let head_end = page.find("## Its own").unwrap_or(page.len());
    let (head, known) = page.split_at(head_end);
    let made = table(&Policies::new().unwrap());
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(path, format!("{head}{made}")).unwrap();
    } else {
        assert_eq!(
            known, made,
            "docs/roles.md is stale: UPDATE_REFERENCE=1 cargo test --release --workspace --test roles"
        );
    }
}

/// As Markdown, `yes` or the status of the refusal.
fn table(policies: &Policies) -> String {
    let grants: BTreeMap<Role, Grants> = Role::BUILT_IN
        .into_iter()
        .map(|role| {
            let operator = role == Role::PlatformAdmin;
            (role.clone(), policies.grants(&[role], operator, &[]).unwrap())
        })
        .collect();
    let mut text = String::new();
    for relation in Relation::ALL {
        let title = match relation {
            Relation::Own => "Its own tenant's things, and the server as a whole",
            Relation::Shared => "Models of another tenant that are shared with its own",
            Relation::Other => "Things of another tenant",
        };
        text.push_str(&format!("## {title}\n\n| action |"));
        let names = Role::BUILT_IN.map(|role| format!(" {role} |"));
        text.push_str(&names.concat());
        text.push_str(&format!("\n|---|{}\n", "---|".repeat(Role::BUILT_IN.len())));
        for action in Action::ALL {
            let is_platform = matches!(action, Action::PlatformRead | Action::PlatformWrite);
            if (relation == Relation::Shared && !action.is_of_models()) || (relation == Relation::Other && is_platform)
            {
                continue;
            }
            let cell = |role: Role| {
                let allowed = grants.get(&role).is_some_and(|grants| grants.allows(action, relation));
                match (allowed, relation) {
                    (true, _) => " yes |",
                    (false, Relation::Own) => " 403 |",
                    // Whoever shares a model has told of it.
                    (false, Relation::Shared) if action == Action::ModelInfer => " 403 |",
                    (false, Relation::Shared | Relation::Other) => " 404 |",
                }
            };
            text.push_str(&format!("| `{action}` |{}\n", Role::BUILT_IN.map(cell).concat()));
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}
