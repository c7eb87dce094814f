//! Decision logs, and that the checkers notice what is wrong.

use std::time::Duration;

use tenantry_sched::Policy;
use tenantry_sim::adversary::{Adversary, scenario};
use tenantry_sim::log::{Recorder, check};
use tenantry_sim::world::{Observer, run};

fn log() -> String {
    let world = scenario(Adversary::FloodSmall, Policy::Fair, 2, true, Duration::from_secs(3));
    let mut recorder = Recorder::new(Vec::new(), &world.config).unwrap();
    run(&world, &mut [&mut recorder as &mut dyn Observer]);
    String::from_utf8(recorder.finish().unwrap()).unwrap()
}

#[test]
fn a_log_checks_out() {
    let found = check(log().as_bytes()).unwrap();
    assert!(found.differs.is_none(), "{:?}", found.differs);
    assert_eq!(found.violations.1, 0, "{:?}", found.violations.0);
    assert!(found.decisions > 100 && found.lateness.1 > 10, "{found:?}");
}

/// The first line with such a word, changed; what the check of the log then finds.
fn spoiled(word: &str, change: impl Fn(&str) -> String) -> (Vec<&'static str>, bool) {
    let text = log();
    let mut done = false;
    let lines = text.lines().map(|line| {
        if done || !line.contains(word) {
            return line.to_owned();
        }
        done = true;
        change(line)
    });
    let changed: String = lines.flat_map(|line| [line, "\n".to_owned()]).collect();
    assert!(done, "nothing in the log says {word}");
    let found = check(changed.as_bytes()).unwrap();
    let properties = found.violations.0.iter().map(|violation| violation.property).collect();
    (properties, found.differs.is_some())
}

#[test]
fn a_decision_that_was_left_out_is_noticed() {
    // The whole list of decisions of the first poll with a suspension disappears.
    let cut = |line: &str| format!("{}\"decisions\":[]}}", line.split("\"decisions\"").next().unwrap());
    let (properties, differs) = spoiled("\"suspend\":", cut);
    assert!(differs);
    assert!(!properties.is_empty());
}

#[test]
fn a_slot_that_is_used_twice_is_noticed() {
    let (properties, differs) = spoiled("\"dispatch\"", |line| line.replacen("\"slot\":0", "\"slot\":1", 1));
    assert!(differs && properties.contains(&"slots") || properties.contains(&"P1"), "{properties:?}");
}

#[test]
fn a_task_that_ends_twice_is_noticed() {
    let twice = |line: &str| {
        let at = line.rfind("]}").unwrap();
        let task = line.split("\"tasks\":[").nth(1).unwrap().split([',', ']']).next().unwrap();
        format!("{},{{\"expire\":{{\"task\":{task}}}}}]}}", &line[..at])
    };
    let (properties, differs) = spoiled("\"dispatch\"", twice);
    assert!(differs && properties.contains(&"ends"), "{properties:?}");
}

#[test]
fn time_that_is_charged_otherwise_changes_what_follows() {
    let longer = |line: &str| line.replacen("\"secs\":0,\"nanos\":", "\"secs\":9,\"nanos\":", 1);
    let (_, differs) = spoiled("\"done\"", longer);
    assert!(differs);
}

#[test]
fn what_is_no_log_is_refused() {
    assert!(check(&b""[..]).unwrap_err().to_string().contains("empty"));
    assert!(check(&b"{}\n"[..]).unwrap_err().to_string().contains("line 1"));
}
