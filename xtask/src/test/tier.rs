//! The tiers, fastest first, and what each needs.

use std::fmt;
use std::num::NonZeroUsize;

use clap::ValueEnum;
use nettune_tests::artifacts::debian::{self, packages};
use nettune_tests::artifacts::tools::{self, Tools};

/// A tier of tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Tier {
    /// Functions, without files, network or clock
    Pure,
    /// The agent on a directory in place of /proc
    Host,
    /// All interleavings of small clusters, with the real decisions of operator and agent
    Model,
    /// A real etcd and kube-apiserver
    ControlPlane,
    /// A real Linux kernel in QEMU, with other programs from Debian packages
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
            ("tests", other) => {
                anyhow::bail!("tests/tests/{other} has no tier; add it to {}", file!())
            }
            _ => Ok(Self::Pure),
        }
    }

    /// How many test binaries run in parallel. Tests of the pure and host tiers mostly wait; one binary of the other
    /// tiers uses the whole machine.
    pub(super) fn binaries_at_a_time(self) -> usize {
        match self {
            Self::Pure | Self::Host => {
                std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
            }
            Self::Model | Self::ControlPlane | Self::Kernel => 1,
        }
    }

    /// Arguments of its test binaries. Tests of a control plane mostly wait, so twice as many run as there are
    /// processors.
    pub(super) fn arguments(self) -> Vec<String> {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        match self {
            Self::ControlPlane => vec![format!("--test-threads={}", 2 * processors)],
            // Each model prints its number of states.
            Self::Model => vec!["--show-output".to_owned()],
            _ => Vec::new(),
        }
    }

    /// Installs or builds what the tier needs; the error says why it cannot run.
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
