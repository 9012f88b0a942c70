//! The HTTP endpoint: `/metrics`, `/healthz` and `/readyz`.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

/// How long a main loop may take before `/healthz` reports that it hangs.
const STALE_AFTER: Duration = Duration::from_secs(30);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug)]
pub struct Endpoint {
    listener: TcpListener,
    address: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on {address}; choose another address with --listen")]
    Bind {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot serve on {address}")]
    Serve {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

impl Endpoint {
    /// Listens on an address; port 0 picks a free port. Logs the address in the field `listen`.
    ///
    /// # Errors
    /// When the address is in use or not allowed.
    pub fn bind(address: SocketAddr) -> Result<Self, ServeError> {
        let failed = |source| ServeError::Bind { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tracing::info!(listen = %address, "serving /metrics, /healthz and /readyz");
        Ok(Self { listener, address })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until shutdown. Drops requests in progress.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn run(
        self,
        registry: Arc<Registry>,
        health: Health,
        shutdown: CancellationToken,
    ) -> Result<(), ServeError> {
        let address = self.address;
        let failed = |source| ServeError::Serve { address, source };
        let listener = tokio::net::TcpListener::from_std(self.listener).map_err(failed)?;
        let router = Router::new()
            .route("/metrics", get(metrics).with_state(registry))
            .route("/healthz", get(healthz).with_state(health.clone()))
            .route("/readyz", get(readyz).with_state(health));
        tokio::select! {
            served = axum::serve(listener, router) => served.map_err(failed),
            () = shutdown.cancelled() => Ok(()),
        }
    }
}

async fn metrics(State(registry): State<Arc<Registry>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn healthz(State(health): State<Health>) -> Response {
    status(health.is_alive(), "the main loop hangs\n")
}

async fn readyz(State(health): State<Health>) -> Response {
    status(health.is_ready(), "not ready yet\n")
}

fn status(is_ok: bool, problem: &'static str) -> Response {
    if is_ok {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, problem).into_response()
    }
}

/// What `/healthz` and `/readyz` report. Clones share it.
#[derive(Debug, Clone)]
pub struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    stale_after: Duration,
    /// In milliseconds since `started`.
    last_beat: AtomicU64,
    ready: AtomicBool,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Alive for the next 30 s, and not ready.
    #[must_use]
    pub fn new() -> Self {
        Self::stale_after(STALE_AFTER)
    }

    /// With another time after which a main loop counts as hanging.
    #[must_use]
    pub(crate) fn stale_after(stale_after: Duration) -> Self {
        Self(Arc::new(Inner {
            started: Instant::now(),
            stale_after,
            last_beat: AtomicU64::new(0),
            ready: AtomicBool::new(false),
        }))
    }

    /// The main loop calls this in each round.
    pub fn beat(&self) {
        self.0.last_beat.store(self.elapsed(), Ordering::Relaxed);
    }

    pub fn set_ready(&self, ready: bool) {
        self.0.ready.store(ready, Ordering::Relaxed);
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.ready.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn is_alive(&self) -> bool {
        let last_beat = self.0.last_beat.load(Ordering::Relaxed);
        let since = self.elapsed().saturating_sub(last_beat);
        u128::from(since) <= self.0.stale_after.as_millis()
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::metrics::register_build_info;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn metrics_health_and_readiness_are_served_until_shutdown() {
        let mut registry = Registry::default();
        register_build_info(&mut registry, "test", "0");
        let endpoint = Endpoint::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = endpoint.address();
        assert_ne!(address.port(), 0);
        let health = Health::new();
        let shutdown = CancellationToken::new();
        let served =
            tokio::spawn(endpoint.run(Arc::new(registry), health.clone(), shutdown.clone()));

        let metrics = get(address, "/metrics").await;
        assert!(
            metrics.contains("application/openmetrics-text"),
            "{metrics}"
        );
        assert!(metrics.contains("nettune_build_info"), "{metrics}");
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503"));
        health.set_ready(true);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));

        shutdown.cancel();
        served.await.unwrap().unwrap();
    }

    #[test]
    fn main_loop_without_a_beat_is_not_alive() {
        let health = Health::stale_after(Duration::from_millis(20));
        assert!(health.is_alive());
        std::thread::sleep(Duration::from_millis(60));
        assert!(!health.is_alive());
        health.beat();
        assert!(health.is_alive());
    }

    #[test]
    fn address_in_use_is_named() {
        let first = Endpoint::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let error = Endpoint::bind(first.address()).unwrap_err();
        assert!(error.to_string().contains(&first.address().to_string()));
    }
}
