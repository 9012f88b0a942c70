//! Traces, where somebody wants them: spans of decisions, writes and requests, sent by OTLP over HTTP.

use std::time::Duration;

use async_trait::async_trait;
use http::uri::InvalidUri;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::Config;
use kube::client::ConfigExt;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::{Layer, Registry};

/// How long a collector may take for one request.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the last spans may take at the end.
const LAST: Duration = Duration::from_millis(400);

/// The largest answer that a collector is believed to give.
const LARGEST: usize = 1 << 20;

/// The one target of kube's whose spans are kept: one for each request.
const REQUESTS: &str = "kube_client::client::builder";

/// Why no traces can be sent.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The address is none.
    #[error("cannot send traces to {endpoint:?}: write a URL like http://collector:4318")]
    Endpoint {
        /// The address.
        endpoint: String,
        /// What is wrong with it.
        #[source]
        source: InvalidUri,
    },
    /// No connections can be made, for example because there are no root certificates.
    #[error("cannot send traces to {endpoint}")]
    Connector {
        /// The address.
        endpoint: String,
        /// What is wrong.
        #[source]
        source: Box<kube::Error>,
    },
    /// The exporter refuses its settings.
    #[error("cannot send traces to {endpoint}")]
    Exporter {
        /// The address.
        endpoint: String,
        /// What is wrong.
        #[source]
        source: ExporterBuildError,
    },
}

/// What sends spans. Nothing of it exists where no endpoint is named, and spans are then not even made.
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Sends to the collector at this base URL, from inside of a runtime. What OTEL_EXPORTER_OTLP_HEADERS
    /// and OTEL_TRACES_SAMPLER say holds.
    ///
    /// # Errors
    /// When the address is none.
    pub fn to(endpoint: &str) -> Result<Self, TracesError> {
        let named = || endpoint.to_owned();
        let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        let uri: Uri = url.parse().map_err(|source| TracesError::Endpoint {
            endpoint: named(),
            source,
        })?;
        // kube has a connector for HTTP and HTTPS, with the roots that the system trusts.
        let connector = Config::new(uri).rustls_https_connector().map_err(|error| {
            let source = Box::new(error);
            TracesError::Connector {
                endpoint: named(),
                source,
            }
        })?;
        let client = OnRuntime {
            client: Client::builder(TokioExecutor::new()).build(connector),
            handle: Handle::current(),
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(url)
            .with_protocol(Protocol::HttpBinary)
            .build()
            .map_err(|source| TracesError::Exporter {
                endpoint: named(),
                source,
            })?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder()
            .with_service_name("nettune-operator")
            .with_attribute(version)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build();
        Ok(Self(provider))
    }

    /// The layer that makes spans of the program's own.
    pub fn layer(&self) -> impl Layer<Registry> + Send + Sync + use<> {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("nettune-operator"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(FilterFn::new(is_traced).with_max_level_hint(LevelFilter::DEBUG))
    }

    /// Sends what is left, best effort.
    pub async fn finish(self) {
        // It waits for a thread that waits for this runtime.
        let last = move || self.0.shutdown_with_timeout(LAST);
        let _ = tokio::task::spawn_blocking(last).await;
    }
}

fn is_traced(of: &Metadata<'_>) -> bool {
    let ours = of.target().starts_with("nettune_operator") || of.target() == REQUESTS;
    of.is_span() && ours && *of.level() <= Level::DEBUG
}

/// A client whose requests run on the program's runtime: the exporter calls it from a thread of its own.
///
/// Not opentelemetry-http's: that would bring HTTP/2 into both daemons.
#[derive(Debug)]
struct OnRuntime {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    handle: Handle,
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let answered = async move {
            let answer = client.request(request.map(Full::from)).await?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, LARGEST).collect().await?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        // All of it in there: a time-out too is made by a runtime.
        let sent = async move { timeout(PATIENCE, answered).await };
        self.handle.spawn(sent).await??
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_address_is_named() {
        nettune_runtime::tls::install();
        let error = Traces::to("collector 4318").err().unwrap();
        assert!(error.to_string().contains("\"collector 4318\""), "{error}");
        assert!(Traces::to("https://collector:4318/").is_ok());
    }
}
