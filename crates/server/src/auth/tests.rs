use super::*;
use crate::testing::{World, principal, secret};

fn world() -> World {
    World::new()
        .key(1, 2, Role::Admin, None)
        .key(2, 2, Role::Invoker, Some(1_000))
        .key(3, 1, Role::PlatformAdmin, None)
        .key(4, 1, Role::Admin, None)
}

fn bearer_of(number: u8) -> String {
    format!("Bearer {}", secret(number))
}

#[test]
fn a_good_key_names_its_tenant_and_role() {
    let routing = world().routing();
    let caller = authenticate(&routing, Some(&bearer_of(1)), 0).unwrap();
    assert_eq!((caller.tenant_name.as_str(), &*caller.roles), ("acme", &[Role::Admin][..]));
    assert!(authenticate(&routing, Some(&format!("bEARER  {} ", secret(1))), 0).is_ok());
}

#[test]
fn whatever_is_wrong_with_a_credential_the_text_is_the_same() {
    let mut world = world();
    world.catalogue.keys.iter_mut().find(|key| key.id == crate::testing::key_id(3)).unwrap().revoked_ms = Some(1);
    let routing = world.routing();
    let mut wrong_secret = bearer_of(1);
    wrong_secret.pop();
    wrong_secret.push('Z');
    let unknown = bearer_of(9);
    let headers = [
        None,
        Some(""),
        Some("Bearer"),
        Some("Bearer "),
        Some("Bearer tnty_nonsense"),
        Some("Basic dXNlcjpwYXNz"),
        Some(wrong_secret.as_str()),
        Some(unknown.as_str()),
    ];
    let mut errors: Vec<ServiceError> =
        headers.into_iter().map(|header| authenticate(&routing, header, 0).unwrap_err()).collect();
    // Expired, and revoked.
    errors.push(authenticate(&routing, Some(&bearer_of(2)), 1_000).unwrap_err());
    errors.push(authenticate(&routing, Some(&bearer_of(3)), 0).unwrap_err());
    assert!(errors.iter().all(|error| error.code == ErrorCode::Unauthenticated && *error == errors[0]));
    assert!(authenticate(&routing, Some(&bearer_of(2)), 999).is_ok(), "valid until it expires");
}

#[test]
fn revocation_and_deletion_show_in_the_next_table() {
    let mut world = world();
    let before = world.routing();
    assert!(authenticate(&before, Some(&bearer_of(1)), 0).is_ok());
    world.catalogue.keys[0].revoked_ms = Some(5);
    let after = world.after(&before);
    assert!(authenticate(&after, Some(&bearer_of(1)), 0).is_err());
    world.catalogue.keys[0].revoked_ms = None;
    world.catalogue.tenants.retain(|tenant| tenant.name.as_str() != "acme");
    assert!(authenticate(&world.after(&after), Some(&bearer_of(1)), 0).is_err());
}

/// What the policies come to here; the whole table is docs/roles.md.
#[test]
fn roles_reach_what_they_may() {
    let routing = world().routing();
    let (admin, invoker, platform, operator_admin) =
        (principal(&routing, 1), principal(&routing, 2), principal(&routing, 3), principal(&routing, 4));
    let code = |outcome: Result<(), ServiceError>| outcome.err().map(|error| error.code);
    let table = [
        // who, administers acme, reads acme, administers globex, reads globex, administers a tenant there is not, platform
        (&platform, None, None, None, None, Some(ErrorCode::NotFound), None),
        (
            &admin,
            None,
            None,
            Some(ErrorCode::NotFound),
            Some(ErrorCode::NotFound),
            Some(ErrorCode::NotFound),
            Some(ErrorCode::PermissionDenied),
        ),
        (
            &invoker,
            Some(ErrorCode::PermissionDenied),
            None,
            Some(ErrorCode::NotFound),
            Some(ErrorCode::NotFound),
            Some(ErrorCode::NotFound),
            Some(ErrorCode::PermissionDenied),
        ),
        (
            &operator_admin,
            Some(ErrorCode::NotFound),
            Some(ErrorCode::NotFound),
            Some(ErrorCode::NotFound),
            Some(ErrorCode::NotFound),
            Some(ErrorCode::NotFound),
            Some(ErrorCode::PermissionDenied),
        ),
    ];
    let name = |name: &str| name.parse::<TenantName>().unwrap();
    for (who, own, own_read, other, other_read, none, platform_only) in table {
        let administer = |tenant: &str| code(super::tenant(&routing, who, &name(tenant), Action::KeyWrite).map(|_| ()));
        let read = |tenant: &str| code(super::tenant(&routing, who, &name(tenant), Action::TenantRead).map(|_| ()));
        assert_eq!(administer("acme"), own, "{who:?}");
        assert_eq!(read("acme"), own_read, "{who:?}");
        assert_eq!(administer("globex"), other, "{who:?}");
        assert_eq!(read("globex"), other_read, "{who:?}");
        assert_eq!(administer("initech"), none, "{who:?}");
        assert_eq!(code(super::platform(who, Action::PlatformWrite)), platform_only, "{who:?}");
    }
}

#[test]
fn another_tenant_and_no_tenant_read_the_same() {
    let routing = world().routing();
    let admin = principal(&routing, 1);
    let text =
        |tenant: &str| super::tenant(&routing, &admin, &tenant.parse().unwrap(), Action::KeyWrite).unwrap_err().message;
    assert_eq!(text("globex").replace("globex", "X"), text("initech").replace("initech", "X"));
}
