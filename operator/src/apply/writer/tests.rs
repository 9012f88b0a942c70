use kube::Config;
use kube::core::Status;
use nettune_crds::Rule;
use nettune_crds::{NodeNetworkProfileSpec, ProfileSysctl};
use prometheus_client::registry::Registry;

use super::*;
use crate::apply::backoff::LONGEST_WAIT;
use crate::apply::body;
use crate::watch;

/// A writer whose writes stay in flight: the tests give the answers.
fn writer() -> Writer {
    let nowhere = Config::new("http://127.0.0.1:1".parse().unwrap());
    let client = Client::try_from(nowhere).unwrap();
    let metrics = Metrics::register(&mut Registry::default());
    Writer::new(client, NotBefore::default(), metrics, Writable::Always)
}

fn spec(value: &str) -> Arc<NodeNetworkProfileSpec> {
    Arc::new(NodeNetworkProfileSpec {
        tuning: "default".to_owned(),
        sysctls: vec![ProfileSysctl {
            name: "net.core.somaxconn".to_owned(),
            rule: Rule::Exact,
            value: value.to_owned(),
            ceiling: None,
            reason: "for a test".to_owned(),
        }],
        ..NodeNetworkProfileSpec::default()
    })
}

fn change(value: &str) -> Write {
    Write::ReplaceProfile {
        node: "a".into(),
        node_uid: "of the node".into(),
        uid: "of the profile".into(),
        seen: "1".into(),
        spec: spec(value),
    }
}

/// Plans the write of this value until it starts, and returns how long that took.
async fn starts(writer: &mut Writer, value: &str) -> Duration {
    let began = Instant::now();
    loop {
        let wake = writer.plan(vec![change(value)], Instant::now());
        if !writer.busy.is_empty() {
            return began.elapsed();
        }
        tokio::time::sleep_until(wake.unwrap()).await;
    }
}

fn settles(writer: &mut Writer, result: Result<Answer, WriteError>) {
    let done = Done {
        object: Object::Profile("a".into()),
        uid: "of the profile".into(),
        verb: "update",
        took: Duration::ZERO,
        result,
        announcements: Vec::new(),
    };
    writer.settle(done, &mut Cache::default());
}

fn stored(value: &str) -> Result<Answer, WriteError> {
    let profile = body::new_profile("a", "of the node", &spec(value));
    Ok(Answer::Profile(Box::new(watch::profile(&profile))))
}

fn rejected(code: u16) -> Result<Answer, WriteError> {
    let status = Status::failure("frozen today", "No").with_code(code);
    Err(kube::Error::Api(status.boxed()).into())
}

/// How long the same write waits each time, in milliseconds, if it always gets this answer.
async fn waits(
    writer: &mut Writer,
    value: &str,
    times: usize,
    answer: impl Fn() -> Result<Answer, WriteError>,
) -> Vec<u128> {
    let mut waits = Vec::new();
    for _ in 0..times {
        waits.push(starts(writer, value).await.as_millis());
        settles(writer, answer());
    }
    waits
}

#[tokio::test(start_paused = true)]
async fn write_that_is_undone_each_time_waits_longer_each_time() {
    let mut writer = writer();
    let waited = waits(&mut writer, "1", 13, || stored("1")).await;
    let first = [0, 0, 100, 200, 400, 800, 1600, 3200, 6400, 12_800];
    assert_eq!(waited[..10], first);
    assert_eq!(waited[10..], [25_600, 51_200, 60_000]);
}

#[tokio::test(start_paused = true)]
async fn another_spec_does_not_wait() {
    let mut writer = writer();
    waits(&mut writer, "1", 8, || stored("1")).await;
    assert_eq!(
        waits(&mut writer, "2", 3, || stored("2")).await,
        [0, 0, 100]
    );
    let rejections = waits(&mut writer, "3", 3, || rejected(422)).await;
    assert_eq!(rejections, [0, 100, 200]);
    assert_eq!(waits(&mut writer, "4", 1, || rejected(422)).await, [0]);
}

#[tokio::test(start_paused = true)]
async fn changed_reason_is_not_another_spec() {
    let mut writer = writer();
    waits(&mut writer, "1", 3, || stored("1")).await;
    let mut reworded = change("1");
    if let Write::ReplaceProfile { spec, .. } = &mut reworded {
        Arc::make_mut(spec).sysctls[0].reason = "in other words".to_owned();
    }
    let wake = writer.plan(vec![reworded], Instant::now());
    assert!(wake.is_some() && writer.busy.is_empty());
}

#[tokio::test(start_paused = true)]
async fn wait_is_reset_after_a_time_without_writes() {
    let mut writer = writer();
    waits(&mut writer, "1", 5, || stored("1")).await;
    tokio::time::sleep(LONGEST_WAIT * 2).await;
    assert_eq!(waits(&mut writer, "1", 2, || stored("1")).await, [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn write_without_effect_is_repeated_rarely() {
    let mut writer = writer();
    let waited = waits(&mut writer, "1", 6, || stored("other")).await;
    assert_eq!(waited, [0, 5000, 10_000, 20_000, 40_000, 60_000]);
}

#[test]
fn rejection_is_truncated() {
    let words = "ä".repeat(REJECTION_MAX + 1);
    let text = truncated(words);
    assert_eq!(text.chars().count(), REJECTION_MAX + 1);
    assert!(text.ends_with("ä…"));
    assert_eq!(truncated("frozen today".to_owned()), "frozen today");
}

#[test]
fn answer_with_another_value_is_a_mismatch() {
    let answer = |value: &str| {
        let mut profile = body::new_profile("a", "of the node", &spec(value));
        profile.data["spec"]["sysctls"][0]["reason"] = "in other words".into();
        watch::profile(&profile)
    };
    let desired = Some(spec("1"));
    assert_eq!(mismatch(&answer("1"), &desired), None);
    assert!(mismatch(&answer("2"), &desired).is_some());
    assert_eq!(mismatch(&answer("2"), &None), None);
}

fn changes(nodes: usize) -> Vec<Write> {
    let nodes = 0..nodes;
    nodes
        .map(|index| Write::DeleteProfile {
            node: format!("node-{index}").into(),
            uid: "".into(),
            seen: "".into(),
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn writes_in_flight_are_limited_and_start_in_order() {
    let mut writer = writer();
    let status = Write::TuningStatus {
        tuning: "default".into(),
        uid: "".into(),
        seen: "".into(),
        status: Box::default(),
        announcements: Vec::new(),
    };
    let mut writes = changes(40);
    writes.push(status);
    assert_eq!(writer.plan(writes, Instant::now()), None);
    assert_eq!(writer.busy.len(), CONCURRENCY);
    assert!(writer.busy.contains_key(&Object::Tuning("default".into())));
    let next = writer.queue.front().map(Write::object);
    assert_eq!(next, Some(Object::Profile("node-31".into())));
    assert_eq!(writer.queue.len(), 9);
}

#[tokio::test(start_paused = true)]
async fn no_write_starts_before_the_shared_instant() {
    let mut writer = writer();
    let now = Instant::now();
    let pause = Duration::from_secs(7);
    writer.not_before.pause(pause, now);
    assert_eq!(writer.plan(changes(2), now), Some(now + pause));
    assert_eq!(writer.plan(Vec::new(), now), None);
    assert!(writer.busy.is_empty());
    assert_eq!(writer.plan(changes(2), now + pause), None);
    assert_eq!(writer.busy.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn throttled_write_does_not_delay_its_object() {
    for code in [429, 503] {
        let mut writer = writer();
        starts(&mut writer, "1").await;
        settles(&mut writer, rejected(code));
        assert!(writer.backoffs.is_empty());
        assert_eq!(starts(&mut writer, "1").await, Duration::ZERO);
    }
}
