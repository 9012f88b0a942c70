//! The one thread that starts all children.
//!
//! A parent-death signal is sent when the thread that started the child ends (prctl(2), PR_SET_PDEATHSIG), so it must
//! be a thread that lives as long as the process: a test's own thread ends with the test.

use std::io;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

struct Job {
    command: Command,
    reply: Sender<io::Result<Child>>,
}

/// Starts a command made by [`super::command`].
pub fn spawn(command: Command) -> io::Result<Child> {
    let gone = || io::Error::other("the thread that starts processes is gone");
    let (reply, answer) = channel();
    spawner().send(Job { command, reply }).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

/// Runs a command made by [`super::command`] to its end and takes what it prints.
pub fn output_of(mut command: Command) -> io::Result<Output> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    spawn(command)?.wait_with_output()
}

fn spawner() -> &'static Sender<Job> {
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (jobs, queue) = channel::<Job>();
        std::thread::spawn(move || {
            for mut job in queue {
                // The one who asked may have given up; the child then ends with this process.
                let _ = job.reply.send(job.command.spawn());
            }
        });
        jobs
    })
}
