#![allow(clippy::all, warnings)]
mod support;
use support::*;
use std::time::Instant;
use tenantry_types::testing::onnx;
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn measure() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start_in(folder.path(), |_| {}).await;
    let acme = world.tenant("acme").await;
    let v = world.push(&acme, "net", "net.onnx", &onnx::matmul16()).await;
    println!("{:?}", v.registration.as_ref().unwrap().profile);
    let key = world.server.create_key(&acme, &acme.tenant_name, tenantry_server::admin::NewKey { role: tenantry_server::Role::Invoker, label: String::new(), expires_in: None }).await.unwrap().secret;
    let header = format!("Bearer {key}");
    world.matmul(&acme, "net", 1.0).await.unwrap();
    let n = 200_000;
    let t = Instant::now();
    for _ in 0..n { std::hint::black_box(world.server.authenticate(Some(&header)).unwrap()); }
    println!("authenticate {:?}", t.elapsed() / n);
    let t = Instant::now();
    for _ in 0..n { std::hint::black_box(world.server.admit(&acme, Some(64)).unwrap()); }
    println!("admit {:?}", t.elapsed() / n);
    let t = Instant::now();
    for _ in 0..n { std::hint::black_box(world.server.new_request_id()); }
    println!("id {:?}", t.elapsed() / n);
    // refused at the outputs: path up to the signature check
    let t = Instant::now();
    for _ in 0..50_000 { let mut r = request("net", vec![sixteen(1.0)]); r.inputs = tenantry_types::Inputs::Named(vec![]); let _ = std::hint::black_box(world.infer(&acme, r).await); }
    println!("refused infer {:?}", t.elapsed() / 50_000);
    for _ in 0..3 {
        let t = Instant::now();
        for _ in 0..5_000 { world.matmul(&acme, "net", 1.0).await.unwrap(); }
        println!("infer seq {:?}", t.elapsed() / 5_000);
    }
    world.stop().await;
    let store = open_store(folder.path()).await;
    let owner = acme.tenant;
    let t = Instant::now();
    let m0 = store.model_by_name(owner, &model("net")).await.unwrap();
    let v0 = store.versions(m0.id).await.unwrap().remove(0);
    for i in 0..1000 {
        let m = store.create_model(owner, &model(&format!("m{i}")), Default::default(), 1).await.unwrap().id;
        let new = tenantry_store::NewVersion { files: v0.files.clone(), ..Default::default() };
        let v = store.create_version(m, new, 1).await.unwrap();
        store.finish_version(v.id, v0.registration.as_ref().unwrap(), v0.optimised.as_ref(), true).await.unwrap();
    }
    println!("1000 models in {:?}", t.elapsed());
    let t = Instant::now();
    store.catalogue().await.unwrap();
    println!("catalogue {:?}", t.elapsed());
    let rss = || std::fs::read_to_string("/proc/self/status").unwrap().lines().find(|l| l.starts_with("VmRSS")).unwrap().to_string();
    println!("{}", rss());
    store.close().await; drop(store);
    let t = Instant::now();
    let world = World::start_in(folder.path(), |_| {}).await;
    println!("start {:?} {}", t.elapsed(), rss());
    let p = world.platform();
    for i in 0..3 {
        let t = Instant::now();
        world.server.create_tenant(&p, &tenant(&format!("t{i}"))).await.unwrap();
        println!("create tenant with 1000 models {:?}", t.elapsed());
    }
    println!("{}", rss());
    world.stop().await;
}
