//! What a test does to the etcd behind an API server.

use kube::Config;
use serde_json::{Value, json};

use super::{ControlPlane, ControlPlaneError, io_error};

impl ControlPlane {
    /// Compacts etcd at its latest revision, as happens every five minutes: a watch from an older one gets
    /// 410 once the API server's own memory of it is gone, which a restart sees to.
    pub async fn compact_etcd(&self) -> Result<(), ControlPlaneError> {
        let range = self.ask_etcd("range", json!({"key": "AA=="})).await?;
        let revision = &range["header"]["revision"];
        let compaction = json!({"revision": revision, "physical": true});
        self.ask_etcd("compaction", compaction).await.map(drop)
    }

    /// One call through etcd's JSON gateway.
    async fn ask_etcd(&self, call: &str, body: Value) -> Result<Value, ControlPlaneError> {
        let failed = |error: kube::Error| {
            io_error(
                format!("ask etcd for a {call}"),
                std::io::Error::other(error),
            )
        };
        let url = format!("http://127.0.0.1:{}/", self.etcd_port);
        let url = url.parse().map_err(|error| {
            io_error(
                "make etcd's address",
                std::io::Error::other::<http::uri::InvalidUri>(error),
            )
        })?;
        let client = kube::Client::try_from(Config::new(url)).map_err(failed)?;
        let request = http::Request::post(format!("/v3/kv/{call}"))
            .body(body.to_string().into_bytes())
            .map_err(|error| io_error("make a request to etcd", std::io::Error::other(error)))?;
        client.request(request).await.map_err(failed)
    }
}
