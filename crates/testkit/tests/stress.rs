//! The properties P1 to P8 under threads, for `STRESS_SECONDS` each, from `STRESS_SEED`.

use testkit::run::watched;
use testkit::{bystander, grave, leaving, mirror, refusal, roll, shared, threads};

#[test]
fn p1_no_mirror_uses_or_commits_an_old_generation() {
    watched("p1", mirror::stress);
}

#[test]
fn p2_nothing_calls_the_dead() {
    watched("p2", grave::stress);
}

#[test]
fn p3_everybody_is_woken() {
    watched("p3", leaving::wake_everybody);
}

#[test]
fn p4_free_comes_once_after_callbacks_and_synchronize_waits() {
    watched("p4", shared::stress);
}

#[test]
fn p5_release_comes_once_when_exit_and_unregister_race() {
    watched("p5", leaving::stress);
}

#[test]
fn p6_failed_starts_leave_no_trace() {
    watched("p6", refusal::stress);
}

#[test]
fn p7_each_start_after_the_insert_calls_it_once() {
    watched("p7", roll::stress);
}

#[test]
fn p8_nobody_elsewhere_waits_while_invalidations_hand_over() {
    watched("p8 handing over", bystander::stress);
}

#[test]
fn p8_nobody_elsewhere_waits_while_one_is_held_open() {
    watched("p8 held open", bystander::beside_one_held_open);
}

#[test]
fn short_lived_threads_leave_nothing_behind() {
    watched("short-lived threads", threads::short_lived);
}
