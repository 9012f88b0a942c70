//! Another process that keeps writing: the conflict is bounded and ends, and the desired value is restored.

mod model;

use std::time::Duration;

use model::simulation::{HOUR, Simulation};
use model::{BUCKETS, Kernel, MAX, V4, V6, at_least, exactly, key, thresholds};
use nettune_crds::KeyState;
use nettune_reconcile::desired::Task;
use nettune_reconcile::outcome::KeyReport;
use nettune_sizing::{DesiredValue, SysctlKey};
use proptest::prelude::*;
use rustix::io::Errno;

fn lower_max(kernel: &mut Kernel) {
    kernel.set(MAX, 65_536);
}

#[test]
fn single_write_is_undone_at_once_and_counted() {
    let mut simulation = Simulation::over(&[(MAX, at_least(131_072))]);
    lower_max(&mut simulation.kernel);
    simulation.settle();
    assert_eq!(simulation.kernel.number(MAX), Some(131_072));
    let report = simulation.key(MAX);
    assert_eq!((report.state, report.drift_count), (KeyState::Applied, 1));
}

#[test]
fn raising_a_limit_is_not_a_conflict() {
    let mut simulation = Simulation::over(&[(MAX, at_least(131_072))]);
    let mut raised = 131_072;
    simulation.go_on(HOUR, Duration::from_secs(60), |kernel| {
        raised += raised / 4;
        kernel.set(MAX, raised);
    });
    assert!(simulation.writes.is_empty(), "{:?}", simulation.writes);
    assert_eq!(simulation.key(MAX).drift_count, 0);
}

#[test]
fn endless_writer_is_undone_with_growing_pauses_then_left() {
    let mut simulation = Simulation::over(&[(MAX, at_least(131_072)), (BUCKETS, at_least(65_536))]);
    let start = simulation.agent.now;
    simulation.go_on(HOUR, Duration::from_millis(100), lower_max);
    let answers: Vec<u64> = simulation
        .writes
        .iter()
        .map(|(at, _)| at.since(start).as_secs())
        .collect();
    assert_eq!(answers, [0, 1, 3, 7, 15, 31, 63]);
    let report = simulation.key(MAX);
    assert_eq!(report.state, KeyState::Contested);
    for part in [
        "65536",
        "at least 131072",
        "since 2026-01-01T00:00:00Z",
        "8 times within the first 1 min 3 s",
        "maxPerCore: 0",
    ] {
        assert!(report.message.contains(part), "{}", report.message);
    }
    assert_eq!(
        report.observed,
        Some(65_536.into()),
        "the value in the kernel"
    );

    simulation.reports.clear();
    simulation.go_on(HOUR * 24, Duration::from_millis(700), lower_max);
    assert_eq!(simulation.writes.len(), 7 + 24, "one attempt an hour");
    assert!(
        simulation.reports.len() <= 25,
        "one for the count of each try: {}",
        simulation.reports.len()
    );
    let mut states = simulation.reports.iter().flatten();
    let max = |report: &&KeyReport| &*report.name == MAX.name();
    assert!(
        states
            .by_ref()
            .filter(max)
            .all(|report| report.state == KeyState::Contested),
        "an attempt does not end the conflict"
    );
}

#[test]
fn message_does_not_change_between_two_attempts() {
    let mut simulation = Simulation::over(&[(MAX, at_least(131_072))]);
    simulation.go_on(
        Duration::from_secs(60),
        Duration::from_millis(100),
        lower_max,
    );
    let reports = simulation.reports.iter().flatten();
    let mut waiting: Vec<&str> = reports
        .filter(|report| report.state == KeyState::Drifted)
        .map(|report| report.message.as_str())
        .collect();
    assert!(waiting.len() > 3);
    waiting.dedup();
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    assert!(waiting[0].contains("set again"), "{}", waiting[0]);
}

#[test]
fn writers_every_minute_or_hour_also_end_in_a_conflict() {
    for (tempo, most) in [(60, 8), (1800, 10), (3600, 24)] {
        let mut simulation = Simulation::over(&[(MAX, at_least(131_072))]);
        simulation.go_on(HOUR * 48, Duration::from_secs(tempo), lower_max);
        assert_eq!(simulation.key(MAX).state, KeyState::Contested, "{tempo}");
        assert!(simulation.most_in_an_hour(MAX) <= most, "{tempo}");
        let contested = |report: &Vec<KeyReport>| report[0].state == KeyState::Contested;
        let first = simulation.reports.iter().position(contested).unwrap();
        let later = &simulation.reports[first..];
        assert!(later.iter().all(contested), "{tempo}: it does not flap");
    }
}

#[test]
fn nightly_restart_is_never_a_conflict() {
    let mut simulation = Simulation::over(&[(MAX, at_least(131_072))]);
    simulation.go_on(HOUR * 24 * 60, HOUR * 24, lower_max);
    assert_eq!(simulation.writes_of(MAX), 60, "each is answered");
    let mut reports = simulation.reports.iter().flatten();
    assert!(reports.all(|report| report.state == KeyState::Applied));
}

#[test]
fn value_is_restored_within_an_hour_after_the_writer_stops() {
    let mut simulation = Simulation::over(&[(MAX, at_least(131_072))]);
    simulation.go_on(
        Duration::from_secs(120),
        Duration::from_millis(100),
        lower_max,
    );
    assert_eq!(simulation.key(MAX).state, KeyState::Contested);
    simulation.rest(HOUR);
    assert_eq!(simulation.kernel.number(MAX), Some(131_072));
    simulation.rest(Duration::from_secs(70));
    assert_eq!(simulation.key(MAX).state, KeyState::Applied);
    simulation.go_on(Duration::from_secs(60), Duration::from_secs(60), lower_max);
    assert_eq!(
        simulation.kernel.number(MAX),
        Some(131_072),
        "and a new one starts from nothing"
    );
}

#[test]
fn new_profile_is_one_more_attempt() {
    let mut simulation = Simulation::over(&[(MAX, at_least(131_072))]);
    simulation.go_on(
        Duration::from_secs(120),
        Duration::from_millis(100),
        lower_max,
    );
    simulation.writes.clear();
    simulation
        .agent
        .turn_to(Task::Enforce, &[(MAX, at_least(262_144))]);
    simulation.go_on(
        Duration::from_secs(120),
        Duration::from_millis(100),
        lower_max,
    );
    assert_eq!(simulation.writes.len(), 1);
    let report = simulation.key(MAX);
    assert_eq!(report.state, KeyState::Contested);
    assert!(report.message.contains("262144"), "{}", report.message);
    simulation
        .agent
        .turn_to(Task::Observe, &[(MAX, at_least(262_144))]);
    simulation.settle();
    assert_eq!(simulation.key(MAX).state, KeyState::Drifted);
}

/// Faster than any read: its value is back whenever the agent reads.
#[test]
fn writer_faster_than_a_read_is_not_taken_for_the_kernel() {
    let mut simulation = Simulation::over(&[(MAX, at_least(131_072))]);
    simulation
        .kernel
        .turns_into
        .insert(MAX.clone(), 65_536.into());
    lower_max(&mut simulation.kernel);
    simulation.rest(HOUR / 2);
    assert_eq!(simulation.writes.len(), 7);
    assert_eq!(simulation.key(MAX).state, KeyState::Contested);
}

#[test]
fn reloaded_module_ends_a_conflict() {
    let mut simulation = Simulation::over(&[(MAX, at_least(131_072))]);
    simulation.go_on(
        Duration::from_secs(120),
        Duration::from_millis(100),
        lower_max,
    );
    simulation.kernel.values.remove(MAX);
    simulation.settle();
    assert_eq!(simulation.key(MAX).state, KeyState::Waiting);
    lower_max(&mut simulation.kernel);
    simulation.settle();
    assert_eq!(simulation.kernel.number(MAX), Some(131_072));
    assert_eq!(simulation.key(MAX).state, KeyState::Applied);
}

#[test]
fn rejected_write_of_a_contested_key_is_reported() {
    let mut simulation = Simulation::over(&[(MAX, at_least(131_072))]);
    simulation.go_on(
        Duration::from_secs(120),
        Duration::from_millis(100),
        lower_max,
    );
    simulation.kernel.refuses.insert(MAX.clone(), Errno::ROFS);
    simulation.rest(HOUR + Duration::from_secs(1));
    assert_eq!(simulation.key(MAX).state, KeyState::Failed);
}

#[test]
fn conflict_on_one_threshold_does_not_spread() {
    let wanted = [
        (V4[0], at_least(1024)),
        (V4[1], at_least(4096)),
        (V4[2], at_least(8192)),
    ];
    let mut simulation = Simulation::over(&wanted);
    simulation.go_on(HOUR / 4, Duration::from_millis(100), |kernel| {
        kernel.set(V4[1], 512);
    });
    assert_eq!(simulation.key(V4[1]).state, KeyState::Contested);
    assert_eq!(simulation.kernel.thresholds(V4), [256, 512, 8192]);
    let first = simulation.key(V4[0]);
    assert_eq!((first.state, first.drift_count), (KeyState::Waiting, 0));
    assert!(
        first.message.contains("below gc_thresh2"),
        "{}",
        first.message
    );
    assert_eq!(simulation.key(V4[2]).state, KeyState::Applied);
    simulation.rest(HOUR);
    assert_eq!(simulation.kernel.thresholds(V4), [1024, 4096, 8192]);
}

/// The kernel takes no entry past the third threshold and collects none up to the second.
#[test]
fn thresholds_below_a_contested_one_follow_it_down() {
    let mut simulation = Simulation::over(&thresholds(0, 4096, 8192));
    simulation.kernel.counts.neighbors_ipv4 = Some(200);
    simulation.go_on(HOUR / 4, Duration::from_millis(100), |kernel| {
        kernel.set(V4[2], 1024);
    });
    assert_eq!(simulation.key(V4[2]).state, KeyState::Contested);
    assert_eq!(simulation.kernel.thresholds(V4), [0, 512, 1024]);
    assert_eq!(simulation.key(V4[1]).state, KeyState::Waiting);

    let mut simulation = Simulation::over(&thresholds(0, 4096, 8192));
    simulation.kernel.counts.neighbors_ipv4 = Some(300);
    simulation.go_on(HOUR / 4, Duration::from_millis(100), |kernel| {
        kernel.set(V4[2], 1024);
    });
    assert_eq!(
        simulation.kernel.thresholds(V4),
        [0, 4096, 1024],
        "never below twice what the table holds"
    );
}

#[test]
fn threshold_above_an_oscillating_one_stays() {
    let mut simulation = Simulation::over(&thresholds(0, 4096, 8192));
    let mut up = false;
    simulation.go_on(HOUR, Duration::from_secs(1), |kernel| {
        up = !up;
        kernel.set(V4[1], if up { 200_000 } else { 10_000 });
    });
    assert_eq!(
        simulation.writes_of(V4[2]),
        1,
        "up to 400000 at once, and not back"
    );
    assert_eq!(simulation.key(V4[2]).state, KeyState::Applied);
}

#[test]
fn unmanaged_threshold_is_not_rewritten_forever() {
    let mut simulation = Simulation::over(&[(V4[1], at_least(4096))]);
    simulation.go_on(HOUR, Duration::from_millis(100), |kernel| {
        kernel.set(V4[2], 1024);
    });
    assert!(
        simulation.writes_of(V4[2]) <= 8,
        "{}",
        simulation.writes_of(V4[2])
    );
}

#[derive(Debug, Clone)]
struct Act {
    pause: Duration,
    times: u32,
    key: usize,
    values: [u64; 2],
}

fn keys() -> Vec<SysctlKey> {
    let mut all: Vec<SysctlKey> = V4.into_iter().chain([V6[1]]).cloned().collect();
    all.extend([MAX.clone(), BUCKETS.clone(), key("net.core.somaxconn")]);
    all
}

/// Anything from a loop to a cron job, of one value or two in turn.
fn acts() -> impl Strategy<Value = Vec<Act>> {
    let pause = prop_oneof![
        (50..500_u64).prop_map(Duration::from_millis),
        (1..90_u64).prop_map(Duration::from_secs),
        (60..4000_u64).prop_map(Duration::from_secs),
    ];
    let value = || {
        prop_oneof![
            (4..22_u32).prop_map(|power| 1_u64 << power),
            Just(i32::MAX as u64),
            Just(0)
        ]
    };
    let act = (pause, 1..40_u32, 0..keys().len(), [value(), value()]);
    let act = act.prop_map(|(pause, times, key, values)| Act {
        pause,
        times,
        key,
        values,
    });
    proptest::collection::vec(act, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 12, ..ProptestConfig::default() })]

    /// Whatever is written: few writes, few reports, and the desired values an hour after the end.
    #[test]
    fn writes_are_bounded_against_any_writer_and_values_are_restored(acts in acts(), exact in any::<bool>()) {
        let somaxconn = key("net.core.somaxconn");
        let third = if exact { exactly(8192) } else { at_least(8192) };
        let wanted = [
            (V4[0], at_least(1024)),
            (V4[1], at_least(4096)),
            (V4[2], third),
            (V6[1], at_least(4096)),
            (MAX, at_least(131_072)),
            (BUCKETS, at_least(131_072)),
            (&somaxconn, exactly(4096)),
        ];
        let mut simulation = Simulation::over(&wanted);
        simulation.kernel.set(&somaxconn, 128);
        let mut span = Duration::ZERO;
        for act in &acts {
            let mut turn = 0;
            let key = &keys()[act.key];
            simulation.go_on(act.pause * act.times, act.pause, |kernel| {
                turn += 1;
                let value = act.values[turn % 2];
                kernel.set(key, if key == BUCKETS { value.max(512) } else { value });
            });
            span += act.pause * act.times;
        }
        for key in keys() {
            // Thresholds also follow each other, at most once for each doubling.
            let most = if V4.contains(&&key) || V6.contains(&&key) { 48 } else { 16 };
            let writes = simulation.most_in_an_hour(&key);
            prop_assert!(writes <= most, "{} writes of {} in an hour", writes, key);
        }
        let hours = usize::try_from(span.as_secs() / 3600).unwrap() + 1;
        let turns = simulation.turns();
        prop_assert!(turns <= 60 + 20 * hours, "{turns} changes of a state in {hours} h");

        simulation.rest(HOUR + Duration::from_secs(1));
        // A threshold that waited for another one comes back with it, and what was won rests as long.
        simulation.rest(HOUR + Duration::from_secs(1));
        for (key, wanted) in &wanted {
            let found = simulation.kernel.number(key).unwrap();
            let is_right = match wanted {
                DesiredValue::Exact(value) => value.as_number() == Some(found),
                DesiredValue::AtLeast(bounds) => found >= bounds.floor() || found == 0,
            };
            let follows = *key == V4[2] && simulation.kernel.number(V4[1]).unwrap() >= 8192;
            prop_assert!(is_right || follows, "{} is {}: {:?}", key, found, simulation.key(key));
        }
        prop_assert!(simulation.kernel.is_ordered(V4), "{:?}", simulation.kernel.thresholds(V4));
        prop_assert!(simulation.kernel.is_ordered(V6), "{:?}", simulation.kernel.thresholds(V6));
        simulation.rest(Duration::from_secs(7 * 3600));
        let contested = |report: &&KeyReport| report.state == KeyState::Contested;
        prop_assert_eq!(simulation.reports.last().unwrap().iter().find(contested), None);
        let writes = simulation.writes.len();
        simulation.rest(HOUR * 10);
        prop_assert_eq!(simulation.writes.len(), writes, "nothing is left to do");
    }
}
