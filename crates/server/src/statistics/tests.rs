use tenantry_sched::Phase;

use super::*;

const MILLI: Duration = Duration::from_millis(1);

fn ran(rows: u32, batch_rows: u32, device_time: Duration, batch_time: Duration) -> Ran {
    let timing = Timing {
        queue_wait: 2 * MILLI,
        device_time,
        batch_wait: batch_time - device_time,
        batch_time,
        suspended: Duration::ZERO,
        rows,
        batch_rows,
        phase: Phase::Shared,
    };
    Ran { timing, cache: CacheUse::Off, lookup: Duration::ZERO }
}

fn shown(counters: &Counters) -> ModelStatistics {
    counters.clone().shown("net".parse().unwrap(), 3)
}

#[test]
fn members_of_one_batch_make_one_execution() {
    let mut counters = Counters::default();
    for rows in [1, 2, 5] {
        counters.answered(&ran(rows, 8, rows * MILLI, 8 * MILLI), 20 * MILLI, 7);
    }
    let statistics = shown(&counters);
    assert_eq!((statistics.inferences, statistics.executions), (8, 1));
    assert_eq!(statistics.success, DurationStatistic { count: 3, total: 60 * MILLI });
    assert_eq!(statistics.queue, DurationStatistic { count: 3, total: 6 * MILLI });
    // Each of them waited for the whole batch, but the batch ran once.
    assert_eq!(statistics.compute, DurationStatistic { count: 3, total: 24 * MILLI });
    let once = DurationStatistic { count: 1, total: 8 * MILLI };
    assert_eq!(statistics.batches, [BatchStatistics { rows: 8, compute: once }]);
    assert_eq!(statistics.last_inference_ms, Some(7));
}

#[test]
fn a_caller_counts_his_part_of_batches_shared_with_others() {
    let mut counters = Counters::default();
    for _ in 0..30 {
        counters.answered(&ran(1, 3, MILLI, 3 * MILLI), 5 * MILLI, 1);
    }
    assert_eq!(shown(&counters).executions, 10);
}

#[test]
fn failures_are_counted_apart() {
    let statistics = VersionStatistics::default();
    statistics.failed(4 * MILLI);
    let statistics = shown(&statistics.0.lock());
    assert_eq!(statistics.fail, DurationStatistic { count: 1, total: 4 * MILLI });
    assert_eq!((statistics.success.count, statistics.executions, statistics.last_inference_ms), (0, 0, None));
}

#[test]
fn further_batch_sizes_are_in_the_sums_only() {
    let mut counters = Counters::default();
    for rows in 1..=2 * MAX_BATCH_SIZES as u32 {
        counters.answered(&ran(rows, rows, MILLI, MILLI), MILLI, 1);
    }
    counters.answered(&ran(1, 1, MILLI, MILLI), MILLI, 1);
    let statistics = shown(&counters);
    assert_eq!(statistics.batches.len(), MAX_BATCH_SIZES);
    assert_eq!(statistics.batches[0].compute.count, 2);
    assert_eq!(statistics.executions, 2 * MAX_BATCH_SIZES as u64 + 1);
}

#[test]
fn counters_of_callers_and_versions_that_are_gone_are_dropped() {
    let statistics = Statistics::default();
    let (one, other) = (crate::testing::tenant_id(1), crate::testing::tenant_id(2));
    for (caller, version) in [(one, 1), (one, 2), (other, 1)] {
        statistics.of(caller, version).failed(MILLI);
    }
    statistics.retain(|caller, version| caller == one && version == 1);
    assert_eq!(statistics.read(one, 1).fail.count, 1);
    assert_eq!((statistics.read(one, 2).fail.count, statistics.read(other, 1).fail.count), (0, 0));
}

#[test]
fn an_answer_from_the_cache_is_a_success_and_nothing_else() {
    let mut counters = Counters::default();
    let miss = Ran { cache: CacheUse::Miss, lookup: 2 * MILLI, ..ran(1, 1, MILLI, MILLI) };
    let hit = Ran { cache: CacheUse::Hit, lookup: MILLI, ..ran(0, 0, Duration::ZERO, Duration::ZERO) };
    for ran in [miss, hit, hit] {
        counters.answered(&ran, 5 * MILLI, 1);
    }
    let statistics = shown(&counters);
    assert_eq!(statistics.success, DurationStatistic { count: 3, total: 15 * MILLI });
    assert_eq!(statistics.cache_hit, DurationStatistic { count: 2, total: 2 * MILLI });
    assert_eq!(statistics.cache_miss, DurationStatistic { count: 1, total: 2 * MILLI });
    assert_eq!((statistics.inferences, statistics.executions, statistics.queue.count), (1, 1, 1));
    assert_eq!(statistics.batches.len(), 1);
}
