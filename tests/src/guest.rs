//! A real Linux kernel in QEMU, with a console to run commands in.
//!
//! The neighbor table's thresholds are one value for a whole machine, so tests that write them do it in here. QEMU
//! emulates the processor (TCG): nothing is needed of the host, no KVM and no privilege.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::artifacts::debian::DebianError;
use crate::artifacts::debian::packages::Package;
use crate::control_plane::{ADDRESS_IN_GUEST, ControlPlane};
use crate::process::{Process, ProcessError};
use crate::workspace::{self, MissingBinary};

mod agent;
mod archive;
mod console;
mod image;
mod modules;
mod programs;
mod qemu;

use console::Console;
pub use console::{CommandOutput, ConsoleError};
pub use modules::ModulesError;
pub use programs::ImageError;

const API_SERVER_PORT: u16 = 6443;
/// Measured 3–5 s alone; a busy machine takes its time.
const BOOT_DEADLINE: Duration = Duration::from_secs(120);
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

/// Configuration of a guest.
#[derive(Debug, Clone)]
pub struct GuestConfig {
    pub name: String,
    /// Memory. One percent of it must hold the largest neighbor table of a test at 528 bytes an entry: 1536 MiB for
    /// 16,384 entries, with room for what the kernel keeps to itself.
    pub memory_mib: u32,
    pub cpus: u32,
    /// Modules that are loaded when the console opens, with what they depend on.
    pub modules: Vec<String>,
    /// Modules that [`Guest::load_module`] can load later.
    pub more_modules: Vec<String>,
    /// Port on the host's loopback that the guest reaches as `10.0.2.100:6443`.
    pub api_server_port: Option<u16>,
    /// Programs of the host that are in the guest's `/bin`, with the libraries they need.
    pub programs: Vec<PathBuf>,
    /// Packages of the distribution whose programs are in the guest, instead of busybox's of the same name.
    pub packages: Vec<Package>,
    /// More files: absolute path and content.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Default for GuestConfig {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self {
            name: "kernel-0".to_owned(),
            memory_mib: 512,
            cpus: 2,
            modules: names(&["nf_conntrack", "ip_vs", "veth"]),
            more_modules: Vec::new(),
            api_server_port: None,
            programs: Vec::new(),
            packages: Vec::new(),
            files: Vec::new(),
        }
    }
}

impl GuestConfig {
    /// A guest with the agent's binary and a kubeconfig with which it reaches this control plane.
    pub fn joining(control_plane: &ControlPlane) -> Result<Self, MissingBinary> {
        let server = format!("{ADDRESS_IN_GUEST}:{API_SERVER_PORT}");
        Ok(Self {
            api_server_port: Some(control_plane.port()),
            programs: vec![workspace::binary("nettune-agent")?],
            files: vec![(
                agent::KUBECONFIG.to_owned(),
                control_plane.kubeconfig_text_for(&server).into_bytes(),
            )],
            ..Self::default()
        })
    }

    /// Adds the programs of a package, and loads the modules that they are used with.
    pub fn with_package(mut self, package: Package, modules: &[&str]) -> Self {
        self.packages.push(package);
        let modules = modules.iter().map(|&name| name.to_owned());
        self.modules.extend(modules);
        self
    }

    /// Leaves a module out of those loaded at boot; [`Guest::load_module`] can load it later.
    pub fn without_module(mut self, name: &str) -> Self {
        self.modules.retain(|module| module != name);
        self.more_modules.push(name.to_owned());
        self
    }
}

/// Why a guest failed.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    #[error(transparent)]
    Debian(#[from] DebianError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("there is no {program}; {package} of Debian has it")]
    NoProgram {
        program: &'static str,
        package: &'static str,
    },
    #[error("cannot {attempt}")]
    Io {
        attempt: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("{source}; the end of the guest's kernel log:\n{kernel_log}")]
    Console {
        source: ConsoleError,
        kernel_log: String,
    },
    #[error("`{command}` in the guest ended with status {status}: {stderr}")]
    Failed {
        command: String,
        status: i32,
        stderr: String,
    },
    #[error("module {0} is not in the guest's image; name it in GuestConfig::more_modules")]
    NotPacked(String),
}

/// A running guest; dropping it switches it off.
#[derive(Debug)]
pub struct Guest {
    // The process goes first, then the folder with its kernel log.
    qemu: Process,
    console: Mutex<Console>,
    load_order: modules::LoadOrder,
    dir: TempDir,
}

impl Guest {
    /// Boots a guest and waits for its console, 3–5 s; gets QEMU and the kernel first where they are missing.
    pub async fn boot(config: GuestConfig) -> Result<Self, GuestError> {
        let dir = tempfile::Builder::new().prefix("nettune-guest-").tempdir();
        let dir = dir.map_err(|source| GuestError::Io {
            attempt: "create a temporary folder",
            source,
        })?;
        let path = dir.path().to_path_buf();
        let prepare = move || qemu::prepare(&config, &path).map(|prepared| (config, prepared));
        let prepared = tokio::task::spawn_blocking(prepare).await;
        let (config, (command, load_order)) = prepared.map_err(|error| lost(error.into()))??;

        let mut qemu = Process::start_piped("qemu", command, &dir.path().join(KERNEL_LOG))?;
        let stdin = qemu
            .take_stdin()
            .ok_or_else(|| lost(io::Error::other("no pipe to QEMU")))?;
        let console = Mutex::new(Console::new(stdin, qemu.take_lines()));
        let guest = Self {
            qemu,
            console,
            load_order,
            dir,
        };
        let ready = guest
            .console
            .lock()
            .await
            .wait_until_ready(BOOT_DEADLINE)
            .await;
        ready.map_err(|source| guest.console_error(source))?;
        guest.name(&config.name).await?;
        Ok(guest)
    }

    /// Runs a shell script in the guest, at most for 60 s.
    pub async fn run(&self, script: &str) -> Result<CommandOutput, GuestError> {
        self.run_within(script, COMMAND_DEADLINE).await
    }

    /// Runs a shell script in the guest; what runs longer than `deadline` is killed and has the status 143 or 137.
    pub async fn run_within(
        &self,
        script: &str,
        deadline: Duration,
    ) -> Result<CommandOutput, GuestError> {
        let result = self.console.lock().await.run(script, deadline).await;
        result.map_err(|source| self.console_error(source))
    }

    /// What a script prints, without the newline at its end.
    pub async fn ok(&self, script: &str) -> Result<String, GuestError> {
        self.ok_within(script, COMMAND_DEADLINE).await
    }

    async fn ok_within(&self, script: &str, deadline: Duration) -> Result<String, GuestError> {
        let CommandOutput {
            status,
            stdout,
            stderr,
        } = self.run_within(script, deadline).await?;
        if status == 0 {
            return Ok(stdout.trim_end().to_owned());
        }
        Err(GuestError::Failed {
            command: script.to_owned(),
            status,
            stderr,
        })
    }

    /// The value of a sysctl as sysctl(8) reads it, which shares no code with the agent.
    pub async fn sysctl(&self, name: &str) -> Result<String, GuestError> {
        self.ok(&format!("sysctl -n {name}")).await
    }

    /// Sets a sysctl by sysctl(8), as another process on the node would.
    pub async fn set_sysctl(&self, name: &str, value: &str) -> Result<(), GuestError> {
        self.ok(&format!("sysctl -q -w {name}={value}"))
            .await
            .map(drop)
    }

    /// Loads a module that is in the image, and what it depends on.
    pub async fn load_module(&self, name: &str) -> Result<(), GuestError> {
        let found = self.load_order.iter().find(|(module, _)| module == name);
        let (_, files) = found.ok_or_else(|| GuestError::NotPacked(name.to_owned()))?;
        self.ok(&format!("load_modules {}", files.join(" ")))
            .await
            .map(drop)
    }

    /// The guest's kernel log.
    pub fn kernel_log(&self) -> String {
        self.qemu.log()
    }

    /// Switches the guest off at once, as a power cut does.
    pub fn power_off(mut self) -> Result<(), GuestError> {
        Ok(self.qemu.kill().map(drop)?)
    }

    async fn name(&self, name: &str) -> Result<(), GuestError> {
        self.ok(&format!("hostname {name}")).await.map(drop)
    }

    fn console_error(&self, source: ConsoleError) -> GuestError {
        // What QEMU itself has to say is mostly nothing, or that it could not start.
        let qemu = std::fs::read_to_string(self.dir.path().join(QEMU_LOG)).unwrap_or_default();
        GuestError::Console {
            source,
            kernel_log: format!("{}\n{}", self.qemu.tail(), qemu.trim()),
        }
    }
}

const KERNEL_LOG: &str = "kernel.log";
const QEMU_LOG: &str = "qemu.log";

fn lost(source: io::Error) -> GuestError {
    GuestError::Io {
        attempt: "prepare the guest",
        source,
    }
}
