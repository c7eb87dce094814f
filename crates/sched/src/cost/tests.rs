use super::*;

const PLACE: (PlacementId, u32) = (PlacementId(1), 7);

fn at(ms: u64) -> MonotonicTime {
    MonotonicTime::from_nanos(ms * 1_000_000)
}

fn after(batches: impl IntoIterator<Item = (u64, u64)>) -> Costs {
    let mut costs = Costs::default();
    for (index, (rows, used_us)) in batches.into_iter().enumerate() {
        costs.observe(PLACE, rows, 1_000_000 * rows, Duration::from_micros(used_us), at(index as u64));
    }
    costs
}

fn cell(costs: &Costs) -> &Cell {
    costs.get(PLACE.0, PLACE.1).unwrap()
}

#[test]
fn fixed_and_growing_parts_are_told_apart() {
    let costs = after((0..60).map(|index| (1 + index % 8, 500 + 100 * (1 + index % 8))));
    let (fixed_ns, per_row_ns) = cell(&costs).parts_ns();
    assert!((495_000..505_000).contains(&fixed_ns), "{fixed_ns}");
    assert!((99_000..101_000).contains(&per_row_ns), "{per_row_ns}");
}

#[test]
fn alternating_cheap_and_dear_inputs_do_not_fool_it_for_long() {
    // 1 ms and 30 ms in turn, after a long time of cheap ones: the tail covers the dear ones from the second on.
    let costs = after((0..200).map(|_| (1, 1_000)).chain([(1, 30_000), (1, 1_000), (1, 30_000)]));
    assert!(cell(&costs).upper_ns(1) >= 30_000_000, "{}", cell(&costs).upper_ns(1));
    let costs = after((0..200).map(|index| (1, if index % 2 == 0 { 1_000 } else { 30_000 })));
    assert!(cell(&costs).upper_ns(1) >= 30_000_000, "{}", cell(&costs).upper_ns(1));
}

#[test]
fn the_tail_is_calibrated() {
    // A fixed sequence that looks like noise of 30 %.
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / f64::from(1_u32 << 31)
    };
    let mut costs = Costs::default();
    let (mut within, mut total) = (0, 0);
    for index in 0..20_000_u64 {
        let rows = 1 + index % 4;
        let used = Duration::from_nanos(((300_000.0 + 200_000.0 * rows as f64) * (0.7 + 0.6 * noise())) as u64);
        if index > 500 {
            total += 1;
            within += u64::from(used.as_nanos() as u64 <= cell(&costs).upper_ns(rows));
        }
        costs.observe(PLACE, rows, 1_000_000, used, at(index));
    }
    let share = within as f64 / f64::from(total);
    assert!((0.98..=1.0).contains(&share), "{share}");
}

#[test]
fn a_step_is_learned_within_fifty_batches() {
    let costs = after((0..300).map(|_| (1, 1_000)).chain((0..50).map(|_| (1, 2_000))));
    let median = cell(&costs).median_ns(1);
    assert!((1_700_000..2_100_000).contains(&median), "{median}");
}

#[test]
fn what_was_never_or_long_not_seen_is_stale() {
    let costs = after([(1, 1_000)]);
    assert!(!cell(&costs).is_stale(at(1_000)));
    assert!(cell(&costs).is_stale(at(1_001)));
}

#[test]
fn one_dear_first_batch_is_forgotten_at_once() {
    let costs = after([(1, 500_000)].into_iter().chain((0..5).map(|_| (1, 5_000))));
    let median = cell(&costs).median_ns(1);
    assert!((5_000_000..9_000_000).contains(&median), "{median}");
}
