//! kubectl against a control plane, as a user would run it.

use std::io::{self, Write as _};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use super::{ControlPlane, ControlPlaneError};
use crate::process::{command, spawn};
use crate::wait::TimedOut;
use crate::workspace;

const CRD_DEADLINE: Duration = Duration::from_secs(30);

/// Why a kubectl command failed.
#[derive(Debug, thiserror::Error)]
pub enum KubectlError {
    #[error("cannot run `{command}`")]
    Run {
        command: String,
        #[source]
        source: io::Error,
    },
    #[error("`{command}`: {stderr}")]
    Failed { command: String, stderr: String },
}

impl ControlPlane {
    /// Runs kubectl as the administrator and takes its output, whatever its status.
    pub async fn kubectl(&self, args: &[&str]) -> Result<Output, KubectlError> {
        self.kubectl_reading(args, "").await
    }

    /// Runs kubectl as the administrator with `input` on its standard input.
    pub async fn kubectl_reading(
        &self,
        args: &[&str],
        input: &str,
    ) -> Result<Output, KubectlError> {
        let line = format!("kubectl {}", args.join(" "));
        let mut kubectl = self.kubectl_command();
        kubectl.args(args);
        let input = input.to_owned();
        let output = tokio::task::spawn_blocking(move || output_with_input(kubectl, &input)).await;
        output
            .unwrap_or_else(|error| Err(error.into()))
            .map_err(|source| KubectlError::Run {
                command: line,
                source,
            })
    }

    /// What kubectl prints when it succeeds.
    pub async fn kubectl_ok(&self, args: &[&str]) -> Result<String, KubectlError> {
        succeeded(args, self.kubectl(args).await?)
    }

    /// Applies YAML, as `kubectl apply -f -` does.
    pub async fn apply(&self, yaml: &str) -> Result<String, KubectlError> {
        let args = ["apply", "-f", "-"];
        succeeded(&args, self.kubectl_reading(&args, yaml).await?)
    }

    /// Installs the CRDs of this workspace, replacing changed ones, and waits until the API
    /// server serves them.
    pub async fn install_crds(&self) -> Result<(), ControlPlaneError> {
        let manifests = workspace::root()
            .join("crds/manifests")
            .display()
            .to_string();
        self.kubectl_ok(&[
            "apply",
            "--server-side",
            "--force-conflicts",
            "-f",
            &manifests,
        ])
        .await?;
        self.wait_for_crds().await
    }

    /// Waits until the API server serves all CRDs, after they were applied in another way.
    pub async fn wait_for_crds(&self) -> Result<(), ControlPlaneError> {
        let timeout = format!("--timeout={}s", CRD_DEADLINE.as_secs());
        self.kubectl_ok(&[
            "wait",
            "crd",
            "--all",
            "--for=condition=Established",
            &timeout,
        ])
        .await?;
        self.wait_until_served().await
    }

    /// Established is said before the resource is in discovery, which `kubectl get nnt` needs.
    async fn wait_until_served(&self) -> Result<(), ControlPlaneError> {
        let served = crate::wait::eventually(
            "nettune.dev in the API server's discovery",
            CRD_DEADLINE,
            || async {
                let listed = self
                    .kubectl_ok(&["api-resources", "--api-group=nettune.dev", "-o", "name"])
                    .await;
                listed.map_err(|error| error.to_string()).and_then(|names| {
                    match names.lines().count() {
                        0 => Err("not listed".to_owned()),
                        _ => Ok(()),
                    }
                })
            },
        );
        served
            .await
            .map_err(|source: TimedOut| ControlPlaneError::NotReady {
                tail: String::new(),
                source,
            })
    }

    /// kubectl at the top of the workspace, with the administrator's kubeconfig and a cache folder that goes with
    /// this control plane.
    pub fn kubectl_command(&self) -> Command {
        let mut kubectl = command(&self.tools.kubectl);
        kubectl
            .current_dir(workspace::root())
            .env("KUBECONFIG", &self.admin_kubeconfig)
            .env("KUBECACHEDIR", self.dir.path().join("kubectl-cache"));
        kubectl
    }
}

fn output_with_input(mut command: Command, input: &str) -> io::Result<Output> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = spawn(command)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    child.wait_with_output()
}

fn succeeded(args: &[&str], output: Output) -> Result<String, KubectlError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(KubectlError::Failed {
        command: format!("kubectl {}", args.join(" ")),
        stderr,
    })
}
