use tenantry_store::{Sharing, TenantMinimum};
use tenantry_types::Level;

use crate::testing::{World, tenant_id, version_id};

fn minimum(platform: Level, own: Level) -> TenantMinimum {
    TenantMinimum { platform, own }
}

#[test]
fn the_highest_of_owner_model_and_caller_counts() {
    let world = World::new().model(1, 2, "m", Sharing::Everyone, "rr").model(2, 3, "n", Sharing::Private, "r");
    let table = [
        // owner, model, caller: for the owner, for the caller
        ((Level::None, Level::None), Level::None, (Level::None, Level::None), Level::None, Level::None),
        ((Level::Confined, Level::None), Level::None, (Level::None, Level::None), Level::Confined, Level::Confined),
        ((Level::None, Level::Confined), Level::None, (Level::None, Level::None), Level::Confined, Level::Confined),
        ((Level::Isolated, Level::Confined), Level::None, (Level::None, Level::None), Level::Isolated, Level::Isolated),
        ((Level::None, Level::None), Level::Full, (Level::Confined, Level::None), Level::Full, Level::Full),
        ((Level::None, Level::None), Level::Confined, (Level::Isolated, Level::None), Level::Confined, Level::Isolated),
        ((Level::None, Level::None), Level::None, (Level::None, Level::Full), Level::None, Level::Full),
    ];
    for (owner, model, caller, for_owner, for_caller) in table {
        let mut world = world.clone();
        world.catalogue.tenants[1].minimum = minimum(owner.0, owner.1);
        world.catalogue.tenants[2].minimum = minimum(caller.0, caller.1);
        world.catalogue.models[0].min_isolation = model;
        let routing = world.routing();
        let routed = routing.models().find(|model| &*model.full_name == "acme/m").unwrap();
        let demanded = |tenant| routed.demanded_for(&routing.tenants[&tenant_id(tenant)]);
        assert_eq!((demanded(2), demanded(3)), (for_owner, for_caller));
    }
}

#[test]
fn the_node_is_told_what_changes_and_nothing_of_who_demands_nothing() {
    let mut world = World::new().model(1, 2, "m", Sharing::Private, "rg").model(2, 3, "n", Sharing::Private, "r");
    let before = world.routing();
    assert_eq!(before.minimums(), tenantry_node::Minimums::default());
    world.catalogue.tenants[2].minimum = minimum(Level::Isolated, Level::Confined);
    world.catalogue.models[0].min_isolation = Level::Full;
    // A tenant whose shares did not change is taken over from the table before, but not with its old minimum.
    let minimums = world.after(&before).minimums();
    assert_eq!(minimums.tenants, [(tenant_id(3), Level::Isolated)].into());
    let versions = [(version_id(1, 1), Level::Full), (version_id(1, 2), Level::Full)];
    assert_eq!(minimums.versions, versions.into());
}
