//! The whole service under its edges: real store, node, workers and engine, tiny models.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "end_to_end/minimum.rs"]
mod minimum;
mod support;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use support::*;
use tenantry_plan::ReplicaState;
use tenantry_server::admin::{DeploymentChange, ModelChange, ModelQuery, NewKey, VersionState};
use tenantry_server::{Role, Server, Sharing};
use tenantry_types::testing::onnx;
use tenantry_types::{DataOwner, DataType, Digest, ErrorCode, InferRequest, Inputs, OutputRequest};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tenants_get_answers_from_their_own_and_from_shared_models() {
    let world = World::start().await;
    let platform = world.platform();
    let (acme, globex) = (world.tenant("acme").await, world.tenant("globex").await);
    let shared = world.push(&platform, "double", "net.onnx", &onnx::matmul16()).await;
    assert_eq!(shared.state, VersionState::Ready, "{shared:?}");
    assert!(shared.deployed && shared.registration.is_some());
    world.push(&acme, "private", "net.onnx", &onnx::scaled_matmul(16, 5.0)).await;

    // Not shared yet: it does not exist for others, and says so in the words for what never existed.
    let hidden = world.matmul(&acme, "platform/double", 1.0).await.unwrap_err();
    let missing = world.matmul(&acme, "platform/nothing", 1.0).await.unwrap_err();
    assert_eq!(hidden.code, ErrorCode::NotFound);
    assert_eq!(hidden.message.replace("double", "X"), missing.message.replace("nothing", "X"));
    assert!(world.server.models(&globex).is_empty());

    world.share(&platform, "double").await;
    for caller in [&acme, &globex] {
        assert_eq!(world.matmul(caller, "platform/double", 3.0).await.unwrap(), [6.0; 16]);
    }
    assert_eq!(world.matmul(&platform, "double", 4.0).await.unwrap(), [8.0; 16]);
    assert_eq!(world.matmul(&acme, "private", 2.0).await.unwrap(), [10.0; 16]);
    assert_eq!(world.matmul(&globex, "acme/private", 2.0).await.unwrap_err().code, ErrorCode::NotFound);

    // One worker serves everybody's data with the operator's model; the private one has its own.
    let domains: Vec<_> = world.node.observe().workers.into_iter().map(|worker| worker.domain).collect();
    assert!(domains.iter().any(|domain| domain.model_owner == platform.tenant && domain.data_owner == DataOwner::Any));
    assert!(domains.iter().any(|domain| domain.data_owner == DataOwner::Tenant(acme.tenant)));
    assert_eq!(domains.len(), 2, "{domains:?}");

    let names: Vec<String> = world.server.models(&acme).into_iter().map(|model| model.name.to_string()).collect();
    assert_eq!(names, ["private", "platform/double"]);
    let metadata = world.server.model_metadata(&globex, &reference("platform/double"), None).unwrap();
    assert_eq!((metadata.versions.as_slice(), metadata.platform), (&["1".to_owned()][..], "onnxruntime_onnx"));
    assert_eq!(metadata.signature.inputs[0].name, "x");
    assert!(world.server.model_ready(&globex, &reference("platform/double"), Some("1")).unwrap().ready);

    let metrics = world.server.metrics_text();
    for line in [
        "tenantry_requests_total{tenant=\"acme\",model=\"platform/double\",code=\"ok\"} 1",
        "tenantry_requests_total{tenant=\"globex\",model=\"platform/double\",code=\"ok\"} 1",
        "tenantry_requests_total{tenant=\"acme\",model=\"\",code=\"not_found\"} 2",
        "tenantry_registrations_total{outcome=\"ready\"} 2",
        "tenantry_workers 2",
    ] {
        assert!(metrics.contains(line), "{line} is missing from:\n{metrics}");
    }
    assert!(!metrics.contains("nothing"), "a client's text must not become a label");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_aliases_and_deployments_choose_what_answers() {
    let world = World::start().await;
    let acme = world.tenant("acme").await;
    let owner = &acme.tenant_name;
    world.push(&acme, "net", "net.onnx", &onnx::scaled_matmul(16, 2.0)).await;
    let quiet =
        world.push_with(&acme, "net", "net.onnx", &onnx::scaled_matmul(16, 3.0), |new| new.deploy = false).await;
    let second = world.registered(&acme, "net", quiet.unwrap().number).await;
    assert!(second.state == VersionState::Ready && !second.deployed);
    let ask = async |version: Option<&str>| {
        let request = InferRequest { version: version.map(str::to_owned), ..request("net", vec![sixteen(1.0)]) };
        let inferred = world.infer(&acme, request).await.unwrap();
        (inferred.response.version.clone(), floats(&inferred)[0])
    };
    assert_eq!(ask(None).await, ("1".to_owned(), 2.0));
    assert_eq!(ask(Some("2")).await, ("2".to_owned(), 3.0), "a ready version is loaded when somebody asks for it");
    world.server.set_alias(&acme, owner, &model("net"), &model("canary"), 2).await.unwrap();
    assert_eq!(ask(Some("canary")).await, ("2".to_owned(), 3.0));
    world.deploy(&acme, "net", |change| change.version = Some(2)).await;
    assert_eq!(ask(None).await, ("2".to_owned(), 3.0));
    let deployment = world.server.deployment(&acme, owner, &model("net")).unwrap();
    assert_eq!((deployment.version, deployment.previous), (Some(2), Some(1)));

    let refused = world.server.delete_version(&acme, owner, &model("net"), 2).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Conflict);
    world.server.delete_version(&acme, owner, &model("net"), 1).await.unwrap();
    let gone = InferRequest { version: Some("1".to_owned()), ..request("net", vec![sixteen(1.0)]) };
    assert_eq!(world.infer(&acme, gone).await.unwrap_err().code, ErrorCode::NotFound);
    let found = world.server.model(&acme, owner, &model("net")).await.unwrap();
    assert_eq!((found.versions.as_slice(), found.aliases[0].name.as_str()), (&[2][..], "canary"));
    let query = ModelQuery { text: Some("ne".to_owned()), tag: None };
    assert_eq!(world.server.search_models(&acme, owner, query).await.unwrap().len(), 1);

    world.server.delete_model(&acme, owner, &model("net")).await.unwrap();
    assert_eq!(world.matmul(&acme, "net", 1.0).await.unwrap_err().code, ErrorCode::NotFound);
    world.until("end of the replicas", |node| node.observe().replicas.is_empty().then_some(())).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_refused_with_the_input_and_what_was_expected() {
    let world = World::start().await;
    let acme = world.tenant("acme").await;
    world.push(&acme, "add", "net.onnx", &onnx::add()).await;
    let text = async |request: InferRequest| {
        let error = world.infer(&acme, request).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument, "{error}");
        assert!(error.message.contains("model `add`"), "{error}");
        error.message
    };
    let fp32 = |name: &str, shape: &[u64], bytes: usize| tensor(name, DataType::Fp32, shape, vec![0; bytes]);
    let (a, b) = (fp32("a", &[1, 2], 8), fp32("b", &[1, 2], 8));
    assert!(text(request("add", vec![a.clone()])).await.contains("input `b` is missing"));
    assert!(text(request("add", vec![a.clone(), b.clone(), fp32("c", &[1], 4)])).await.contains("unknown input `c`"));
    assert!(text(request("add", vec![a.clone(), fp32("b", &[1, 3], 12)])).await.contains("input `a` has 2"));
    assert!(text(request("add", vec![a.clone(), fp32("b", &[1, 2], 7)])).await.contains("7 bytes"));
    assert!(text(request("add", vec![a.clone(), fp32("b", &[2], 8)])).await.contains("input `b` has shape [2]"));
    let ints = tensor("b", DataType::Int64, &[1, 2], vec![0; 16]);
    assert!(text(request("add", vec![a.clone(), ints])).await.contains("expected FP32"));
    let output = |name: &str| InferRequest {
        outputs: vec![OutputRequest { name: name.to_owned() }],
        ..request("add", vec![a.clone(), b.clone()])
    };
    assert!(text(output("total")).await.contains("unknown output `total`"));
    let raw = InferRequest { inputs: Inputs::Raw(vec![0; 8].into()), ..request("add", Vec::new()) };
    assert!(text(raw).await.contains("has 2, so name them"));
    let inferred = world.infer(&acme, output("sum")).await.unwrap();
    assert_eq!((inferred.response.id.as_deref(), inferred.response.outputs[0].name.as_str()), (Some("mine"), "sum"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_no_models_are_refused_and_the_reason_is_clean() {
    let world = World::start().await;
    let acme = world.tenant("acme").await;
    for (number, file) in [b"not a model".to_vec(), onnx::unknown_operator()].into_iter().enumerate() {
        let version = world.push(&acme, "bad", "net.onnx", &file).await;
        let VersionState::Refused { reason } = &version.state else { panic!("{version:?}") };
        assert!(!reason.is_empty() && !reason.contains(char::is_control), "{reason:?}");
        assert_eq!(version.number as usize, number + 1);
    }
    assert_eq!(world.matmul(&acme, "bad", 1.0).await.unwrap_err().code, ErrorCode::Unavailable);
    let readiness = world.server.model_ready(&acme, &reference("bad"), None).unwrap();
    assert!(!readiness.ready && readiness.reason.unwrap().contains("no deployed version"));
    let error = world.push_with(&acme, "bad", "net.tar", b"not an archive", |_| {}).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArgument, "{error}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_with_external_weights_is_served() {
    let world = World::start().await;
    let acme = world.tenant("acme").await;
    let (graph, weights) = onnx::external_matmul16("weights.bin");
    let mut archive = tar::Builder::new(Vec::new());
    for (name, data) in [("./weights.bin", &weights), ("./net.onnx", &graph)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        archive.append_data(&mut header, name, data.as_slice()).unwrap();
    }
    let version = world.push(&acme, "external", "net.tar", &archive.into_inner().unwrap()).await;
    assert_eq!(version.state, VersionState::Ready, "{version:?}");
    let names: Vec<&str> = version.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["net.onnx", "weights.bin"]);
    assert_eq!(world.matmul(&acme, "external", 1.5).await.unwrap(), [3.0; 16]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_what_was_ready_and_finishes_what_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start_in(folder.path(), |_| {}).await;
    let acme = world.tenant("acme").await;
    let new = NewKey::of(Role::Invoker);
    let key = world.server.create_key(&acme, &acme.tenant_name, new).await.unwrap().secret.unwrap();
    world.push(&acme, "net", "net.onnx", &onnx::matmul16()).await;
    world.stop().await;

    // A server that died while it registered leaves this.
    let store = open_store(folder.path()).await;
    let owner = store.tenant_by_name(&tenant("acme")).await.unwrap().id;
    let mut upload = store.begin_upload(owner, 1 << 20).await.unwrap();
    upload.write(onnx::scaled_matmul(16, 7.0).into()).await.unwrap();
    let artefact = upload.finish().await.unwrap();
    let file =
        tenantry_store::StoredFile { name: "net.onnx".to_owned(), digest: artefact.digest, bytes: artefact.bytes };
    for (name, deploy) in [("net", true), ("net", false), ("late", true), ("shy", false)] {
        let model_id = store.create_model(owner, &model(name), Default::default(), 1).await.unwrap().id;
        let new = tenantry_store::NewVersion { files: vec![file.clone()], deploy, ..Default::default() };
        store.create_version(model_id, new, 1).await.unwrap();
    }
    store.close().await;
    drop(store);

    let world = World::start_in(folder.path(), |_| {}).await;
    let acme = world.login(&key).unwrap();
    assert_eq!(&*acme.roles, [Role::Invoker]);
    let first = InferRequest { version: Some("1".to_owned()), ..request("net", vec![sixteen(1.0)]) };
    assert_eq!(floats(&world.infer(&acme, first).await.unwrap()), [2.0; 16]);
    // Their owner said which of them are to serve, before the server died.
    for (name, number, deployed) in [("net", 3, false), ("net", 2, true), ("late", 1, true), ("shy", 1, false)] {
        let version = world.registered(&acme, name, number).await;
        assert!(version.state == VersionState::Ready && version.deployed == deployed, "{version:?}");
    }
    for name in ["net", "late"] {
        assert_eq!(world.matmul(&acme, name, 1.0).await.unwrap(), [7.0; 16]);
    }
    assert_eq!(world.matmul(&acme, "shy", 1.0).await.unwrap_err().code, ErrorCode::Unavailable);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_of_one_file_share_its_optimised_form() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start_in(folder.path(), |_| {}).await;
    let acme = world.tenant("acme").await;
    let forms = || {
        let of_owner = folder.path().join("optimised").join(acme.tenant.to_string());
        let keys = std::fs::read_dir(of_owner).unwrap();
        let files = keys.flat_map(|key| std::fs::read_dir(key.unwrap().path()).unwrap());
        files.map(|file| file.unwrap().file_name().into_string().unwrap().parse().unwrap()).collect::<Vec<Digest>>()
    };
    world.push(&acme, "one", "net.onnx", &onnx::matmul16()).await;
    let form = forms();
    for name in ["two", "three"] {
        world.push(&acme, name, "net.onnx", &onnx::matmul16()).await;
        assert_eq!(forms(), form, "made again, and dropped again");
    }
    world.server.delete_model(&acme, &acme.tenant_name, &model("one")).await.unwrap();
    assert_eq!(forms(), form);
    assert_eq!(world.matmul(&acme, "two", 1.0).await.unwrap(), [2.0; 16]);
    world.stop().await;

    let store = open_store(folder.path()).await;
    for name in ["two", "three"] {
        let id = store.model_by_name(acme.tenant, &model(name)).await.unwrap().id;
        let optimised = store.version_by_number(id, 1).await.unwrap().optimised.unwrap();
        assert_eq!([optimised.digest], *form);
        store.open_optimised(acme.tenant, &optimised).await.unwrap();
    }
}

/// Begins a call and drops it at its first await, as an edge does when its client disconnects.
fn abandon<T>(call: impl Future<Output = T>) {
    drop(call.now_or_never());
}

/// Waits for the routing table to show something. Nothing public announces a swap.
async fn shows(what: &str, shown: impl Fn() -> bool) {
    let wait = async {
        while !shown() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("the table never shows {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_client_disconnects_is_in_force_all_the_same() {
    let world = World::start().await;
    let (server, platform) = (&world.server, world.platform());
    let (acme, globex) = (world.tenant("acme").await, world.tenant("globex").await);
    let owner = &acme.tenant_name;
    let new = NewKey::of(Role::Invoker);
    let key = server.create_key(&acme, owner, new).await.unwrap();
    abandon(server.revoke_key(&acme, owner, key.key.id));
    shows("the end of a key", || world.login(key.secret.as_deref().unwrap()).is_err()).await;

    let net = model("net");
    world.push(&acme, "net", "net.onnx", &onnx::matmul16()).await;
    world.push(&acme, "net", "net.onnx", &onnx::matmul16()).await;
    let resolves = |version: &str| server.model_metadata(&acme, &reference("net"), Some(version)).is_ok();
    let canary = model("canary");
    abandon(server.set_alias(&acme, owner, &net, &canary, 2));
    shows("an alias", || resolves("canary")).await;
    abandon(server.delete_alias(&acme, owner, &net, &canary));
    shows("the end of an alias", || !resolves("canary")).await;
    let change = ModelChange { shared: Some(Sharing::Everyone), ..ModelChange::default() };
    abandon(server.update_model(&acme, owner, &net, change));
    shows("a shared model", || server.models(&globex).len() == 1).await;
    let now = server.deployment(&acme, owner, &net).unwrap();
    let change = DeploymentChange {
        generation: now.generation,
        version: None,
        min_replicas: now.min_replicas,
        max_replicas: now.max_replicas,
        idle_after: now.idle_after,
        default_timeout: now.default_timeout,
        cache_ttl: now.cache_ttl,
    };
    abandon(server.set_deployment(&acme, owner, &net, change));
    shows("a deployment", || server.deployment(&acme, owner, &net).unwrap().version.is_none()).await;
    abandon(server.delete_version(&acme, owner, &net, 1));
    shows("the end of a version", || !resolves("1")).await;
    assert!(resolves("2"));
    abandon(server.delete_model(&acme, owner, &net));
    shows("the end of a model", || server.models(&acme).is_empty()).await;

    let is_there = || server.tenants(&platform).iter().any(|known| known.name == tenant("initech"));
    abandon(server.create_tenant(&platform, &tenant("initech")));
    shows("a tenant", is_there).await;
    abandon(server.delete_tenant(&platform, &tenant("initech")));
    shows("the end of a tenant", || !is_there()).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_tenants_stop_working_at_once() {
    let world = World::start().await;
    let platform = world.platform();
    world.tenant("acme").await;
    let new = NewKey { label: "ci".to_owned(), ..NewKey::of(Role::Invoker) };
    let key = world.server.create_key(&platform, &tenant("acme"), new.clone()).await.unwrap();
    assert!(world.login(key.secret.as_deref().unwrap()).is_ok());
    world.server.revoke_key(&platform, &tenant("acme"), key.key.id).await.unwrap();
    assert_eq!(world.login(key.secret.as_deref().unwrap()).unwrap_err().code, ErrorCode::Unauthenticated);

    let key = world.server.create_key(&platform, &tenant("acme"), new.clone()).await.unwrap();
    let invoker = world.login(key.secret.as_deref().unwrap()).unwrap();
    let denied = world.server.create_key(&invoker, &tenant("acme"), new.clone()).await.unwrap_err();
    assert_eq!(denied.code, ErrorCode::PermissionDenied);
    let escalation = NewKey { role: Role::PlatformAdmin, ..new.clone() };
    let acme = NewKey { role: Role::Admin, ..new };
    let acme =
        world.login(&world.server.create_key(&platform, &tenant("acme"), acme).await.unwrap().secret.unwrap()).unwrap();
    for owner in [tenant("acme"), operator()] {
        let error = world.server.create_key(&acme, &owner, escalation.clone()).await.unwrap_err();
        assert!(matches!(error.code, ErrorCode::PermissionDenied | ErrorCode::NotFound), "{error}");
    }
    let last = world.server.revoke_key(&platform, &operator(), platform.key).await.unwrap_err();
    assert_eq!(last.code, ErrorCode::Conflict, "somebody must be able to administer the server");

    world.server.delete_tenant(&platform, &tenant("acme")).await.unwrap();
    assert_eq!(world.login(key.secret.as_deref().unwrap()).unwrap_err().code, ErrorCode::Unauthenticated);
    assert_eq!(world.server.delete_tenant(&platform, &operator()).await.unwrap_err().code, ErrorCode::Conflict);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_fails_its_own_requests_and_is_replaced() {
    let world = World::start().await;
    let (acme, globex) = (world.tenant("acme").await, world.tenant("globex").await);
    world.push(&acme, "count", "net.onnx", &onnx::counting_loop()).await;
    world.push(&globex, "net", "net.onnx", &onnx::matmul16()).await;
    let count_to = |count: i64| world.infer(&acme, request("count", vec![integers("count", &[], &[count])]));
    world.matmul(&globex, "net", 1.0).await.unwrap();
    // Loaded, so that what the worker is busy with below is the run.
    count_to(1).await.unwrap();
    let kill = async {
        let victim = |worker: &tenantry_node::WorkerStats| worker.domain.model_owner == acme.tenant && worker.busy;
        let find = async {
            loop {
                // Nothing announces that a run began; the run itself is awaited, it has no end.
                if let Some(worker) = world.node.stats().workers.into_iter().find(victim) {
                    return worker.pid.unwrap();
                }
                tokio::task::yield_now().await;
            }
        };
        let pid = tokio::time::timeout(PATIENCE, find).await.expect("no busy worker");
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        assert_eq!(world.matmul(&globex, "net", 3.0).await.unwrap(), [6.0; 16]);
    };
    let (outcome, ()) = tokio::join!(count_to(i64::MAX), kill);
    let error = outcome.unwrap_err();
    assert_eq!(error.code, ErrorCode::ModelFailed, "{error}");
    assert!(error.message.contains("model `count`"), "{error}");
    let answer = count_to(5).await.unwrap();
    assert_eq!(answer.response.outputs[0].data.to_contiguous(), 5_i64.to_le_bytes().to_vec());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_keeps_dying_is_quarantined_with_the_reason_in_its_status() {
    let world = World::start().await;
    let acme = world.tenant("acme").await;
    world.push(&acme, "div", "net.onnx", &onnx::div_i64()).await;
    // Another one each time: the same one would be refused for what it is, before the model is.
    let deadly = |round| request("div", vec![integers("a", &[2], &[i64::MIN, round]), integers("b", &[2], &[-1, 1])]);
    let mut last = None;
    for round in 0..20 {
        let error = world.infer(&acme, deadly(round)).await.unwrap_err();
        let done = error.code == ErrorCode::Unavailable;
        last = Some(error);
        if done {
            break;
        }
    }
    let last = last.unwrap();
    assert_eq!(last.code, ErrorCode::Unavailable, "{last}");
    assert!(last.retry_after.is_some() && last.message.contains("model `div`"), "{last:?}");
    let readiness = world.server.model_ready(&acme, &reference("div"), None).unwrap();
    assert!(!readiness.ready, "{readiness:?}");
    let status = world.registered(&acme, "div", 1).await.residency;
    assert!(status.quarantine.is_some() && status.last_failure.is_some(), "{status:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlines_and_limits_are_refused_by_the_table() {
    let world = World::start_with(|limits| {
        limits.tenant_max_requests = 1;
        limits.max_body_bytes = 1_000;
    })
    .await;
    let acme = world.tenant("acme").await;
    world.push(&acme, "count", "net.onnx", &onnx::counting_loop()).await;
    let slow = InferRequest {
        timeout: Some(Duration::from_millis(100)),
        ..request("count", vec![integers("count", &[], &[i64::MAX])])
    };
    let error = world.infer(&acme, slow).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{error}");
    assert_eq!(world.server.admit(&acme, &reference("net"), Some(1_001)).unwrap_err().code, ErrorCode::TooLarge);
    let permit = world.server.admit(&acme, &reference("net"), None).unwrap();
    let refused = world.server.admit(&acme, &reference("net"), None).unwrap_err();
    assert!(refused.code == ErrorCode::ResourceExhausted && refused.retry_after.is_some(), "{refused:?}");
    drop(permit);

    // A client that goes away is counted as cancelled, and its place is free at once.
    let permit = world.server.admit(&acme, &reference("net"), None).unwrap();
    let endless = request("count", vec![integers("count", &[], &[i64::MAX])]);
    let answer = world.server.infer(&acme, &permit, world.server.new_request_id(), endless);
    assert!(answer.now_or_never().is_none());
    // The edge holds the permit beside the answer's future: both go with the client.
    drop(permit);
    assert!(world.server.admit(&acme, &reference("net"), None).is_ok());
    let metrics = world.server.metrics_text();
    assert!(metrics.contains("tenantry_requests_total{tenant=\"acme\",model=\"acme/count\",code=\"cancelled\"} 1"));
    assert!(
        metrics.contains("tenantry_requests_total{tenant=\"acme\",model=\"acme/count\",code=\"deadline_exceeded\"} 1")
    );
    // The runs have no end: waiting for them is not what this test is about.
    world.server.drain(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reconciler_keeps_the_minimum_and_unloads_what_idles() {
    let world = World::start().await;
    let acme = world.tenant("acme").await;
    world.push(&acme, "net", "net.onnx", &onnx::matmul16()).await;
    world.deploy(&acme, "net", |change| change.min_replicas = 1).await;
    let ready = |node: &Arc<tenantry_node::Node>| {
        node.observe().replicas.iter().any(|replica| replica.state == ReplicaState::Ready).then_some(())
    };
    world.until("replica without any request", ready).await;
    world
        .deploy(&acme, "net", |change| {
            change.min_replicas = 0;
            change.idle_after = Some(Duration::from_millis(1));
        })
        .await;
    world.until("end of the idle replica", |node| node.observe().replicas.is_empty().then_some(())).await;
    assert_eq!(world.matmul(&acme, "net", 2.0).await.unwrap(), [4.0; 16], "loaded again on demand");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_what_runs_and_refuses_what_comes() {
    let world = World::start().await;
    let acme = world.tenant("acme").await;
    world.push(&acme, "net", "net.onnx", &onnx::matmul16()).await;
    // Admitted before the drain, and not loaded yet.
    let permit = world.server.admit(&acme, &reference("net"), Some(64)).unwrap();
    let cold = request("net", vec![sixteen(1.0)]);
    let running = {
        let (server, acme): (Arc<Server>, _) = (Arc::clone(&world.server), acme.clone());
        let request = server.new_request_id();
        let mut answer = Box::pin(async move { server.infer(&acme, &permit, request, cold).await });
        assert!((&mut answer).now_or_never().is_none());
        tokio::spawn(answer)
    };
    world.server.drain(PATIENCE).await;
    assert_eq!(floats(&running.await.unwrap().unwrap()), [2.0; 16]);
    let refused = world.server.admit(&acme, &reference("net"), Some(64)).unwrap_err();
    assert!(refused.code == ErrorCode::Unavailable && refused.retry_after.is_some(), "{refused:?}");
    assert!(!world.server.is_ready());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_sees_the_statistics_of_its_own_requests_only() {
    let world = World::start().await;
    let platform = world.platform();
    let (acme, globex) = (world.tenant("acme").await, world.tenant("globex").await);
    world.push(&platform, "double", "net.onnx", &onnx::matmul16()).await;
    world.share(&platform, "double").await;
    world.push(&globex, "secret", "net.onnx", &onnx::matmul16()).await;
    for _ in 0..3 {
        world.matmul(&acme, "platform/double", 1.0).await.unwrap();
    }
    world.matmul(&globex, "platform/double", 1.0).await.unwrap();
    let wrong = request("platform/double", vec![integers("x", &[1, 16], &[0; 16])]);
    assert_eq!(world.infer(&acme, wrong).await.unwrap_err().code, ErrorCode::InvalidArgument);

    let counts = |caller, model| {
        let all = world.server.model_statistics(caller, Some(&reference(model)), None).unwrap();
        let [one] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((one.name.to_string().as_str(), one.version.as_str()), (model, "1"));
        (one.success.count, one.fail.count, one.inferences, one.executions, one.queue.count, one.compute.count)
    };
    assert_eq!(counts(&acme, "platform/double"), (3, 1, 3, 3, 3, 3));
    assert_eq!(counts(&globex, "platform/double"), (1, 0, 1, 1, 1, 1));
    assert_eq!(counts(&platform, "double"), (0, 0, 0, 0, 0, 0));
    let all = world.server.model_statistics(&acme, None, None).unwrap();
    let [only] = all.as_slice() else { panic!("another tenant's model does not exist: {all:?}") };
    assert!(only.success.total >= only.queue.total + only.batches[0].compute.total, "{only:?}");
    assert!(only.last_inference_ms.is_some());
    for (model, version) in [("globex/secret", None), ("platform/double", Some("2"))] {
        let error = world.server.model_statistics(&acme, Some(&reference(model)), version).unwrap_err();
        assert_eq!(error.code, ErrorCode::NotFound, "{model}");
    }
    world.stop().await;
}
