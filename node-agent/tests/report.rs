//! The conditions and messages of a profile's status.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail them")]

use std::sync::Arc;

use jiff::Timestamp;
use nettune_agent::kernel::facts::Identity;
use nettune_agent::pressure::conditions::PressureCondition;
use nettune_agent::pressure::monitor::TableConditions;
use nettune_agent::status::NodeReport;
use nettune_crds::conditions::{
    self, CONNTRACK_PRESSURE, CONTESTED, DRIFTED, NEIGHBOR_PRESSURE, READY, RELEASED, reasons,
};
use nettune_crds::{KeyState, NodeNetworkProfileStatus, ProfileFacts};
use nettune_reconcile::desired::{Revision, Task};
use nettune_reconcile::outcome::KeyReport;

fn key(name: &str, state: KeyState, message: &str) -> KeyReport {
    KeyReport {
        name: name.into(),
        observed: None,
        original: None,
        state,
        message: message.to_owned(),
        waits_for: None,
        invalid: false,
        dropped: false,
        drift_count: 0,
    }
}

fn waiting(name: &str, waits_for: &str) -> KeyReport {
    KeyReport {
        waits_for: Some(waits_for.to_owned()),
        ..key(name, KeyState::Waiting, "")
    }
}

fn report(task: Task, keys: Vec<KeyReport>) -> NodeReport {
    NodeReport {
        revision: Some(Revision {
            uid: "uid".to_owned(),
            generation: 3,
        }),
        task,
        keys,
        released: task == Task::Release,
        malformed: None,
        tables: None,
        table_conditions: calm(),
        facts: ProfileFacts::default(),
        identity: Arc::new(Identity {
            boot_id: "boot".to_owned(),
            kernel_release: "6.1.0".to_owned(),
            base_kernel: None,
            cores: 1,
        }),
    }
}

fn calm() -> TableConditions {
    let none = PressureCondition {
        status: Some(false),
        reason: reasons::NO_PRESSURE,
        message: String::new(),
    };
    TableConditions {
        neighbors: none.clone(),
        conntrack: none,
    }
}

fn status_at(
    second: i64,
    report: &NodeReport,
    previous: &NodeNetworkProfileStatus,
) -> NodeNetworkProfileStatus {
    report.status(previous, Timestamp::from_second(second).unwrap())
}

/// `Status Reason: message` of a condition.
fn condition(type_: &str, report: &NodeReport) -> String {
    let status = status_at(0, report, &NodeNetworkProfileStatus::default());
    let found = conditions::find(&status.conditions, type_).unwrap();
    format!("{} {}: {}", found.status, found.reason, found.message)
}

#[test]
fn unmanaged_key_is_reported_and_does_not_affect_ready() {
    let applied = || key("net.core.somaxconn", KeyState::Applied, "");
    for state in [KeyState::Waiting, KeyState::NotApplicable] {
        let dropped = KeyReport {
            dropped: true,
            ..key("net.core.rmem_max", state, "left at 5: why")
        };
        let found = report(Task::Enforce, vec![applied(), dropped]);
        assert_eq!(
            condition(READY, &found),
            "True Applied: 1 of 1 sysctl applied; 1 original value of a sysctl that is no longer managed is not restored"
        );
        let status = status_at(0, &found, &NodeNetworkProfileStatus::default());
        assert_eq!(status.sysctls[1].message, "left at 5: why");
    }
}

#[test]
fn readiness_is_one_sentence() {
    use KeyState::{Applied, Drifted, Failed, NotApplicable};
    let applied = || key("a", Applied, "");
    let container = || key("c", NotApplicable, "");
    let cases = [
        (
            Task::Enforce,
            vec![],
            "True Applied: no sysctls are managed",
        ),
        (
            Task::Enforce,
            vec![applied()],
            "True Applied: 1 of 1 sysctl applied",
        ),
        (
            Task::Enforce,
            vec![applied(), applied()],
            "True Applied: 2 of 2 sysctls applied",
        ),
        (
            Task::Enforce,
            vec![
                applied(),
                waiting("b", "ip_vs"),
                waiting("b", "ip_vs"),
                waiting("c", "nf_conntrack"),
            ],
            "True Waiting: 1 applied, 3 waiting for ip_vs and nf_conntrack",
        ),
        (
            Task::Enforce,
            vec![applied(), container(), container()],
            "True Applied: 1 of 1 sysctl applied; 2 not applicable to this node",
        ),
        (
            Task::Enforce,
            vec![container()],
            "True Applied: no managed sysctl applies to this node",
        ),
        (
            Task::Enforce,
            vec![
                applied(),
                key("net.x", Failed, "EROFS: do this"),
                key("net.y", Failed, ""),
            ],
            "False Failed: net.x: EROFS: do this (and 1 more)",
        ),
        (
            Task::Observe,
            vec![applied(), key("b", Drifted, "")],
            "True Observed: 1 of 2 sysctls applied, 1 drifted: mode Observe writes nothing",
        ),
        (
            Task::ApplyOnce,
            vec![key("b", Drifted, "")],
            "True Applied: 0 of 1 sysctl applied, 1 drifted: mode ApplyOnce does not undo later changes",
        ),
    ];
    for (task, keys, expected) in cases {
        assert_eq!(condition(READY, &report(task, keys)), expected);
    }
}

#[test]
fn unusable_entry_is_invalid_and_not_failed() {
    let entry = KeyReport {
        invalid: true,
        ..key("kernel.panic", KeyState::Failed, "not on the list")
    };
    let expected = "False Invalid: kernel.panic: not on the list";
    assert_eq!(
        condition(READY, &report(Task::Enforce, vec![entry])),
        expected
    );
}

#[test]
fn drift_names_the_key_and_both_values() {
    let drifted = key("net.x", KeyState::Drifted, "found 1, desired at least 2");
    let found = report(Task::ApplyOnce, vec![drifted]);
    let expected = "True ValuesDiffer: net.x: found 1, desired at least 2";
    assert_eq!(condition(DRIFTED, &found), expected);
    let none = report(Task::Enforce, vec![key("net.x", KeyState::Applied, "")]);
    assert_eq!(condition(DRIFTED, &none), "False NoDrift: ");
}

#[test]
fn release_reports_what_was_left_and_why() {
    let back = || key("net.x", KeyState::Applied, "the original value");
    let left = key(
        "net.y",
        KeyState::NotApplicable,
        "left at 5: another process has set it since",
    );
    let whole = report(Task::Release, vec![back()]);
    assert_eq!(
        condition(RELEASED, &whole),
        "True Restored: the 1 sysctl that was written is restored"
    );
    let partly = report(Task::Release, vec![back(), left]);
    let expected = "True PartiallyRestored: 1 of 2 sysctls are restored; \
                    net.y: left at 5: another process has set it since";
    assert_eq!(condition(RELEASED, &partly), expected);
    let nothing = report(Task::Release, vec![]);
    assert!(condition(RELEASED, &nothing).starts_with("True Restored: nothing was written"));
}

#[test]
fn released_is_removed_when_the_node_is_managed_again() {
    let released = status_at(
        0,
        &report(Task::Release, vec![]),
        &NodeNetworkProfileStatus::default(),
    );
    let taken_up = status_at(1, &report(Task::Enforce, vec![]), &released);
    assert!(conditions::find(&taken_up.conditions, RELEASED).is_none());
}

#[test]
fn equal_reports_give_equal_statuses_at_any_time() {
    let found = report(Task::Enforce, vec![waiting("b", "ip_vs")]);
    let first = status_at(0, &found, &NodeNetworkProfileStatus::default());
    assert_eq!(status_at(3600, &found, &first), first);
}

#[test]
fn condition_set_by_the_operator_is_set_back() {
    let found = report(Task::Enforce, vec![key("a", KeyState::Applied, "")]);
    let mut unresponsive = status_at(0, &found, &NodeNetworkProfileStatus::default());
    let at = Timestamp::from_second(5).unwrap();
    conditions::set(
        &mut unresponsive.conditions,
        READY,
        None,
        "AgentUnresponsive",
        "",
        Some(3),
        at,
    );
    let again = status_at(9, &found, &unresponsive);
    let ready = conditions::find(&again.conditions, READY).unwrap();
    assert_eq!(ready.status, "True");
    assert_eq!(
        ready.last_transition_time.0,
        Timestamp::from_second(9).unwrap()
    );
}

#[test]
fn message_fits_the_schema() {
    let long = key("a", KeyState::Failed, &"ü".repeat(5000));
    let status = status_at(
        0,
        &report(Task::Enforce, vec![long]),
        &NodeNetworkProfileStatus::default(),
    );
    assert_eq!(status.sysctls[0].message.chars().count(), 1024);
}

#[test]
fn contested_key_makes_ready_false_with_its_own_reason() {
    let contested = key(
        "net.x",
        KeyState::Contested,
        "another process keeps writing 1",
    );
    let found = report(
        Task::Enforce,
        vec![key("a", KeyState::Applied, ""), contested],
    );
    let expected = "Contested: net.x: another process keeps writing 1";
    assert_eq!(condition(READY, &found), format!("False {expected}"));
    assert_eq!(condition(CONTESTED, &found), format!("True {expected}"));
    let failed = key("net.y", KeyState::Failed, "no");
    let both = report(Task::Enforce, vec![found.keys[1].clone(), failed]);
    assert_eq!(condition(READY, &both), "False Failed: net.y: no");
    assert_eq!(condition(CONTESTED, &both), format!("True {expected}"));
    let none = report(Task::Enforce, vec![key("a", KeyState::Applied, "")]);
    assert_eq!(condition(CONTESTED, &none), "False NotContested: ");
}

#[test]
fn pressure_is_reported_and_does_not_affect_ready() {
    let mut found = report(Task::Enforce, vec![key("a", KeyState::Applied, "")]);
    found.table_conditions.neighbors = PressureCondition {
        status: Some(true),
        reason: reasons::OVERFLOW,
        message: "why".to_owned(),
    };
    found.table_conditions.conntrack = PressureCondition {
        status: None,
        reason: reasons::NOT_IN_PATH,
        message: "whose".to_owned(),
    };
    assert_eq!(condition(NEIGHBOR_PRESSURE, &found), "True Overflow: why");
    assert_eq!(
        condition(CONNTRACK_PRESSURE, &found),
        "Unknown NotInPath: whose"
    );
    assert!(condition(READY, &found).starts_with("True "));
}
