//! Tests of whole scripts: what they print, and where they are wrong.

use super::run::{self, Error};
use super::rust::Rust;
use super::script::Script;

/// Plays a script and gives what it printed, and its error as `LINE: WHAT`.
fn played(text: &str) -> (String, Option<String>) {
    let mut out = Vec::new();
    let played = run::play::<Rust>(&Script::parse(text), &mut out);
    let error = played.err().map(|error| match error {
        Error::Line { line, what } => format!("{line}: {what}"),
        Error::Output(error) => format!("output: {error}"),
    });
    (String::from_utf8(out).unwrap(), error)
}

/// Plays a script that is right.
fn printed(text: &str) -> String {
    let (out, error) = played(text);
    assert_eq!(error, None, "the script is right; it printed:\n{out}");
    out
}

/// Plays a script that is wrong in its last line: every other step prints, and what is wrong holds `what`.
#[track_caller]
fn wrong(text: &str, what: &str) {
    let (out, error) = played(text);
    let error = error.unwrap_or_else(|| panic!("no error; it printed:\n{out}"));
    let line = text.lines().count();
    assert!(error.starts_with(&format!("{line}: ")), "in line {line}: {error}");
    assert!(error.contains(what), "`{what}` is named: {error}");
    let steps = out.lines().filter(|line| !line.starts_with(' ') && !line.ends_with("(late)")).count();
    assert_eq!(steps, line - 1, "what was printed before stands, and no more:\n{out}");
}

#[test]
fn steps_print_their_words_as_written() {
    let out = printed("# head\n\n  space   A   # comment\nT-1_x:\thas A\r\n");
    assert_eq!(out, "3 main space A -> ok\n4 T-1_x has A -> no\n");
}

#[test]
fn an_empty_file_prints_nothing() {
    assert_eq!(printed(""), "");
    assert_eq!(printed("# nothing\n\n"), "");
}

#[test]
fn an_error_stops_the_run_and_the_lines_of_the_end_do_not_print() {
    let text = "space A\ninterval S A 0 1\nhold S\nT: start I A 0 1 unmap\nget G A k\nput G\nT: has A";
    let (out, error) = played(text);
    let last = "    S invalidate I\n4 T start I A 0 1 unmap -> waits\n5 main get G A k -> made\n\
                6 main put G -> ok\n";
    assert!(out.ends_with(last), "{out}");
    assert_eq!(error.unwrap(), "7: the thread `T` still waits in its step of line 4");
}

#[test]
fn malformed_lines() {
    wrong("T1:", "verb is missing");
    wrong("space A\nT1 : has A", "unknown verb `T1`");
    wrong("space A\nT!: has A", "`T!` is no name");
    wrong("space A\nT:has A", "unknown verb");
    wrong("space A.B", "`A.B` is no name");
    wrong("space", "missing");
    wrong("space A B", "`B` does not belong here");
    wrong("space A\nstart I A 0 1", "missing");
    wrong("space A\nstart I A 0 1 unmapped", "unknown event");
    wrong("space A\nstart I A 0 1 release", "unknown event");
    wrong("space A\nstart I A 0 1 unmap nonblock nonblock", "`nonblock` does not belong");
    wrong("space A\nstart I A 0 1 unmap owner=x", "`x` is no number");
    wrong("space A\ninterval S A 0 1 twopass refuses", "`refuses` does not belong");
    wrong("space A\nlist N A finish", "unknown callback");
    wrong("space A\nlist N A end end", "twice");
    wrong("space A\nlist N A start refuses", "in place of");
    wrong("space A\nlist N A young\nyoung N maybe", "`maybe`");
    wrong("synchronize A", "does not belong");
}

#[test]
fn numbers_are_decimal_or_hexadecimal_and_fit() {
    for number in ["+1", "-1", "0x", "1_000", "0xg", "1k", "0X10"] {
        wrong(&format!("space A\ntest_young A {number}"), "is no number");
    }
    let top = "0x10000000000000000";
    wrong(&format!("space A\ntest_young A {top}"), "too large");
    wrong(&format!("space A\nstart I A {top} {top} unmap"), "too large");
    wrong("space A\nstart I A 0 0x10000000000000001 unmap", "too large");
    wrong("space A\ninterval S A 0 99999999999999999999999999999999999999999999", "too large");
    let out = printed(&format!("space A\nstart I A 0xffffffffffffffff {top} unmap owner=0\nend I"));
    assert!(out.ends_with("3 main end I -> ok\n"), "{out}");
}

#[test]
fn empty_and_reversed_ranges() {
    for range in ["1 1", "0 0", "2 1", "0x2000 0x1000"] {
        for call in [
            "start I A RANGE unmap",
            "clear_flush_young A RANGE",
            "clear_young A RANGE",
            "invalidate A RANGE",
        ] {
            wrong(&format!("space A\n{}", call.replace("RANGE", range)), "empty");
        }
    }
}

#[test]
fn unknown_verbs_and_names() {
    wrong("space A\nspaces B", "unknown verb `spaces`");
    wrong("has A", "unknown name `A`");
    wrong("interval S A 0 1", "unknown name `A`");
    wrong("end I", "unknown name `I`");
    wrong("hold S", "`S` is unknown");
    wrong("space A\nhold A", "`A` is no subscriber");
    wrong("space A\nremove A", "`A` is no interval subscription");
    wrong("space A\nlist N A\nremove N", "`N` is no interval subscription");
    wrong("space A\nget G A k\nunregister G", "`G` is no list subscription of `list`");
    wrong("space A\nlist N A\nput N", "`N` is no list subscription of `get`");
    wrong("space A\ninterval S A 0 1\nyoung S yes", "`S` is no list subscription");
    wrong("space A\ninterval S A 0 1\nend S", "`S` is no invalidation");
    wrong("space A\ninterval S A 0 1\nretry S", "`S` is no token");
    wrong("space A\ninterval S A 0 1\nspace B\nhas S", "`S` is no space");
}

#[test]
fn a_name_is_taken_for_good() {
    wrong("space A\nspace A", "made before");
    wrong("space A\nlist A A", "made before");
    wrong("space A\ninterval S A 0 0\ninterval S A 0 1", "made before");
    wrong("space A\nstart I A 0 1 unmap\nend I\nstart I A 0 1 unmap", "made before");
    wrong("space A\nlist N A\nunregister N\nget N A k", "made before");
    // Keys and threads have names of their own.
    let out = printed("A: space A\nA: get G A G\nG: get H A A");
    assert_eq!(out, "1 A space A -> ok\n2 A get G A G -> made\n3 G get H A A -> made\n");
}

#[test]
fn a_name_names_nothing_after_a_failure_or_its_end() {
    wrong("space A\ninterval S A 0 0\nremove S", "names nothing");
    wrong("space A\ninterval S A 0 0\nhold S", "no subscriber");
    wrong("space A\nlist N A refuses\nstart I A 0 1 unmap nonblock\nend I", "names nothing");
    wrong("space A\nstart I A 0 1 unmap\nend I\nend I", "names nothing");
    wrong("space A\ninterval S A 0 1\nremove S\nremove S", "names nothing");
    wrong("space A\ninterval S A 0 1\nremove S\nread R S", "names nothing");
    wrong("space A\nlist N A\nunregister N\nyoung N yes", "names nothing");
    wrong("space A\nget G A k\nput G\nput G", "names nothing");
}

#[test]
fn a_name_names_nothing_while_its_step_waits() {
    let held = "space A\ninterval S A 0 1\nhold S\nT: start I A 0 1 unmap\n";
    wrong(&format!("{held}end I"), "names nothing");
    wrong(&format!("{held}start I A 0 1 unmap"), "made before");
    wrong(&format!("{held}R: read R S\nretry R"), "names nothing");
    wrong(&format!("{held}R: remove S\nread R S"), "names nothing");
    wrong(&format!("{held}T: has A"), "still waits in its step of line 4");
}

#[test]
fn hold_and_let_know_a_subscriber_for_good() {
    let out =
        printed("space A\nlist N A release\nunregister N\nhold N\nlet N\nget G A k\nput G\nhold G\nlet G");
    assert!(out.contains("8 main hold G -> ok\n9 main let G -> ok\n"), "{out}");
}

#[test]
fn remove_while_a_read_waits_is_an_error() {
    let busy = "space A\ninterval S A 0 1\nstart I A 0 1 unmap\nR: read R S\n";
    wrong(&format!("{busy}remove S"), "the read of line 4 waits");
    let out = printed(&format!("{busy}end I\nremove S"));
    assert!(out.ends_with("5 main end I -> ok\n4 R read R S -> ok (late)\n6 main remove S -> ok\n"), "{out}");
}

#[test]
fn retry_after_the_remove_is_an_error() {
    wrong(
        "space A\ninterval S A 0 1\nread R S\nremove S\nretry R",
        "`R` is a token of `S`, which is removed",
    );
}

#[test]
fn calls_on_a_space_without_users_are_errors() {
    let calls = [
        "start I A 0 1 unmap",
        "leave A",
        "has A",
        "clear_flush_young A 0 1",
        "clear_young A 0 1",
        "test_young A 0",
        "change_pte A 0 0",
        "invalidate A 0 1",
    ];
    for call in calls {
        wrong(&format!("space A\nleave A\n{call}"), "no users");
        wrong(&format!("space A\nlist N A release\nhold N\nT: leave A\n{call}"), "no users");
    }
}

#[test]
fn late_steps_print_in_order_of_their_lines_each_behind_its_callbacks() {
    let text = "space A\ninterval S A 0 1\nlist N A start\nhold S\nT: start I A 0 1 unmap\n\
                U: start J A 0 1 unmap\nlet S\nT: end I\nU: end J\n";
    let late = "    N start I\n5 T start I A 0 1 unmap -> ok (late)\n    N start J\n\
                6 U start J A 0 1 unmap -> ok (late)\n";
    let out = printed(text);
    assert!(out.contains(&format!("7 main let S -> ok\n{late}8 T end I -> ok\n")), "{out}");
}

#[test]
fn a_shared_one_made_while_the_release_is_held_is_gone() {
    let text = "space A\nget G A k\nhold G\nT: leave A\nget H A k\nlet G\nput G\n";
    let last = "    G release\n4 T leave A -> waits\n5 main get H A k -> gone\n6 main let G -> ok\n\
                4 T leave A -> ok (late)\n7 main put G -> ok\n    G free\n";
    assert!(printed(text).ends_with(last));
}

#[test]
fn a_free_prints_at_the_first_synchronize_after_its_put() {
    let text = "space A\nget G A k\nput G\nT: synchronize\nsynchronize\nget H A k\nput H\n";
    let last = "    G free\n4 T synchronize -> ok\n5 main synchronize -> ok\n6 main get H A k -> made\n\
                7 main put H -> ok\n    H free\n";
    assert!(printed(text).ends_with(last));
}

#[test]
fn a_run_leaves_nothing_that_a_later_one_waits_for() {
    let left = "space A\nlist N A start\nget G A k\ninterval S A 0 1\nhold N\nT: start I A 0 1 unmap\nput G\n\
                U: unregister N\nR: read Q S\nV: synchronize\nhold S\nW: leave A\n";
    for _ in 0..3 {
        let out = printed(left);
        assert!(out.ends_with("12 W leave A -> still waits\n"), "{out}");
        assert_eq!(printed("synchronize"), "1 main synchronize -> ok\n");
    }
}

#[test]
fn the_head_comment_is_what_a_script_is_about() {
    assert_eq!(Script::parse("# C3.1: all\nspace A").about.as_deref(), Some("C3.1: all"));
    assert_eq!(Script::parse("space A # C3.1").about, None);
}
