use super::*;
use tenantry_store::Role;
use tenantry_types::ShareSubject;
use tenantry_types::share::ShareTier;

use crate::testing::{World, key_id, tenant_id, version_id};

fn world() -> World {
    World::new()
        .model(1, 1, "magika", Sharing::Everyone, "r")
        .model(2, 1, "internal", Sharing::Private, "r")
        .model(3, 2, "own", Sharing::Private, "rxg")
        .model(4, 3, "lent", Sharing::Everyone, "rr")
        .model(5, 3, "secret", Sharing::Private, "r")
        .model(6, 2, "new", Sharing::Private, "g")
        .model(7, 3, "own", Sharing::Private, "r")
        .alias(4, "stable", 2)
        .alias(3, "broken", 2)
}

fn reference(text: &str) -> ModelRef {
    text.parse().unwrap()
}

/// What `acme` (2) gets when it asks: `owner/name:number`, or the code of the refusal.
fn resolve(routing: &Routing, model: &str, version: Option<&str>) -> Result<String, (ErrorCode, String)> {
    let model = reference(model);
    let caller: TenantName = "acme".parse().unwrap();
    let resolved = routing.model(tenant_id(2), &caller, &model).and_then(|found| {
        let version = found.version(version, &model)?;
        Ok(version.servable(&model)?.spec.name.clone())
    });
    resolved.map_err(|error| (error.code, error.message))
}

#[test]
fn names_versions_and_aliases_resolve_by_the_table() {
    let routing = world().routing();
    let table: [(&str, Option<&str>, Result<&str, ErrorCode>); 21] = [
        ("own", None, Ok("acme/own:1")),
        ("own", Some("1"), Ok("acme/own:1")),
        ("acme/own", None, Ok("acme/own:1")),
        ("own", Some("2"), Err(ErrorCode::NotFound)),
        ("own", Some("3"), Err(ErrorCode::Unavailable)),
        ("own", Some("4"), Err(ErrorCode::NotFound)),
        ("own", Some("broken"), Err(ErrorCode::NotFound)),
        ("own", Some("stable"), Err(ErrorCode::NotFound)),
        ("own", Some(""), Err(ErrorCode::NotFound)),
        ("own", Some("99999999999999999999"), Err(ErrorCode::NotFound)),
        ("new", None, Err(ErrorCode::Unavailable)),
        ("platform/magika", None, Ok("platform/magika:1")),
        ("magika", None, Err(ErrorCode::NotFound)),
        ("platform/internal", None, Err(ErrorCode::NotFound)),
        ("globex/lent", None, Ok("globex/lent:1")),
        ("globex/lent", Some("stable"), Ok("globex/lent:2")),
        ("globex/lent", Some("2"), Ok("globex/lent:2")),
        ("globex/secret", None, Err(ErrorCode::NotFound)),
        ("globex/own", None, Err(ErrorCode::NotFound)),
        ("initech/own", None, Err(ErrorCode::NotFound)),
        ("missing", None, Err(ErrorCode::NotFound)),
    ];
    for (model, version, expected) in table {
        let got = resolve(&routing, model, version);
        assert_eq!(got.as_deref().map_err(|(code, _)| *code), expected, "{model} {version:?}");
    }
}

#[test]
fn unknown_and_forbidden_models_read_the_same() {
    let routing = world().routing();
    let text = |model: &str| resolve(&routing, model, None).unwrap_err().1.replace(model, "X");
    assert_eq!(text("globex/secret"), text("globex/missing"));
    assert_eq!(text("globex/secret"), text("initech/own"));
    assert_eq!(text("globex/secret"), text("missing"));
    assert_eq!(text("missing"), "model `X` does not exist or you may not use it");
    // A version of a forbidden model is no different from one of a missing model.
    assert_eq!(
        resolve(&routing, "globex/secret", Some("7")).unwrap_err().1.replace("globex/secret", "X"),
        text("missing")
    );
}

#[test]
fn a_version_nobody_has_is_shown_without_control_characters() {
    let routing = world().routing();
    let (_, text) = resolve(&routing, "own", Some("a\n{\"level\":1}")).unwrap_err();
    assert!(!text.contains('\n'), "{text}");
}

#[test]
fn domains_follow_owner_and_sharing() {
    let routing = world().routing();
    let caller: TenantName = "acme".parse().unwrap();
    let domain = |model: &str| {
        let model = routing.model(tenant_id(2), &caller, &reference(model)).unwrap();
        (model.domain(&routing.tenants[&tenant_id(2)]), model.versions[&1].servable(&model.reference).unwrap().home)
    };
    let pair = |owner, data_owner| TrustDomain { model_owner: tenant_id(owner), data_owner };
    let tenant = |number| DataOwner::Tenant(tenant_id(number));
    assert_eq!(domain("own"), (pair(2, tenant(2)), pair(2, tenant(2))));
    assert_eq!(domain("platform/magika"), (pair(1, DataOwner::Any), pair(1, DataOwner::Any)));
    assert_eq!(domain("globex/lent"), (pair(3, tenant(2)), pair(3, tenant(3))), "never with its owner's requests");
}

#[test]
fn the_next_table_takes_over_what_did_not_change() {
    let mut world = world();
    let first = world.routing();
    let caller: TenantName = "acme".parse().unwrap();
    let get =
        |routing: &Routing, model: &str| Arc::clone(routing.model(tenant_id(2), &caller, &reference(model)).unwrap());
    world.catalogue.revision = 2;
    let second = world.after(&first);
    assert!(Arc::ptr_eq(&first.tenants[&tenant_id(2)], &second.tenants[&tenant_id(2)]));
    assert!(Arc::ptr_eq(&get(&first, "own").versions[&1], &get(&second, "own").versions[&1]));
    assert!(Arc::ptr_eq(&get(&first, "own").flows, &get(&second, "own").flows));
    assert!(first.gone_in(&second).is_empty());

    // Withdrawn from sharing: another domain, so another home, but the same spec for the node.
    world.catalogue.models[0].shared = Sharing::Private;
    world.catalogue.versions.retain(|version| version.id != version_id(4, 2));
    let third = world.after(&second);
    let platform: TenantName = "platform".parse().unwrap();
    let of_platform = |routing: &Routing| {
        let model = routing.model(tenant_id(1), &platform, &reference("magika")).unwrap();
        let RoutedState::Ready(servable) = &model.versions[&1].state else { panic!("it is ready") };
        (servable.home, Arc::clone(&servable.spec))
    };
    let ((home_before, spec_before), (home_after, spec_after)) = (of_platform(&second), of_platform(&third));
    assert_ne!(home_before, home_after);
    assert!(Arc::ptr_eq(&spec_before, &spec_after));
    assert_eq!(second.gone_in(&third), [version_id(4, 2)]);
    assert!(resolve(&third, "platform/magika", None).is_err());
}

#[test]
fn a_spec_follows_settings_within_the_servers_bounds() {
    let mut world = World::new().model(1, 2, "own", Sharing::Private, "rr");
    world.catalogue.versions[0].settings.max_batch_delay_ms = Some(3);
    world.catalogue.versions[0].settings.max_run_ms = Some(100);
    world.catalogue.versions[1].settings.max_batch = Some(u32::MAX);
    world.catalogue.versions[1].settings.max_run_ms = Some(u32::MAX);
    world.catalogue.versions[1].registration.as_mut().unwrap().profile.points.clear();
    let routing = world.routing();
    let model = routing.models().next().unwrap();
    let spec = |number: u32| Arc::clone(&model.versions[&number].servable(&model.reference).unwrap().spec);
    let (first, second) = (spec(1), spec(2));
    assert_eq!((first.can_batch, first.max_batch, first.cost), (true, 8, Duration::from_millis(5)));
    assert_eq!((first.max_batch_delay, first.run_limit), (Duration::from_millis(3), Duration::from_millis(100)));
    assert_eq!((second.max_batch, second.run_limit), (4096, crate::testing::RUN_LIMIT));
    assert!(second.cost > Duration::ZERO);
}

fn tenant_share(settings: ShareSettings, generation: u64) -> ShareRecord {
    ShareRecord { subject: ShareSubject::Tenant(tenant_id(2)), generation, settings }
}

#[test]
fn a_tenant_that_batches_apart_runs_published_models_in_a_domain_of_its_own() {
    let mut world = world();
    let domains = |routing: &Routing| {
        let model = |name: &str| {
            let caller: TenantName = "platform".parse().unwrap();
            Arc::clone(routing.model(tenant_id(1), &caller, &reference(name)).unwrap())
        };
        let magika = model("magika");
        [2, 3].map(|number| magika.domain(&routing.tenants[&tenant_id(number)]).data_owner)
    };
    assert_eq!(domains(&world.routing()), [DataOwner::Any, DataOwner::Any]);
    let guaranteed = ShareSettings { tier: Some(ShareTier::Guaranteed), ..ShareSettings::default() };
    world.catalogue.shares = vec![tenant_share(guaranteed.clone(), 1)];
    assert_eq!(domains(&world.routing()), [DataOwner::Tenant(tenant_id(2)), DataOwner::Any]);
    let together = ShareSettings { batch_with_others: Some(true), ..guaranteed };
    world.catalogue.shares = vec![tenant_share(together, 2)];
    assert_eq!(domains(&world.routing()), [DataOwner::Any, DataOwner::Any]);
}

#[test]
fn new_settings_bound_what_is_in_flight_already() {
    let mut world = world().key(1, 2, Role::Admin, None);
    let deployment = world.catalogue.deployments[0].id;
    let one = |max_requests| ShareSettings { max_requests: Some(max_requests), ..ShareSettings::default() };
    world.catalogue.shares = vec![
        tenant_share(one(1), 1),
        ShareRecord { subject: ShareSubject::Deployment(tenant_id(2), deployment), generation: 1, settings: one(1) },
        ShareRecord { subject: ShareSubject::Key(tenant_id(2), key_id(1)), generation: 1, settings: one(1) },
    ];
    let first = world.routing();
    assert_eq!(first.shares.len(), 3);
    let same = world.after(&first);
    assert!(Arc::ptr_eq(&first.tenants[&tenant_id(2)], &same.tenants[&tenant_id(2)]), "nothing changed");
    for (position, record) in world.catalogue.shares.iter_mut().enumerate() {
        *record = ShareRecord { generation: 2, settings: one(2 + position as u32), ..record.clone() };
    }
    let second = world.after(&same);
    let (before, after) = (&first.tenants[&tenant_id(2)], &second.tenants[&tenant_id(2)]);
    assert!(!Arc::ptr_eq(before, after));
    assert!(Arc::ptr_eq(&before.gate.load, &after.gate.load));
    assert!(Arc::ptr_eq(&before.deployments[&deployment].gate.load, &after.deployments[&deployment].gate.load));
    assert!(Arc::ptr_eq(&before.keys[&key_id(1)].gate.load, &after.keys[&key_id(1)].gate.load));
    world.catalogue.shares.clear();
    let third = world.after(&second);
    assert!(third.tenants[&tenant_id(2)].share.is_none() && third.tenants[&tenant_id(2)].keys.is_empty());
    assert!(Arc::ptr_eq(&before.gate.load, &third.tenants[&tenant_id(2)].gate.load));
}
