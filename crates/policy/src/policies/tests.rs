use cedar_policy::{Schema, ValidationMode, Validator};

use super::*;

fn policies() -> Policies {
    Policies::new().unwrap()
}

fn custom(actions: &[Action], models: Option<&[&str]>) -> CustomRole {
    CustomRole {
        name: "on-call".parse().unwrap(),
        actions: actions.iter().copied().collect(),
        models: models.map(|models| models.iter().map(|model| model.parse().unwrap()).collect()),
        description: String::new(),
    }
}

fn granted(role: &CustomRole) -> Grants {
    policies().grants(&[Role::Custom(role.name.clone())], false, std::slice::from_ref(role)).unwrap()
}

#[test]
fn the_policies_fit_their_schema() {
    let (schema, _) = Schema::from_cedarschema_str(include_str!("../schema.cedarschema")).unwrap();
    let validator = Validator::new(schema.clone());
    let roles = [
        custom(&Action::ALL, None),
        custom(&[Action::ModelInfer, Action::KeyRead], Some(&["a", "b.c-d_e"])),
        custom(&[Action::ModelRead], Some(&[])),
    ];
    for role in roles {
        let all = policies().with(&[&role]).unwrap();
        let result = validator.validate(&all, ValidationMode::Strict);
        assert!(result.validation_passed(), "{result}");
    }
    // Every action can be spoken of, and no other.
    let mut known: Vec<String> = schema.actions().map(|action| action.id().unescaped().to_owned()).collect();
    known.sort_unstable();
    let mut all: Vec<String> = Action::ALL.iter().map(|action| action.as_str().to_owned()).collect();
    all.sort_unstable();
    assert_eq!(known, all);
}

#[test]
fn another_tenants_things_are_nobodys() {
    let everything: Vec<Action> = Action::ALL.to_vec();
    let role = custom(&everything, None);
    let mut all = Role::BUILT_IN.to_vec();
    all.push(Role::Custom(role.name.clone()));
    // All roles at once, in a tenant that is not the operator's: not even the word `platform_admin` helps.
    let grants = policies().grants(&all, false, &[role]).unwrap();
    assert_eq!(grants.general[Relation::Other as usize], ActionSet::NONE);
    let shared: Vec<Action> = grants.general[Relation::Shared as usize].iter().collect();
    assert_eq!(shared, [Action::ModelInfer, Action::ModelRead]);
    let own = grants.general[Relation::Own as usize];
    for action in Action::ALL {
        assert_eq!(own.contains(action), !action.is_the_platforms(), "{action}");
    }
}

#[test]
fn the_platform_does_not_use_what_a_tenant_keeps_to_itself() {
    let grants = policies().grants(&[Role::PlatformAdmin], true, &[]).unwrap();
    for action in Action::ALL {
        let is_a_case = !matches!(action, Action::ModelInfer | Action::PlatformRead | Action::PlatformWrite);
        assert_eq!(grants.allows(action, Relation::Other), is_a_case, "{action}");
        assert!(grants.allows(action, Relation::Own), "{action}");
    }
}

#[test]
fn a_custom_role_allows_what_it_lists_where_it_says() {
    let grants = granted(&custom(&[Action::ModelInfer, Action::KeyRead], Some(&["a", "b"])));
    let on = |action, model: &str| grants.allows_model(action, Relation::Own, &model.parse().unwrap());
    assert!(on(Action::ModelInfer, "a") && on(Action::ModelInfer, "b"));
    assert!(!on(Action::ModelInfer, "c") && !on(Action::ModelRead, "a"));
    assert!(!grants.allows_model(Action::ModelInfer, Relation::Shared, &"a".parse().unwrap()));
    assert!(grants.allows(Action::KeyRead, Relation::Own) && !grants.allows(Action::KeyRead, Relation::Other));

    let grants = granted(&custom(&[Action::ModelInfer], None));
    assert!(grants.allows_model(Action::ModelInfer, Relation::Own, &"any".parse().unwrap()));
    assert!(grants.allows_model(Action::ModelInfer, Relation::Shared, &"any".parse().unwrap()));

    assert_eq!(granted(&custom(&[], None)), Grants::default());
    assert_eq!(granted(&custom(&[Action::ModelInfer], Some(&[]))), Grants::default());
}

#[test]
fn roles_add_up_and_unknown_ones_allow_nothing() {
    let both = policies().grants(&[Role::Auditor, Role::Invoker], false, &[]).unwrap();
    assert!(both.allows(Action::ModelInfer, Relation::Own) && both.allows(Action::AuditRead, Relation::Own));
    let unknown = policies().grants(&[Role::Custom("gone".parse().unwrap())], false, &[]).unwrap();
    assert_eq!(unknown, Grants::default());
}

#[test]
fn a_scope_takes_away_and_never_adds() {
    let grants = policies().grants(&[Role::Invoker], false, &[]).unwrap();
    let scoped = grants.within([Action::ModelInfer, Action::KeyWrite].into_iter().collect());
    assert!(scoped.allows(Action::ModelInfer, Relation::Own) && scoped.allows(Action::ModelInfer, Relation::Shared));
    assert!(!scoped.allows(Action::ModelRead, Relation::Own) && !scoped.allows(Action::KeyWrite, Relation::Own));
}
