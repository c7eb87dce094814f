use super::*;

fn tenant(number: u8) -> TenantId {
    TenantId::from_parts(u64::from(number), [number; 10])
}

#[test]
fn the_documented_names_are_there() {
    let metrics = Metrics::new();
    let flow = metrics.flow(tenant(1), "acme", &Arc::from("platform/magika"));
    flow.ran(Duration::from_micros(250), Duration::from_millis(2), 4);
    flow.ended(None, Duration::from_millis(3));
    flow.ended(Some(ErrorCode::DeadlineExceeded), Duration::from_secs(1));
    metrics.unresolved(None).ended(Some(ErrorCode::Unauthenticated), Duration::ZERO);
    metrics.registered("ready");
    flow.rejected("request_rate");
    flow.rejected("no such reason");
    flow.looked_up(true);
    flow.looked_up(true);
    flow.looked_up(false);
    metrics.cache_evicted("acme", 7);
    metrics.charged("acme", Duration::from_millis(250));
    metrics.charged("acme", Duration::from_millis(500));
    let text = metrics.encode();
    for line in [
        "tenantry_requests_total{tenant=\"acme\",model=\"platform/magika\",code=\"ok\"} 1",
        "tenantry_requests_total{tenant=\"acme\",model=\"platform/magika\",code=\"deadline_exceeded\"} 1",
        "tenantry_requests_total{tenant=\"\",model=\"\",code=\"unauthenticated\"} 1",
        "tenantry_request_duration_seconds_count{tenant=\"acme\",model=\"platform/magika\"} 2",
        "tenantry_queue_wait_seconds_count{tenant=\"acme\",model=\"platform/magika\"} 1",
        "tenantry_device_time_seconds_total{tenant=\"acme\",model=\"platform/magika\"} 0.002",
        "tenantry_batch_rows_sum{tenant=\"acme\",model=\"platform/magika\"} 4.0",
        "tenantry_registrations_total{outcome=\"ready\"} 1",
        "tenantry_rejections_total{tenant=\"acme\",model=\"platform/magika\",reason=\"request_rate\"} 1",
        "tenantry_device_charged_seconds_total{tenant=\"acme\"} 0.5",
        "tenantry_cache_hits_total{tenant=\"acme\",model=\"platform/magika\"} 2",
        "tenantry_cache_misses_total{tenant=\"acme\",model=\"platform/magika\"} 1",
        "tenantry_cache_evicted_bytes_total{tenant=\"acme\"} 7",
        "tenantry_cache_bytes 0",
        "tenantry_clear_bytes 0",
        "tenantry_suspensions_total 0",
        "tenantry_workers 0",
        "tenantry_queued_tasks 0",
        "tenantry_worker_deaths_total 0",
        "# EOF",
    ] {
        assert!(text.contains(line), "{line} is missing from:\n{text}");
    }
    assert_eq!(text.matches("code=").count(), 3, "codes that never occurred have no series");
}

#[test]
fn every_code_has_a_counter_of_its_own() {
    let metrics = Metrics::new();
    let flow = metrics.unresolved(Some((tenant(1), "acme")));
    for code in codes() {
        flow.ended(code, Duration::ZERO);
    }
    let text = metrics.encode();
    for code in codes() {
        let label = code.map_or("ok", ErrorCode::as_str);
        let line = format!("tenantry_requests_total{{tenant=\"acme\",model=\"\",code=\"{label}\"}} 1");
        assert!(text.contains(&line), "{line}");
    }
}

#[test]
fn labels_are_bounded() {
    let metrics = Metrics::new();
    for number in 0..MAX_FLOWS + 5 {
        metrics.flow(tenant(1), "acme", &Arc::from(format!("acme/m{number}"))).ran(Duration::ZERO, Duration::ZERO, 1);
    }
    let text = metrics.encode();
    assert_eq!(text.matches("tenantry_batch_rows_count{").count(), MAX_FLOWS + 1);
    assert!(text.contains("tenantry_batch_rows_count{tenant=\"_other\",model=\"_other\"} 5"));
}

#[test]
fn series_of_what_is_gone_are_dropped() {
    let metrics = Metrics::new();
    for model in ["acme/kept", "acme/gone"] {
        let flow = metrics.flow(tenant(1), "acme", &Arc::from(model));
        flow.ran(Duration::ZERO, Duration::ZERO, 1);
        flow.ended(None, Duration::ZERO);
    }
    metrics.unresolved(Some((tenant(2), "globex"))).ended(Some(ErrorCode::NotFound), Duration::ZERO);
    metrics.retain(|id, model| id == tenant(1) && model != Some("acme/gone"));
    let text = metrics.encode();
    assert!(text.contains("acme/kept") && !text.contains("acme/gone") && !text.contains("globex"));
}
