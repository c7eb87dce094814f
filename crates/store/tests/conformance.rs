//! One suite of what the store promises, run on SQLite, with files encrypted and not, and on a Postgres cluster of its own.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "conformance/artefacts.rs"]
mod artefacts;
#[path = "conformance/audit.rs"]
mod audit;
#[path = "conformance/budgets.rs"]
mod budgets;
#[path = "conformance/catalogue.rs"]
mod catalogue;
#[path = "conformance/encryption.rs"]
mod encryption;
#[path = "conformance/opening.rs"]
mod opening;
#[path = "conformance/prices.rs"]
mod prices;
#[path = "conformance/registry.rs"]
mod registry;
#[path = "conformance/search.rs"]
mod search;
#[path = "conformance/shares.rs"]
mod shares;
mod support;
#[path = "conformance/tenants.rs"]
mod tenants;
#[path = "conformance/usage.rs"]
mod usage;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{StreamExt as _, future, stream};
use support::{Backend, Cluster, Shared};

type Case = fn(Shared) -> Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! cases {
    ($($module:ident::$case:ident,)*) => {
        &[$((concat!(stringify!($module), "::", stringify!($case)), (|backend| Box::pin($module::$case(backend))) as Case)),*]
    };
}

const CASES: &[(&str, Case)] = cases![
    tenants::have_unique_names_and_are_listed_oldest_first,
    tenants::have_two_minimums_of_which_the_higher_counts,
    tenants::take_everything_with_them_when_deleted,
    tenants::keys_open_by_their_secret_until_revoked_or_expired,
    tenants::keys_are_bounded_and_dead_ones_make_room,
    tenants::keys_are_confined_rotated_and_proved_by_certificates,
    tenants::roles_are_a_tenants_own,
    tenants::models_are_shared_with_tenants_by_name,
    registry::a_model_is_created_once_with_its_deployment,
    registry::a_models_fields_change_and_bad_ones_are_refused,
    registry::a_version_is_registered_or_refused_once,
    registry::a_version_needs_its_files_uploaded_by_its_owner,
    registry::version_numbers_are_distinct_under_concurrency_and_never_reused,
    registry::a_deployment_changes_by_compare_and_set,
    registry::exactly_one_of_many_concurrent_changes_wins,
    registry::a_late_registration_does_not_displace_a_newer_version,
    registry::only_versions_made_to_be_deployed_are,
    registry::aliases_move_and_protect_what_they_name,
    registry::deleting_a_model_removes_all_of_it,
    search::finds_words_whatever_their_case_and_place,
    search::finds_tags_exactly_and_goes_on_page_by_page,
    shares::organisations_have_unique_names_and_go_when_empty,
    shares::settings_are_kept_by_subject_and_change_by_compare_and_set,
    shares::settings_go_with_what_they_are_for,
    shares::are_checked_together_even_when_set_at_the_same_time,
    usage::a_record_comes_into_the_books_once_and_whole,
    usage::what_a_start_left_open_is_closed_by_the_next_as_interrupted,
    usage::a_damaged_file_is_kept_and_holds_up_nobody,
    usage::files_go_when_they_are_in_the_books,
    usage::an_error_half_way_doubles_nothing,
    usage::what_waits_too_long_in_memory_is_read_from_the_files,
    usage::whoever_leaves_while_the_books_are_brought_up_to_date_doubles_nothing,
    prices::plans_are_added_and_found_and_never_changed,
    prices::a_plan_ends_or_is_taken_back_before_it_begins,
    prices::of_a_tenant_that_has_gone_are_kept,
    budgets::change_by_compare_and_set_and_go_with_their_tenant,
    budgets::a_threshold_is_news_once,
    budgets::days_become_invoices_whose_figures_are_the_records,
    budgets::what_was_used_is_found_by_scope_and_period,
    artefacts::are_kept_by_owner_and_digest,
    artefacts::are_visible_whole_or_not_at_all,
    artefacts::of_a_deleted_tenant_are_not_taken,
    artefacts::go_with_the_last_version_that_refers_to_them,
    artefacts::nothing_refers_to_are_swept_after_a_day,
    artefacts::optimised_forms_never_replace_each_other,
    artefacts::optimised_forms_of_one_key_are_kept_once,
    artefacts::uploads_are_bounded,
    encryption::leaves_nothing_of_a_file_on_the_disk_in_the_clear,
    encryption::makes_one_first_key_however_many_begin,
    encryption::follows_a_tenants_new_key_while_files_are_written,
    encryption::reads_what_was_there_before_and_encrypts_it,
    encryption::refuses_files_that_were_moved_changed_or_put_back,
    encryption::ends_with_the_tenant,
    encryption::refuses_another_master_key,
    encryption::follows_a_new_master_key,
    encryption::holds_a_decrypted_file_once_and_only_while_it_is_used,
    encryption::can_be_left_off,
    audit::is_written_with_what_it_tells_of_or_not_at_all,
    audit::is_read_newest_first_by_tenant_time_and_page,
    audit::is_bounded_in_size_number_and_age,
    audit::has_one_order_however_many_write,
    audit::is_a_chain_in_which_every_change_is_found,
    audit::is_found_short_and_without_its_end,
    audit::verifies_after_the_oldest_went,
    audit::of_before_it_was_a_chain_becomes_one,
    catalogue::is_one_moment_however_busy_the_writers,
    catalogue::of_many_models_is_whole,
    catalogue::counts_commits_only,
    catalogue::a_damaged_row_is_an_error_that_names_the_column,
    opening::again_finds_everything,
    opening::is_for_one_process_at_a_time,
    opening::with_another_database_is_refused,
    opening::at_the_same_time_migrates_once,
];

/// How many cases run at once: most of a case is waiting for the disk or for Postgres.
const AT_ONCE: usize = 4;

/// Runs every case in its own place; one that fails does not hide the others.
async fn run(backend: Backend) {
    let backend: Shared = Arc::new(backend);
    let run = |(name, case): &(&'static str, Case)| {
        let (name, case) = (*name, tokio::spawn(case(backend.clone())));
        async move { case.await.is_err().then_some(name) }
    };
    let outcomes = stream::iter(CASES).map(run).buffer_unordered(AT_ONCE);
    let failed: Vec<&str> = outcomes.filter_map(future::ready).collect().await;
    assert!(failed.is_empty(), "failed: {failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite() {
    run(Backend::sqlite(false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_encrypted() {
    run(Backend::sqlite(true)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres() {
    match Cluster::start() {
        Some(cluster) => run(Backend::postgres(cluster)).await,
        None => eprintln!("skipped: no Postgres on this machine"),
    }
}
