//! The text of a kubeconfig, as JSON, which is YAML.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

/// A kubeconfig for one server and one token.
pub(super) fn text(server: &str, authority: &str, token: &str) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "nettune",
            "cluster": {"server": server, "certificate-authority-data": STANDARD.encode(authority)},
        }],
        "users": [{"name": "nettune", "user": {"token": token}}],
        "contexts": [{"name": "nettune", "context": {"cluster": "nettune", "user": "nettune"}}],
        "current-context": "nettune",
    });
    format!("{config:#}\n")
}
