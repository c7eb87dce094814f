use tenantry_store::Sharing;
use tenantry_types::Dim;

use super::*;
use crate::testing::{World, registration, version_id};

#[test]
fn what_is_left_to_register_is_found_in_the_table_oldest_first() {
    let world = World::new().model(2, 3, "late", Sharing::Private, "g").model(1, 2, "own", Sharing::Private, "rxgg");
    let waiting: Vec<VersionId> = waiting(&world.routing()).into_iter().map(|(id, _)| id).collect();
    assert_eq!(waiting, [version_id(1, 3), version_id(1, 4), version_id(2, 1)]);
}

#[test]
fn an_honest_claim_passes_unchanged() {
    assert_eq!(checked(registration()), Ok(registration()));
}

#[test]
fn claims_that_cannot_be_are_refused() {
    let refused = |change: fn(&mut Registration)| {
        let mut claim = registration();
        change(&mut claim);
        checked(claim).unwrap_err()
    };
    assert!(refused(|claim| claim.signature.outputs.clear()).contains("no outputs"));
    assert!(refused(|claim| claim.signature.inputs[0].name.clear()).contains("is not supported"));
    assert!(!refused(|claim| claim.signature.inputs[0].name = "a\nb".to_owned()).contains('\n'));
    assert!(refused(|claim| claim.signature.inputs[0].name = "n".repeat(300)).len() < 200);
    assert!(refused(|claim| claim.signature.inputs[0].dims = vec![Dim::Fixed(1); 17]).contains("17 dimensions"));
    assert!(refused(|claim| claim.signature.inputs = vec![claim.signature.inputs[0].clone(); 2]).contains("twice"));
    assert!(
        refused(|claim| claim.signature.inputs = vec![claim.signature.inputs[0].clone(); 65]).contains("65 inputs")
    );
    assert!(refused(|claim| claim.profile.options.threads = 0).contains("threads"));
}

#[test]
fn claims_that_are_too_long_are_cut() {
    let mut claim = registration();
    claim.metadata.producer = "p\u{202e}".repeat(5_000);
    claim.metadata.custom = vec![("k\n".to_owned(), "v".repeat(5_000)); 1_000];
    claim.profile.best_batch = 0;
    claim.profile.points = vec![claim.profile.points[0]; 1_000];
    claim.signature.outputs[0].dims[0] = Dim::Fixed(1);
    let kept = checked(claim).unwrap();
    assert!(kept.metadata.producer.chars().count() <= MAX_ENGINE_MESSAGE_CHARS + 1);
    assert_eq!((kept.metadata.custom.len(), kept.profile.points.len()), (MAX_CUSTOM_PAIRS, MAX_POINTS));
    assert_eq!(kept.metadata.custom[0].0, "k ");
    assert_eq!((kept.profile.best_batch, kept.can_batch), (1, false));
}

#[tokio::test]
async fn pauses_grow_and_only_deaths_count_as_deaths() {
    let first = next_try(None, &Unfinished::Busy);
    assert_eq!((first.pause, first.deaths), (MIN_RETRY, 0));
    let second = next_try(Some(first), &Unfinished::Ended("died".to_owned()));
    assert_eq!((second.pause, second.deaths), (MIN_RETRY * 2, 1));
    let last = (0..20).fold(second, |last, _| next_try(Some(last), &Unfinished::Busy));
    assert_eq!((last.pause, last.deaths), (MAX_RETRY, 1));
}
