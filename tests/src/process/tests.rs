use std::os::unix::process::ExitStatusExt as _;

use super::*;

fn shell(script: &str) -> Command {
    let mut shell = command("sh");
    shell.args(["-c", script]);
    shell
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.trim().chars().next());
    // A zombie is dead, just not yet waited for.
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

#[test]
fn a_dropped_process_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start("sleep", shell("exec sleep 60"), &dir.path().join("log")).unwrap();
    let pid = process.id().to_string();
    assert!(is_alive(&pid));
    drop(process);
    assert!(!is_alive(&pid));
}

#[tokio::test]
async fn a_process_that_ignores_the_request_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let script = shell("trap '' TERM; echo deaf; while :; do sleep 1; done");
    let mut process = Process::start("stubborn", script, &dir.path().join("log")).unwrap();
    let deaf = |line: &str| (line == "deaf").then_some(());
    let soon = Duration::from_secs(5);
    process
        .wait_for_line("it to be deaf", soon, 0, deaf)
        .await
        .unwrap();
    let status = process.stop_within(Duration::from_millis(300)).unwrap();
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
}

#[tokio::test]
async fn a_process_that_ends_early_says_what_it_logged() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(
        "short",
        shell("echo no such flag >&2; exit 3"),
        &dir.path().join("log"),
    )
    .unwrap();
    let result = process
        .wait_for_line("its port", Duration::from_secs(5), 0, |_| None::<u16>)
        .await;
    let message = result.unwrap_err().to_string();
    assert!(
        message.contains("short ended with exit status: 3"),
        "{message}"
    );
}

#[tokio::test]
async fn a_line_of_the_log_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(
        "talker",
        shell("sleep 0.2; echo port 4711; exec sleep 60"),
        &dir.path().join("log"),
    )
    .unwrap();
    let port = process.wait_for_line("its port", Duration::from_secs(5), 0, |line| {
        line.strip_prefix("port ")?.parse::<u16>().ok()
    });
    assert_eq!(port.await.unwrap(), 4711);
}

/// A child must end with the process that started it, even if that one gets SIGKILL.
/// The test starts its own program as a process that starts a child, and kills it.
#[test]
fn a_child_dies_with_a_parent_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut parent = Command::new(std::env::current_exe().unwrap());
    parent.args([
        "--exact",
        "process::tests::parent_to_be_killed",
        "--nocapture",
    ]);
    parent
        .env(LOG_OF_THE_CHILD, dir.path().join("log"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut parent = parent.spawn().unwrap();
    let pid = loop {
        match std::fs::read_to_string(dir.path().join("log")) {
            Ok(line) if line.ends_with('\n') => break line.trim().to_owned(),
            _ => sleep(POLL),
        }
    };
    assert!(is_alive(&pid));
    parent.kill().unwrap();
    parent.wait().unwrap();
    sleep(Duration::from_millis(200));
    assert!(!is_alive(&pid));
}

const LOG_OF_THE_CHILD: &str = "NETTUNE_TEST_LOG_OF_THE_CHILD";

/// Not a test of its own: the parent in [`a_child_dies_with_a_parent_that_is_killed`].
#[test]
fn parent_to_be_killed() {
    let Some(log) = std::env::var_os(LOG_OF_THE_CHILD) else {
        return;
    };
    // The test's own thread ends before the process does: the child must outlive the one and not the other.
    let child = std::thread::spawn(move || {
        Process::start("child", shell("echo $$; exec sleep 60"), Path::new(&log))
    });
    let _child = child.join().unwrap().unwrap();
    sleep(Duration::from_secs(60));
}
