//! Minimums of isolation through the whole service: who may set them, what is refused, what is served again.

use tenantry_node::Layers;
use tenantry_server::Principal;
use tenantry_server::admin::{ModelChange, TenantChange, TenantInfo};
use tenantry_types::testing::onnx;
use tenantry_types::{ErrorCode, Level, ServiceError};

use crate::support::*;

fn own(level: Level) -> TenantChange {
    TenantChange { min_isolation: Some(level), ..TenantChange::default() }
}

fn by_platform(level: Level) -> TenantChange {
    TenantChange { platform_min_isolation: Some(level), ..TenantChange::default() }
}

async fn set(world: &World, who: &Principal, name: &str, change: TenantChange) -> Result<TenantInfo, ServiceError> {
    world.server.update_tenant(who, &tenant(name), change).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_tenant_or_the_platform_demands_holds_at_once_and_for_that_tenant_only() {
    // No barrier at all, so that whatever is demanded is missing.
    let world = World::start_behind(Layers::NONE).await;
    let platform = world.platform();
    let (acme, globex) = (world.tenant("acme").await, world.tenant("globex").await);
    world.push(&acme, "own", "net.onnx", &onnx::matmul16()).await;
    world.push(&globex, "lent", "net.onnx", &onnx::matmul16()).await;
    world.share(&globex, "lent").await;
    world.deploy(&acme, "own", |change| change.min_replicas = 1).await;
    assert_eq!(world.matmul(&acme, "own", 1.0).await.unwrap(), [2.0; 16]);
    assert_eq!(world.matmul(&acme, "globex/lent", 1.0).await.unwrap(), [2.0; 16]);
    let of_acme = |node: &std::sync::Arc<tenantry_node::Node>| {
        let data = tenantry_types::DataOwner::Tenant(acme.tenant);
        node.observe().workers.iter().filter(|worker| worker.domain.data_owner == data).count()
    };
    assert_eq!(of_acme(&world.node), 2);

    let set_own = set(&world, &acme, "acme", own(Level::Isolated)).await.unwrap();
    assert_eq!((set_own.isolation.in_force, set_own.isolation.minimum), (Level::None, Level::Isolated));
    world.until("end of the workers", |node| (of_acme(node) == 0).then_some(())).await;
    for name in ["own", "globex/lent"] {
        // Before a byte of a body is read.
        let refused = world.server.admit(&acme, &reference(name), None).unwrap_err();
        assert_eq!((refused.code, refused.reason), (ErrorCode::IsolationBelowMinimum, Some("isolation")));
        assert!(refused.message.contains("`none`") && refused.message.contains("`isolated`"), "{refused}");
        let readiness = world.server.model_ready(&acme, &reference(name), None).unwrap();
        assert!(!readiness.ready && readiness.reason.unwrap().contains("`isolated`"));
    }
    let missing = world.server.admit(&acme, &reference("globex/nothing"), None).map(drop);
    assert!(missing.is_ok(), "what does not exist is 404, later: {missing:?}");
    let pushed = world.push_with(&acme, "new", "net.onnx", &onnx::matmul16(), |_| {}).await.unwrap_err();
    assert_eq!(pushed.code, ErrorCode::IsolationBelowMinimum);
    assert!(world.server.model_ready(&globex, &reference("lent"), None).unwrap().ready);
    assert_eq!(world.matmul(&globex, "lent", 2.0).await.unwrap(), [4.0; 16]);
    let metrics = world.server.metrics_text();
    for line in ["tenantry_models_below_minimum 1", "reason=\"isolation\"} 2", "tenantry_isolation_level 0"] {
        assert!(metrics.contains(line), "{line} is missing from:\n{metrics}");
    }

    // What the platform demands the tenant cannot lower.
    assert_eq!(
        set(&world, &acme, "acme", by_platform(Level::None)).await.unwrap_err().code,
        ErrorCode::PermissionDenied
    );
    assert_eq!(set(&world, &globex, "acme", own(Level::None)).await.unwrap_err().code, ErrorCode::NotFound);
    set(&world, &platform, "acme", by_platform(Level::Confined)).await.unwrap();
    let lowered = set(&world, &acme, "acme", own(Level::None)).await.unwrap();
    assert_eq!((lowered.isolation.minimum, lowered.isolation.own_minimum), (Level::Confined, Level::None));
    assert_eq!(world.matmul(&acme, "own", 1.0).await.unwrap_err().code, ErrorCode::IsolationBelowMinimum);

    set(&world, &platform, "acme", by_platform(Level::None)).await.unwrap();
    // Kept loaded, so it comes back by itself.
    world.until("the replica again", |node| (of_acme(node) == 1).then_some(())).await;
    assert_eq!(world.matmul(&acme, "own", 1.0).await.unwrap(), [2.0; 16]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_model_demands_holds_for_every_caller_and_at_its_registration() {
    let world = World::start_behind(Layers::NONE).await;
    let (acme, globex) = (world.tenant("acme").await, world.tenant("globex").await);
    for name in ["lent", "plain"] {
        world.push(&globex, name, "net.onnx", &onnx::matmul16()).await;
        world.share(&globex, name).await;
    }
    let change = |level| ModelChange { min_isolation: Some(level), ..ModelChange::default() };
    let update = async |who: &Principal, level| {
        world.server.update_model(who, &globex.tenant_name, &model("lent"), change(level)).await
    };
    assert_eq!(update(&acme, Level::None).await.unwrap_err().code, ErrorCode::NotFound);
    let shown = update(&globex, Level::Confined).await.unwrap();
    assert_eq!((shown.min_isolation, shown.effective_min_isolation), (Level::Confined, Level::Confined));
    for (caller, name) in [(&acme, "globex/lent"), (&globex, "lent")] {
        assert_eq!(world.matmul(caller, name, 1.0).await.unwrap_err().code, ErrorCode::IsolationBelowMinimum);
    }
    assert_eq!(world.matmul(&acme, "globex/plain", 1.0).await.unwrap(), [2.0; 16]);
    let version = world.server.version(&globex, &globex.tenant_name, &model("lent"), 1, None).await.unwrap();
    assert!(version.residency.last_failure.unwrap().contains("`confined`"));

    // A version that would lower it, and one of a new model that demands something.
    let refused = world.push_with(&globex, "lent", "net.onnx", &onnx::matmul16(), |_| {}).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::IsolationBelowMinimum);
    let refused = world
        .push_with(&globex, "new", "net.onnx", &onnx::matmul16(), |new| new.min_isolation = Some(Level::Full))
        .await
        .unwrap_err();
    assert_eq!(refused.code, ErrorCode::IsolationBelowMinimum);
    assert_eq!(
        world.server.model(&globex, &globex.tenant_name, &model("new")).await.unwrap_err().code,
        ErrorCode::NotFound
    );

    update(&globex, Level::None).await.unwrap();
    assert_eq!(world.matmul(&acme, "globex/lent", 1.0).await.unwrap(), [2.0; 16]);
    world.stop().await;
}
