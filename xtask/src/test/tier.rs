//! The tiers, cheapest that can fail first, and what each needs of the machine.

use std::fmt;
use std::num::NonZeroUsize;

use clap::ValueEnum;
use nettune_tests::artifacts::debian::{self, packages};
use nettune_tests::artifacts::tools::{self, Tools};

/// A tier of tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Tier {
    /// Functions: no file, no network, no clock
    Pure,
    /// The agent over a directory that stands for /proc
    Host,
    /// The operator's and the agent's decisions, through every interleaving of small clusters
    Model,
    /// A real etcd and kube-apiserver
    ControlPlane,
    /// A real Linux kernel in QEMU; other people's programs as Debian packages them, strace among them
    Kernel,
}

impl Tier {
    pub(super) const ALL: [Self; 5] = [
        Self::Pure,
        Self::Host,
        Self::Model,
        Self::ControlPlane,
        Self::Kernel,
    ];

    /// The tier of a test binary, by its package and the name of its target.
    pub(super) fn of(package: &str, target: &str) -> anyhow::Result<Self> {
        match (package, target) {
            ("node-agent", _) => Ok(Self::Host),
            ("tests", "nettune_tests") => Ok(Self::Pure),
            ("tests", "model") => Ok(Self::Model),
            ("tests", "control_plane") => Ok(Self::ControlPlane),
            ("tests", "kernel") => Ok(Self::Kernel),
            ("tests", other) => anyhow::bail!(
                "tests/tests/{other} belongs to no tier; name it in {}",
                file!()
            ),
            _ => Ok(Self::Pure),
        }
    }

    /// How many test binaries run side by side. The tests of the tiers that use nothing but this process and a folder
    /// mostly wait: for processes that they have started, for what has to stay as it is. The others share a machine that
    /// one of them fills.
    pub(super) fn binaries_at_a_time(self) -> usize {
        match self {
            Self::Pure | Self::Host => {
                std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
            }
            Self::Model | Self::ControlPlane | Self::Kernel => 1,
        }
    }

    /// What its programs are started with. Tests of a control plane wait most of the time, so that twice as many as
    /// there are processors run next to each other.
    pub(super) fn arguments(self) -> Vec<String> {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        match self {
            Self::ControlPlane => vec![format!("--test-threads={}", 2 * processors)],
            // How many states each model has.
            Self::Model => vec!["--show-output".to_owned()],
            _ => Vec::new(),
        }
    }

    /// Gets what the tier needs; the error is the reason why it cannot run.
    pub(super) async fn prepare(self) -> anyhow::Result<()> {
        tokio::task::spawn_blocking(move || match self {
            Self::Pure | Self::Host | Self::Model => Ok(()),
            Self::ControlPlane => control_plane(),
            Self::Kernel => control_plane().and_then(|()| guest()),
        })
        .await?
    }
}

fn control_plane() -> anyhow::Result<()> {
    Tools::get()?;
    Ok(())
}

fn guest() -> anyhow::Result<()> {
    debian::install_programs()?;
    debian::kernel()?;
    for package in packages::ALL {
        packages::root_of(&package)?;
    }
    tools::kube_proxy()?;
    Ok(())
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pure => "pure",
            Self::Host => "host",
            Self::Model => "model",
            Self::ControlPlane => "control-plane",
            Self::Kernel => "kernel",
        })
    }
}
