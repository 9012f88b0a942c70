//! A real control plane on loopback: an etcd and a kube-apiserver, and their clients.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::artifacts::tools::{Tools, ToolsError};
use crate::net::free_port;
use crate::process::{Process, ProcessError};
use crate::wait::{TimedOut, eventually};

pub mod audit;
mod client;
mod credentials;
mod etcd;
mod kubeconfig;
mod kubectl;
pub mod proxy;
mod servers;

use client::{client_of, is_ready, probing_client};
use credentials::Credentials;
pub use credentials::{CredentialsError, StaticToken};
pub use kubectl::KubectlError;

/// Where a guest finds the API server of the host.
pub(crate) const ADDRESS_IN_GUEST: &str = "10.0.2.100";
const ADMIN_TOKEN: &str = "admin-of-the-tests";
/// Measured 3 s alone; a busy machine takes its time.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// A port that was free can be taken before the server binds it.
const ATTEMPTS: usize = 3;

/// Configuration of a control plane.
#[derive(Debug, Clone, Default)]
pub struct ControlPlaneConfig {
    /// Bearer tokens beside the administrator's.
    pub tokens: Vec<StaticToken>,
    /// More flags of kube-apiserver; a flag given here again outweighs the default.
    pub api_server_flags: Vec<String>,
}

/// Why a control plane failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlPlaneError {
    #[error(transparent)]
    Tools(#[from] ToolsError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("cannot {attempt}")]
    Io {
        attempt: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("the control plane did not become ready; the end of the API server's log:\n{tail}")]
    NotReady {
        tail: String,
        #[source]
        source: TimedOut,
    },
    #[error("cannot make a client from {}", path.display())]
    Client {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(transparent)]
    Kubectl(#[from] KubectlError),
}

/// A running etcd and kube-apiserver. Dropping it ends both, in this order: the API server, etcd.
#[derive(Debug)]
pub struct ControlPlane {
    // Fields drop in this order; an API server whose etcd went first hangs.
    api_server: Option<Process>,
    etcd: Process,
    tools: Tools,
    credentials: Credentials,
    etcd_port: u16,
    port: u16,
    flags: Vec<String>,
    admin_kubeconfig: PathBuf,
    dir: TempDir,
}

impl ControlPlane {
    /// Starts one and waits until it is ready, about 3 s; gets the binaries first where they are missing.
    pub async fn start(config: ControlPlaneConfig) -> Result<Self, ControlPlaneError> {
        // The build may take minutes, and a current-thread runtime has other things to do.
        let tools = tokio::task::spawn_blocking(Tools::get)
            .await
            .map_err(|error| io_error("get the tools", error))??;
        let mut attempt = 1;
        loop {
            match Self::start_once(&config, &tools).await {
                Err(ControlPlaneError::Process(ProcessError::Ended { .. }))
                    if attempt < ATTEMPTS =>
                {
                    attempt += 1
                }
                result => return result,
            }
        }
    }

    /// One that tests share; it ends with the last of them.
    ///
    /// For tests that leave cluster-scoped objects of others alone.
    pub async fn shared() -> Result<Arc<Self>, ControlPlaneError> {
        static SHARED: Mutex<Weak<ControlPlane>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(running) = shared.upgrade() {
            return Ok(running);
        }
        let started = Arc::new(Self::start(ControlPlaneConfig::default()).await?);
        *shared = Arc::downgrade(&started);
        Ok(started)
    }

    async fn start_once(
        config: &ControlPlaneConfig,
        tools: &Tools,
    ) -> Result<Self, ControlPlaneError> {
        let dir = tempfile::Builder::new()
            .prefix("nettune-control-plane-")
            .tempdir();
        let dir = dir.map_err(|source| io_error("create a temporary folder", source))?;
        let mut tokens = config.tokens.clone();
        tokens.push(StaticToken::admin(ADMIN_TOKEN));
        let credentials = Credentials::generate(dir.path(), &tokens)?;
        let (etcd_port, port) = (port()?, port()?);
        let etcd = Process::start(
            "etcd",
            servers::etcd(tools, dir.path(), etcd_port, self::port()?),
            &dir.path().join("etcd.log"),
        )?;
        let mut this = Self {
            api_server: None,
            etcd,
            tools: tools.clone(),
            credentials,
            etcd_port,
            port,
            flags: config.api_server_flags.clone(),
            admin_kubeconfig: dir.path().join("admin.kubeconfig"),
            dir,
        };
        this.write_kubeconfig(&this.admin_kubeconfig, &this.server(), ADMIN_TOKEN)?;
        this.start_api_server().await?;
        Ok(this)
    }

    /// A client with all rights. Make one for each runtime.
    pub async fn client(&self) -> Result<kube::Client, ControlPlaneError> {
        client_of(&self.admin_kubeconfig).await
    }

    /// A client with another token.
    pub async fn client_for_token(&self, token: &str) -> Result<kube::Client, ControlPlaneError> {
        client_of(&self.kubeconfig_for_token("client", token)?).await
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.admin_kubeconfig
    }

    /// Writes a kubeconfig with this token and returns its path; the last one of a name stays.
    pub fn kubeconfig_for_token(
        &self,
        name: &str,
        token: &str,
    ) -> Result<PathBuf, ControlPlaneError> {
        self.kubeconfig_through(self.port, name, token)
    }

    /// The same for a client that goes through a [`Proxy`](proxy::Proxy) on this port of loopback.
    pub fn kubeconfig_through(
        &self,
        port: u16,
        name: &str,
        token: &str,
    ) -> Result<PathBuf, ControlPlaneError> {
        let path = self.dir.path().join(format!("{name}.kubeconfig"));
        self.write_kubeconfig(&path, &format!("https://127.0.0.1:{port}"), token)?;
        Ok(path)
    }

    /// The text of the administrator's kubeconfig for a client that reaches the API server at another address, which
    /// must be one of those in its certificate.
    pub fn kubeconfig_text_for(&self, address: &str) -> String {
        kubeconfig::text(
            &format!("https://{address}"),
            &self.credentials.authority,
            ADMIN_TOKEN,
        )
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The temporary folder, for logs and state of programs that live no longer than this.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The API server's process, while it runs.
    pub fn api_server_id(&self) -> Option<u32> {
        self.api_server.as_ref().map(Process::id)
    }

    /// Starts the API server again, on the same port and data, and waits until it is ready.
    pub async fn start_api_server(&mut self) -> Result<(), ControlPlaneError> {
        let server = Process::start(
            "kube-apiserver",
            self.api_server_command(),
            &self.dir.path().join("apiserver.log"),
        )?;
        let server = self.api_server.insert(server);
        let client = probing_client(&self.admin_kubeconfig).await?;
        let ready = eventually("a ready API server", READY_DEADLINE, || {
            let ended = server
                .still_running()
                .and_then(|()| self.etcd.still_running())
                .err();
            let client = client.clone();
            async move {
                match ended {
                    Some(ended) => Ok(Err(ended)),
                    None => is_ready(&client).await.map(Ok),
                }
            }
        });
        match ready.await {
            Ok(outcome) => Ok(outcome?),
            Err(source) => Err(ControlPlaneError::NotReady {
                tail: server.tail(),
                source,
            }),
        }
    }

    /// Ends the API server with SIGTERM, as an upgrade does; etcd and its data stay.
    pub fn stop_api_server(&mut self) -> Result<(), ControlPlaneError> {
        match self.api_server.take() {
            Some(mut server) => Ok(server.stop().map(drop)?),
            None => Ok(()),
        }
    }

    /// Ends the API server with SIGKILL, as a crash does; etcd and its data stay.
    pub fn kill_api_server(&mut self) -> Result<(), ControlPlaneError> {
        match self.api_server.take() {
            Some(mut server) => Ok(server.kill().map(drop)?),
            None => Ok(()),
        }
    }

    /// Ends both processes now rather than at the drop, and says when that fails.
    pub fn stop(mut self) -> Result<(), ControlPlaneError> {
        self.stop_api_server()?;
        self.etcd.stop()?;
        Ok(())
    }

    fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    fn write_kubeconfig(
        &self,
        path: &Path,
        server: &str,
        token: &str,
    ) -> Result<(), ControlPlaneError> {
        std::fs::write(
            path,
            kubeconfig::text(server, &self.credentials.authority, token),
        )
        .map_err(|source| io_error(format!("write {}", path.display()), source))
    }
}

fn port() -> Result<u16, ControlPlaneError> {
    free_port().map_err(|source| io_error("find a free port", source))
}

fn io_error(attempt: impl Into<String>, source: impl Into<io::Error>) -> ControlPlaneError {
    ControlPlaneError::Io {
        attempt: attempt.into(),
        source: source.into(),
    }
}
