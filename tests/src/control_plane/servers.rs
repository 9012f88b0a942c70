//! What the two servers are started with.

use std::path::Path;
use std::process::Command;

use super::ControlPlane;
use crate::artifacts::tools::Tools;
use crate::process::command;

impl ControlPlane {
    pub(super) fn api_server_command(&self) -> Command {
        let mut server = command(&self.tools.kube_apiserver);
        let path = |path: &Path| path.display().to_string();
        let credentials = &self.credentials;
        let valued = [
            (
                "etcd-servers",
                format!("http://127.0.0.1:{}", self.etcd_port),
            ),
            ("bind-address", "127.0.0.1".to_owned()),
            ("secure-port", self.port.to_string()),
            ("tls-cert-file", path(&credentials.certificate)),
            ("tls-private-key-file", path(&credentials.key)),
            ("service-cluster-ip-range", "10.0.0.0/24".to_owned()),
            (
                "service-account-issuer",
                "https://kubernetes.default.svc".to_owned(),
            ),
            (
                "service-account-key-file",
                path(&credentials.service_account_public_key),
            ),
            (
                "service-account-signing-key-file",
                path(&credentials.service_account_key),
            ),
            ("authorization-mode", "Node,RBAC".to_owned()),
            ("token-auth-file", path(&credentials.tokens)),
            ("allow-privileged", "true".to_owned()),
            // It would want a controller manager, which makes the tokens' accounts.
            ("disable-admission-plugins", "ServiceAccount".to_owned()),
        ];
        server
            .args(valued.map(|(flag, value)| format!("--{flag}={value}")))
            .args(&self.flags);
        server
    }
}

pub(super) fn etcd(tools: &Tools, dir: &Path, client_port: u16, peer_port: u16) -> Command {
    let mut etcd = command(&tools.etcd);
    let client = format!("http://127.0.0.1:{client_port}");
    let peer = format!("http://127.0.0.1:{peer_port}");
    etcd.arg("--data-dir").arg(dir.join("etcd"));
    etcd.args([
        "--listen-client-urls",
        &client,
        "--advertise-client-urls",
        &client,
    ]);
    etcd.args([
        "--listen-peer-urls",
        &peer,
        "--initial-advertise-peer-urls",
        &peer,
    ]);
    etcd.args(["--initial-cluster", &format!("default={peer}")]);
    // The data need not survive a power cut: it is in a temporary folder.
    etcd.arg("--unsafe-no-fsync");
    etcd
}
