//! The saved state: originals, the last profile, and whether they were lost.

mod node;

use std::fs;
use std::os::unix::fs::symlink;
use std::thread;
use std::time::Duration;

use nettune_agent::agent::ProfileUpdate;
use nettune_agent::state::store::StateDir;
use nettune_crds::KeyState;
use nettune_crds::conditions::{self, RELEASED, reasons};
use nettune_reconcile::effect::Persisted;
use nettune_sizing::SysctlKey;
use node::{Node, THRESH3, update, usual};
use serde_json::json;

#[test]
fn saved_profile_is_applied_before_the_api_is_reached() {
    let mut node = Node::new();
    let mut agent = node.start();
    agent.take(usual());
    agent.turn();
    node.set(THRESH3, "2048");
    node.boot_id = "boot-2";
    let mut agent = node.start();
    agent.turn();
    assert_eq!(node.get(THRESH3), "8192");
    assert_eq!(
        node.key(THRESH3).original.as_deref(),
        Some("2048"),
        "of this boot"
    );
}

#[test]
fn profile_of_another_node_is_not_applied() {
    let mut node = Node::new();
    let mut agent = node.start();
    agent.take(usual());
    agent.turn();
    node.name = "n2";
    node.set(THRESH3, "1024");
    let loaded = StateDir::new(node.state().parent().unwrap(), "n2", node.boot_id).load();
    assert_eq!(loaded.other_node.as_deref(), Some("n1"));
    let mut agent = node.start();
    agent.turn();
    assert_eq!(node.get(THRESH3), "1024");
}

#[test]
fn restart_writes_nothing_and_keeps_originals() {
    let mut node = Node::new();
    let mut agent = node.start();
    agent.take(usual());
    agent.turn();
    let written = |node: &Node| {
        fs::metadata(node.path(THRESH3))
            .unwrap()
            .modified()
            .unwrap()
    };
    let before = written(&node);
    let mut agent = node.start();
    agent.turn();
    assert_eq!(written(&node), before);
    assert_eq!(node.key(THRESH3).original.as_deref(), Some("1024"));
}

#[test]
fn deleted_profile_is_not_enforced_after_a_restart() {
    let mut node = Node::new();
    let mut agent = node.start();
    agent.take(usual());
    agent.turn();
    agent.take(ProfileUpdate::NoProfile);
    agent.turn();
    assert_eq!(node.get(THRESH3), "8192", "nothing is changed");
    node.set(THRESH3, "1024");
    let mut agent = node.start();
    agent.turn();
    assert_eq!(node.get(THRESH3), "1024");
}

#[test]
fn truncated_or_foreign_state_is_set_aside_and_tuning_continues() {
    for broken in [
        "",
        "\0\0\0\0",
        r#"{"format":"nettune-agent-st"#,
        "[]",
        r#"{"version":1}"#,
    ] {
        let mut node = Node::new();
        node.put(&node.state(), broken);
        let mut agent = node.start();
        agent.take(usual());
        agent.turn();
        assert_eq!(node.get(THRESH3), "8192", "{broken:?}");
        assert_eq!(
            node.key(THRESH3).original,
            None,
            "1024 may be nettune's own"
        );
        let aside = node.state().with_file_name("state.json.bad");
        assert_eq!(fs::read_to_string(aside).unwrap(), broken);

        agent.take(update(2, &json!({"release": true}), &[]));
        agent.turn();
        assert_eq!(node.get(THRESH3), "8192");
        let status = node.status();
        let released = conditions::find(&status.conditions, RELEASED).unwrap();
        assert_eq!(released.reason, reasons::PARTIALLY_RESTORED);
        assert!(
            released.message.contains("next boot"),
            "{}",
            released.message
        );
    }
}

#[test]
fn state_survives_a_temporary_read_error() {
    let mut node = Node::new();
    let mut agent = node.start();
    agent.take(usual());
    agent.turn();
    let good = node.state().with_file_name("good");
    fs::rename(node.state(), &good).unwrap();
    symlink("state.json", node.state()).unwrap();
    let state = node.state();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(150));
            fs::rename(&good, &state).unwrap();
        });
        node.start().turn();
    });
    assert_eq!(node.key(THRESH3).original.as_deref(), Some("1024"));
    assert!(!state.with_file_name("state.json.bad").exists());
}

#[test]
fn unreadable_state_is_set_aside() {
    let mut node = Node::new();
    node.start();
    fs::create_dir_all(node.state().parent().unwrap()).unwrap();
    symlink("state.json", node.state()).unwrap();
    let mut agent = node.start();
    agent.take(usual());
    agent.turn();
    assert_eq!(node.key(THRESH3).original, None);
    let aside = node.state().with_file_name("state.json.bad");
    assert!(aside.is_symlink());
}

#[test]
fn empty_list_is_restored_after_a_restart() {
    let mut node = Node::new();
    let ports = "net.ipv4.ip_local_reserved_ports";
    node.set(ports, "");
    let mut agent = node.start();
    agent.take(update(1, &json!({}), &[(ports, "Exact", "30000-32767")]));
    agent.turn();
    assert_eq!(node.get(ports), "30000-32767");
    let mut agent = node.start();
    agent.turn();
    assert_eq!(node.key(ports).original.as_deref(), Some(""));
    agent.take(update(2, &json!({"release": true}), &[]));
    agent.turn();
    assert_eq!(node.get(ports), "");
}

#[test]
fn newer_state_is_set_aside() {
    let mut node = Node::new();
    let mut agent = node.start();
    agent.take(usual());
    agent.turn();
    let own = fs::read_to_string(node.state()).unwrap();
    let newer = own.replace("\"version\":1", "\"version\":2");
    assert_ne!(newer, own);
    node.put(&node.state(), &newer);
    node.start();
    let aside = node.state().with_file_name("state.json.bad");
    assert_eq!(fs::read_to_string(aside).unwrap(), newer);
}

#[test]
fn lost_originals_are_unknown_until_the_next_boot() {
    let mut node = Node::new();
    node.put(&node.state(), "torn");
    node.start().turn();
    let mut agent = node.start();
    agent.take(usual());
    agent.turn();
    assert_eq!(
        node.key(THRESH3).original,
        None,
        "another start makes nothing known"
    );
    node.boot_id = "boot-2";
    node.set(THRESH3, "1024");
    node.start().turn();
    assert_eq!(node.key(THRESH3).original.as_deref(), Some("1024"));
}

#[test]
fn nothing_is_written_without_a_state_directory() {
    let mut node = Node::new();
    node.put(&node.dir.path().join("state"), "a file");
    let mut agent = node.start();
    agent.take(usual());
    agent.turn();
    assert_eq!(node.get(THRESH3), "1024");
    let key = node.key(THRESH3);
    assert!(
        key.state == KeyState::Failed && key.message.contains("state directory"),
        "{}",
        key.message
    );
}

#[test]
fn zeroed_state_is_set_aside() {
    for length in [1, 4096, 8 << 20] {
        let mut node = Node::new();
        node.start();
        fs::create_dir_all(node.state().parent().unwrap()).unwrap();
        fs::write(node.state(), vec![0; length]).unwrap();
        let mut agent = node.start();
        agent.take(usual());
        agent.turn();
        assert_eq!(node.get(THRESH3), "8192", "tuning goes on");
        assert_eq!(node.key(THRESH3).original, None);
        assert!(node.state().with_file_name("state.json.bad").exists());
    }
}

#[test]
fn overflow_raises_are_kept_for_this_boot() {
    let state = tempfile::tempdir().unwrap();
    let in_boot = |boot| StateDir::new(state.path(), "n1", boot);
    let mut saved = in_boot("boot-1").load().persisted;
    let key = SysctlKey::parse(THRESH3).unwrap();
    saved.overflow_raises.insert(key, 16_384);
    in_boot("boot-1").note(&saved).unwrap();
    assert_eq!(
        in_boot("boot-1").load().persisted.overflow_raises,
        saved.overflow_raises
    );
    assert!(
        in_boot("boot-2")
            .load()
            .persisted
            .overflow_raises
            .is_empty()
    );
}

#[test]
fn saved_state_counts_before_it_is_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path(), "n1", "boot-1");
    let mut saved = state.load().persisted;
    state.note(&saved).unwrap();
    assert!(state.flush().unwrap());
    saved
        .overflow_raises
        .insert(SysctlKey::parse(THRESH3).unwrap(), 8192);
    state.note(&saved).unwrap();
    let later = StateDir::new(dir.path(), "n1", "boot-1");
    assert_eq!(
        later.load().persisted,
        saved,
        "after a kill before the flush"
    );
    assert!(later.flush().unwrap());
    assert_eq!(later.load().persisted, saved);
    assert!(!later.flush().unwrap(), "nothing was noted since");
}

#[test]
fn power_loss_costs_originals_but_not_the_profile() {
    let mut node = Node::new();
    let mut agent = node.start();
    agent.take(usual());
    agent.turn();
    let noted = node.state().with_file_name("state.json.new");
    assert!(!noted.exists(), "it is flushed when it rests");
    node.boot_id = "boot-2";
    node.set(THRESH3, "1024");
    node.put(&noted, "");
    let mut agent = node.start();
    agent.turn();
    assert_eq!(
        node.get(THRESH3),
        "8192",
        "the profile before it is applied"
    );
    assert_eq!(node.key(THRESH3).original, None);
    let aside = node.state().with_file_name("state.json.bad");
    assert_eq!(fs::read_to_string(aside).unwrap(), "");
    assert!(!noted.exists());
}

#[test]
fn states_set_aside_are_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("state.json.bad")).unwrap();
    let states = ["one", "two", "three"];
    for (number, name) in ["state.json", "state.json.new", "state.json"]
        .iter()
        .enumerate()
    {
        fs::write(path(name), states[number]).unwrap();
        let set_aside = state_of(&dir).load().set_aside.unwrap();
        assert!(set_aside.unsaved.is_none(), "{set_aside:?}");
        let kept = path(&format!("state.json.bad.{}", number + 1));
        assert_eq!(set_aside.kept_as.as_ref(), Some(&kept));
        let next = state_of(&dir).load();
        assert!(next.set_aside.is_none() && next.persisted.originals_lost);
    }
    for (number, state) in states.iter().enumerate() {
        let kept = path(&format!("state.json.bad.{}", number + 1));
        assert_eq!(fs::read_to_string(kept).unwrap(), *state);
    }
}

#[test]
fn at_most_ten_states_are_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..20 {
        fs::write(dir.path().join("state.json"), format!("bad {number}")).unwrap();
        assert!(state_of(&dir).load().set_aside.unwrap().kept_as.is_some());
    }
    let kept = |name| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(kept("state.json.bad"), "bad 0", "the first");
    assert_eq!(kept("state.json.bad.9"), "bad 19", "and the last");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 11);
}

/// A process that is killed while it sets a state aside leaves both.
#[test]
fn interrupted_set_aside_is_finished_by_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let lost = Persisted {
        originals_lost: true,
        ..Persisted::default()
    };
    state_of(&dir).note(&lost).unwrap();
    state_of(&dir).flush().unwrap();
    fs::write(dir.path().join("state.json.new"), "bad").unwrap();
    let next = state_of(&dir).load();
    assert!(next.set_aside.is_some() && next.persisted.originals_lost);
    let kept = dir.path().join("state.json.bad");
    assert_eq!(fs::read_to_string(kept).unwrap(), "bad");
}

fn state_of(dir: &tempfile::TempDir) -> StateDir {
    StateDir::new(dir.path(), "n1", "boot-1")
}
